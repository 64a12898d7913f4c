//! Where the winning probability of excitation backpropagation goes (Zhang et
//! al., "Top-down neural attention by excitation backprop", ECCV 2016): from the
//! class scores back to a layer, a rule per operator.

use std::collections::HashSet;

use anyhow::{Result, bail};

use super::ffi::{Flow, FlowRule};
use super::graph::{Graph, Node, ValueId};
use crate::error::usage;

/// What an operator does with the probability that comes back to it.
enum Passage {
    /// A rule of its own, and the inputs that take it.
    Rule(Flow, i32, Vec<ValueId>),
    /// It only moves values about: its ordinary gradient does, to all inputs.
    Gradient(Vec<ValueId>),
}

/// The rules of the operators between `layer` and the class scores, in execution
/// order. With `contrastive` the one layer that makes the scores sends the
/// difference between its weights and their negative: as every rule is linear in
/// the probability, the difference of two passes is the pass of the difference.
///
/// # Errors
/// Where an operator has no rule (named), and, with `contrastive`, where not
/// exactly one layer with weights makes the scores.
pub fn flow_rules(
    graph: &Graph,
    logits: ValueId,
    layer: ValueId,
    contrastive: bool,
) -> Result<Vec<FlowRule>> {
    let behind = graph.descendants(layer);
    let of_image = graph.descendants(graph.input);
    let mut carrying = HashSet::from([logits]);
    // Values at which a path back from the scores has met no weights yet.
    let mut scores = HashSet::from([logits]);
    let mut scorers = Vec::new();
    let mut rules = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        let reached = node.outputs.iter().chain(graph.filled_by(index));
        let reached: Vec<ValueId> = reached
            .copied()
            .filter(|value| carrying.contains(value) && behind.contains(value))
            .collect();
        if reached.is_empty() || node.outputs.contains(&layer) {
            continue;
        }
        let passage = passage(graph, node, &of_image)?;
        let (Passage::Rule(.., inputs) | Passage::Gradient(inputs)) = &passage;
        carrying.extend(inputs);
        let makes_scores = reached.iter().any(|value| scores.contains(value));
        let weighted = node.has_weights();
        if makes_scores && !weighted {
            scores.extend(inputs);
        }
        if let Passage::Rule(flow, input, _) = passage {
            let scorer = makes_scores && weighted;
            if scorer {
                scorers.push(index);
            }
            rules.push(FlowRule {
                value: node.outputs[0] as i64,
                flow: if scorer && contrastive {
                    Flow::Contrast
                } else {
                    flow
                },
                input,
            });
        }
    }
    rules.reverse();
    if contrastive && scorers.len() != 1 {
        let names: Vec<&str> = scorers
            .iter()
            .map(|&node| graph.nodes[node].name.as_str())
            .collect();
        return Err(usage(match names.as_slice() {
            [] => format!(
                "--saliency exct-backp: no layer with weights comes after '{}', so there is nothing to contrast; take an earlier --saliency-layer",
                graph.name(layer)
            ),
            names => format!(
                "--saliency exct-backp: {} layers make the class scores ({}), where the contrast is defined for one; use --saliency gradcam",
                names.len(),
                names.join(", ")
            ),
        }));
    }
    Ok(rules)
}

/// Whether contrastive excitation backpropagation is zero at `layer` whatever
/// the network has learned: where a 1x1 convolution of it makes the scores, both
/// passes bring each pixel the same probability, and only channels differ.
pub fn contrast_vanishes(graph: &Graph, rules: &[FlowRule], layer: ValueId) -> bool {
    let node_of = |rule: &FlowRule| Some(&graph.nodes[graph.maker(rule.value as usize)?]);
    let Some(at) = rules.iter().position(|rule| rule.flow == Flow::Contrast) else {
        return false;
    };
    // Before it, only what leaves each value in its place.
    let elementwise = rules[..at].iter().all(|rule| rule.flow == Flow::Through);
    elementwise
        && node_of(&rules[at]).is_some_and(|node| {
            let plane = |value| graph.activation(value).map(|(_, h, w)| (h, w));
            node.is_pointwise_convolution() && plane(node.outputs[0]) == plane(layer)
        })
}

fn passage(graph: &Graph, node: &Node, of_image: &HashSet<ValueId>) -> Result<Passage> {
    // Constants and sizes take no probability.
    let takes = |value: &ValueId| {
        of_image.contains(value) && (graph.sizes(*value).is_some() || holds_tensors(graph, *value))
    };
    let takers: Vec<ValueId> = node.inputs.iter().copied().filter(takes).collect();
    let rule = |flow, taker: ValueId| {
        let input = node.inputs.iter().position(|&input| input == taker);
        Ok(Passage::Rule(flow, input.unwrap_or(0) as i32, vec![taker]))
    };
    match (node.kind(), takers.as_slice()) {
        (kind, &[taker]) if node.has_weights() || averages(kind) => rule(Flow::Winner, taker),
        (kind, &[taker, ..])
            if node.is_nonlinearity()
                || lets_through(kind)
                || is_arithmetic(kind) && takers.len() == 1 =>
        {
            rule(Flow::Through, taker)
        }
        ("add", &[a, b]) if a == b => rule(Flow::Through, a),
        ("add", &[a, b]) => Ok(Passage::Rule(Flow::Share, 0, vec![a, b])),
        ("mul", &[a, b]) => rule(Flow::Through, ungated(graph, a, b)),
        (kind, _) if moves(kind) => Ok(Passage::Gradient(takers)),
        _ => bail!(
            "--saliency exct-backp has no rule for the operator {} ({}); use --saliency gradcam, or a --saliency-layer behind it",
            node.operator,
            node.name
        ),
    }
}

/// Of the factors of a product the one that the other, the gate, is applied to:
/// the larger; of equals the one that the other is computed from (`x * sigmoid(x)`).
fn ungated(graph: &Graph, a: ValueId, b: ValueId) -> ValueId {
    let size = |value| {
        graph
            .sizes(value)
            .map_or(1, |sizes| sizes.iter().product::<i64>())
    };
    let made_from = |value, from| graph.descendants(from).contains(&value);
    if size(b) > size(a) || size(a) == size(b) && made_from(a, b) {
        b
    } else {
        a
    }
}

fn holds_tensors(graph: &Graph, value: ValueId) -> bool {
    graph.maker(value).is_some_and(|node| {
        matches!(
            graph.nodes[node].kind(),
            "ListConstruct"
                | "TupleConstruct"
                | "chunk"
                | "split"
                | "split_with_sizes"
                | "tensor_split"
                | "unbind"
        )
    })
}

/// Linear with positive weights of its own: averages, sums and interpolation.
fn averages(kind: &str) -> bool {
    matches!(
        kind,
        "avg_pool1d"
            | "avg_pool2d"
            | "adaptive_avg_pool1d"
            | "adaptive_avg_pool2d"
            | "mean"
            | "sum"
            | "upsample_bilinear2d"
    )
}

/// Beside the non-linearities: what scales each value, and what does nothing
/// when a network is run.
fn lets_through(kind: &str) -> bool {
    matches!(
        kind,
        "batch_norm"
            | "instance_norm"
            | "group_norm"
            | "layer_norm"
            | "local_response_norm"
            | "dropout"
            | "feature_dropout"
            | "alpha_dropout"
            | "detach"
            | "softmax"
            | "log_softmax"
            | "log_sigmoid"
            | "threshold"
            | "rrelu"
            | "softsign"
    )
}

/// With a constant: a bias or a scale.
fn is_arithmetic(kind: &str) -> bool {
    matches!(kind, "add" | "sub" | "mul" | "div")
}

fn moves(kind: &str) -> bool {
    matches!(
        kind,
        "max_pool1d"
            | "max_pool2d"
            | "adaptive_max_pool1d"
            | "adaptive_max_pool2d"
            | "max"
            | "amax"
            | "view"
            | "view_as"
            | "reshape"
            | "reshape_as"
            | "flatten"
            | "unflatten"
            | "permute"
            | "movedim"
            | "transpose"
            | "swapaxes"
            | "t"
            | "contiguous"
            | "clone"
            | "alias"
            | "to"
            | "slice"
            | "select"
            | "narrow"
            | "chunk"
            | "split"
            | "split_with_sizes"
            | "tensor_split"
            | "unbind"
            | "index_select"
            | "stack"
            | "cat"
            | "concat"
            | "concatenate"
            | "squeeze"
            | "unsqueeze"
            | "expand"
            | "expand_as"
            | "channel_shuffle"
            | "pixel_shuffle"
            | "pixel_unshuffle"
            | "upsample_nearest2d"
            | "constant_pad_nd"
            | "pad"
            | "roll"
            | "flip"
            | "append"
            | "ListConstruct"
            | "ListUnpack"
            | "TupleConstruct"
            | "TupleUnpack"
            | "TupleIndex"
            | "__getitem__"
            | "getitem"
    )
}

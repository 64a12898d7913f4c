//! Where the winning probability of excitation backpropagation goes (Zhang et
//! al., "Top-down neural attention by excitation backprop", ECCV 2016): from the
//! class scores back to a layer, a rule per operator.

use std::cmp::Ordering;
use std::collections::HashSet;

use anyhow::{Result, anyhow};

use super::ffi::{BackpropRule, NodeRule};
use super::graph::{Graph, Node, ValueId};
use crate::error::{Hint, usage_hinted};

/// What an operator does with the probability that comes back to it.
enum Passage {
    /// A rule of its own, and the inputs that take it.
    Rule(BackpropRule, i32, Vec<ValueId>),
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
) -> Result<Vec<NodeRule>> {
    let behind = graph.descendants(layer);
    let of_image = graph.descendants(graph.input);
    let mut carrying = HashSet::from([logits]);
    // Values at which a path back from the scores has met no weights yet.
    let mut scores = HashSet::from([logits]);
    let mut scorers = Vec::new();
    let mut rules = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        // A write that nothing here sees the result of; dropout writes nothing
        // when a network is run.
        if node.works_in_place()
            && !node.kind().ends_with("dropout")
            && behind.contains(&node.inputs[0])
            && viewed(graph, node.inputs[0]) != layer
        {
            return Err(no_rule(node, "; it changes a part of a tensor in place"));
        }
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
            let batch_norm = match flow {
                BackpropRule::ZPlus => folded_batch_norm(graph, node),
                _ => None,
            };
            rules.push(NodeRule {
                value: node.outputs[0] as i64,
                flow: if scorer && contrastive {
                    BackpropRule::ZPlusContrastive
                } else {
                    flow
                },
                input,
                batch_norm: batch_norm.map_or(-1, |value| value as i64),
            });
        }
    }
    rules.reverse();
    if contrastive && scorers.len() != 1 {
        let names: Vec<&str> = scorers
            .iter()
            .map(|&node| graph.nodes[node].name.as_str())
            .collect();
        return Err(match names.as_slice() {
            [] => usage_hinted(
                format!(
                    "excitation backpropagation: no layer with weights comes after '{}', so there is nothing to contrast",
                    graph.name(layer)
                ),
                Hint::EarlierSaliencyLayer,
            ),
            names => anyhow!(
                "--saliency exct-backp: {} layers make the class scores ({}), where the contrast is defined for one; use --saliency gradcam",
                names.len(),
                names.join(", ")
            ),
        });
    }
    Ok(rules)
}

fn no_rule(node: &Node, why: &str) -> anyhow::Error {
    let what = match node.operator.as_str() {
        "prim::If" => "a branch".to_string(),
        "prim::Loop" => "a loop".to_string(),
        operator => format!("the operator {operator}"),
    };
    let place = match (node.name.as_str(), node.path.as_str()) {
        ("", "") => String::new(),
        ("", path) => format!(" in '{path}'"),
        (name, _) => format!(" ('{name}')"),
    };
    anyhow!(
        "--saliency exct-backp has no rule for {what}{place}{why}; use --saliency gradcam, or a --saliency-layer after it"
    )
}

/// The tensor that a value is a view of, or itself.
fn viewed(graph: &Graph, mut value: ValueId) -> ValueId {
    while let Some(node) = graph.maker(value).map(|node| &graph.nodes[node])
        && (is_view(node.kind()) || node.works_in_place())
        && let Some(&input) = node.inputs.first()
    {
        value = input;
    }
    value
}

/// What the batch-norm makes that alone reads a layer's output, channel by
/// channel.
fn folded_batch_norm(graph: &Graph, node: &Node) -> Option<ValueId> {
    let output = *node.outputs.first()?;
    // Of a matrix product the last dimension has the channels, of a batch-norm
    // the second.
    let channels_second = node.kind().starts_with("conv") || graph.sizes(output)?.len() == 2;
    let mut readers = graph
        .users(output)
        .iter()
        .map(|&user| &graph.nodes[user])
        .filter(|user| !matches!(user.kind(), "size" | "dim" | "len"));
    let only = readers.next()?;
    let folds = node.has_weights()
        && channels_second
        && only.kind() == "batch_norm"
        && only.inputs.first() == Some(&output)
        && readers.next().is_none()
        && !graph.outputs.contains(&output);
    folds.then(|| only.outputs.first().copied()).flatten()
}

/// Whether contrastive excitation backpropagation is zero at `layer` whatever
/// the network has learned: where a 1x1 convolution of it makes the scores, both
/// passes bring each pixel the same probability, and only channels differ.
pub fn contrast_vanishes(graph: &Graph, rules: &[NodeRule], layer: ValueId) -> bool {
    let taker = |rule: &NodeRule| {
        let node = &graph.nodes[graph.maker(rule.value as usize)?];
        Some((node, *node.inputs.get(rule.input as usize)?))
    };
    let contrast = rules
        .iter()
        .find(|rule| rule.flow == BackpropRule::ZPlusContrastive);
    let Some((scorer, mut value)) = contrast.and_then(taker) else {
        return false;
    };
    // Back over what leaves each value in its place.
    while value != layer {
        let through = rules
            .iter()
            .find(|rule| rule.value as usize == value && rule.flow == BackpropRule::Pass);
        match through.and_then(taker) {
            Some((_, input)) => value = input,
            None => return false,
        }
    }
    let plane = |value| graph.activation(value).map(|(_, h, w)| (h, w));
    scorer.is_pointwise_convolution() && plane(scorer.outputs[0]) == plane(layer)
}

fn passage(graph: &Graph, node: &Node, of_image: &HashSet<ValueId>) -> Result<Passage> {
    // Constants and sizes take no probability.
    let takes = |value: &ValueId| of_image.contains(value) && holds_tensors(graph, *value);
    let takers: Vec<ValueId> = node.inputs.iter().copied().filter(takes).collect();
    let rule = |flow, taker: ValueId| {
        let input = node.inputs.iter().position(|&input| input == taker);
        Ok(Passage::Rule(flow, input.unwrap_or(0) as i32, vec![taker]))
    };
    let kind = node.kind();
    match *takers.as_slice() {
        [taker] if is_linear(node) => rule(BackpropRule::ZPlus, taker),
        [taker, ..] if node.is_nonlinearity() || lets_through(kind) => {
            rule(BackpropRule::Pass, taker)
        }
        [taker] if matches!(kind, "add" | "mul") => rule(BackpropRule::Pass, taker),
        // Not of a constant less the tensor, which turns its sign.
        [taker] if matches!(kind, "sub" | "div") && node.inputs[0] == taker => {
            rule(BackpropRule::Pass, taker)
        }
        [a, b] if kind == "add" && a == b => rule(BackpropRule::Pass, a),
        [a, b] if kind == "add" => Ok(Passage::Rule(BackpropRule::SplitPositive, 0, vec![a, b])),
        [a, b] if kind == "mul" => match ungated(graph, a, b) {
            Some(taker) => rule(BackpropRule::Pass, taker),
            None => Err(no_rule(
                node,
                ": which of its two tensors is the gate is not plain",
            )),
        },
        _ if moves(kind) => Ok(Passage::Gradient(takers)),
        _ => Err(no_rule(node, "")),
    }
}

/// Of the factors of a product the one that the other, the gate, is applied to:
/// the larger; of equals the one that the other is computed from (`x * sigmoid(x)`),
/// or that is not made by a sigmoid or its like.
fn ungated(graph: &Graph, a: ValueId, b: ValueId) -> Option<ValueId> {
    let size = |value| {
        graph
            .sizes(value)
            .map_or(1, |sizes| sizes.iter().product::<i64>())
    };
    let made_from = |value, from| graph.descendants(from).contains(&value);
    let is_gate = |mut value| {
        while let Some(node) = graph.maker(value).map(|node| &graph.nodes[node]) {
            match node.kind() {
                "sigmoid" | "hardsigmoid" | "softmax" => return true,
                kind if moves(kind) => value = node.inputs[0],
                _ => break,
            }
        }
        false
    };
    match size(a).cmp(&size(b)) {
        Ordering::Greater => Some(a),
        Ordering::Less => Some(b),
        Ordering::Equal if a == b || made_from(b, a) => Some(a),
        Ordering::Equal if made_from(a, b) => Some(b),
        Ordering::Equal => match (is_gate(a), is_gate(b)) {
            (true, false) => Some(b),
            (false, true) => Some(a),
            _ => None,
        },
    }
}

/// Whether a value is a tensor, not a mere number, or a container of tensors.
fn holds_tensors(graph: &Graph, value: ValueId) -> bool {
    if let Some(sizes) = graph.sizes(value) {
        return !sizes.is_empty();
    }
    let Some(node) = graph.maker(value).map(|node| &graph.nodes[node]) else {
        return false;
    };
    match node.kind() {
        "ListConstruct" | "TupleConstruct" => {
            node.inputs.is_empty() || node.inputs.iter().any(|&item| holds_tensors(graph, item))
        }
        "chunk" | "split" | "split_with_sizes" | "tensor_split" | "unbind" => true,
        _ => false,
    }
}

/// Linear with weights of which the excitatory part can be taken, or with
/// positive weights of its own: averages, sums and interpolation.
fn is_linear(node: &Node) -> bool {
    match node.kind() {
        "bmm" | "einsum" => false,
        "avg_pool1d"
        | "avg_pool2d"
        | "adaptive_avg_pool1d"
        | "adaptive_avg_pool2d"
        | "mean"
        | "sum"
        | "upsample_bilinear2d" => true,
        _ => node.has_weights(),
    }
}

fn is_view(kind: &str) -> bool {
    matches!(
        kind,
        "view"
            | "view_as"
            | "reshape"
            | "flatten"
            | "slice"
            | "select"
            | "narrow"
            | "permute"
            | "transpose"
            | "t"
            | "squeeze"
            | "unsqueeze"
            | "expand"
            | "alias"
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
            | "dropout"
            | "feature_dropout"
            | "alpha_dropout"
            | "detach"
            | "softmax"
            | "log_softmax"
            | "log_sigmoid"
            | "threshold"
            | "rrelu"
    )
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

//! Excitation backpropagation (Zhang et al., "Top-down neural attention by excitation backprop",
//! ECCV 2016): the rule by which each operator passes the winning probability on, from the class
//! scores back to a layer.

use std::cmp::Ordering;
use std::collections::HashSet;

use anyhow::Result;

use super::ffi::{BackpropRule, NodeRule};
use super::graph::{Graph, Node, ValueId};
use super::operators::{Backprop, Kind, Property};
use crate::error::{Hint, hinted, usage_hinted};

/// The rules of the operators between `layer` and the class scores, in execution order.
///
/// With `contrastive` the layer that makes the scores propagates the difference between its
/// weights and the negated weights. All rules are linear in the probability, so this is the
/// difference of two passes. `scores` are one tensor, or one for each class.
///
/// # Errors
/// Returns an error if an operator has no rule, and, with `contrastive`, unless exactly one layer
/// with weights makes each tensor of the scores.
pub fn node_rules(
    graph: &Graph,
    scores: &[ValueId],
    layer: ValueId,
    contrastive: bool,
) -> Result<Vec<NodeRule>> {
    let after_layer = graph.descendants(layer);
    let from_image = graph.descendants(graph.input);
    let mut reached: HashSet<ValueId> = scores.iter().copied().collect();
    // Values that a path back from the scores reaches before any layer with weights.
    let mut unweighted = reached.clone();
    let mut scorers: Vec<&str> = Vec::new();
    let mut rules = Vec::new();
    for node in graph.nodes.iter().rev() {
        if writes_part(graph, node, layer, &after_layer) {
            return Err(no_rule(node, "; it changes a part of a tensor in place"));
        }
        let carries = |value: &ValueId| reached.contains(value) && after_layer.contains(value);
        let outputs = node.outputs.iter().copied().chain(node.filled_container());
        let outputs: Vec<ValueId> = outputs.filter(carries).collect();
        if outputs.is_empty() || node.outputs.contains(&layer) {
            continue;
        }
        let (rule, inputs) = propagation(graph, node, &from_image)?;
        reached.extend(&inputs);
        let makes_scores = outputs.iter().any(|value| unweighted.contains(value));
        let is_scorer = makes_scores && node.has(Property::Weights);
        if makes_scores && !is_scorer {
            unweighted.extend(&inputs);
        }
        let Some(mut flow) = rule else {
            continue;
        };
        let batch_norm = folded_batch_norm(graph, node).filter(|_| flow == BackpropRule::ZPlus);
        if is_scorer {
            scorers.push(&node.name);
            if contrastive {
                flow = BackpropRule::ZPlusContrastive;
            }
        }
        let input = node.inputs.iter().position(|input| *input == inputs[0]);
        rules.push(NodeRule {
            value: node.outputs[0] as i64,
            flow,
            input: input.unwrap_or(0) as i32,
            batch_norm: batch_norm.map_or(-1, |value| value as i64),
        });
    }
    rules.reverse();
    match scorers.len() {
        0 if contrastive => {
            let layer = graph.name(layer);
            let message = format!(
                "excitation backpropagation: no layer with weights comes after '{layer}', so there is nothing to contrast"
            );
            Err(usage_hinted(message, Hint::EarlierSaliencyLayer))
        }
        count if contrastive && count > scores.len() => {
            let names = scorers.join(", ");
            let message = format!(
                "excitation backpropagation: {count} layers make the class scores ({names}), but the contrast is defined for one"
            );
            Err(hinted(message, Hint::GradCam))
        }
        _ => Ok(rules),
    }
}

/// Whether an operator changes a part of a tensor in place. The graph does not show which values
/// are affected. In-place dropout writes nothing in evaluation mode.
fn writes_part(graph: &Graph, node: &Node, layer: ValueId, after: &HashSet<ValueId>) -> bool {
    node.works_in_place()
        && node.kind() != Kind::Dropout
        && after.contains(&node.inputs[0])
        && viewed(graph, node.inputs[0]) != layer
}

fn no_rule(node: &Node, why: &str) -> anyhow::Error {
    let operator = match node.full_name.as_str() {
        "prim::If" => "a branch".to_string(),
        "prim::Loop" => "a loop".to_string(),
        name => format!("the operator {name}"),
    };
    let place = match (node.name.as_str(), node.path.as_str()) {
        ("", "") => String::new(),
        ("", path) => format!(" in '{path}'"),
        (name, _) => format!(" ('{name}')"),
    };
    hinted(
        format!("excitation backpropagation has no rule for {operator}{place}{why}"),
        Hint::GradCamOrLaterLayer,
    )
}

/// The tensor that a value is a view of, or itself.
fn viewed(graph: &Graph, mut value: ValueId) -> ValueId {
    while let Some(node) = graph.made_by(value)
        && (node.has(Property::View) || node.works_in_place())
        && let Some(&input) = node.inputs.first()
    {
        value = input;
    }
    value
}

/// The output of the batch-norm that can be folded into a layer: it alone reads the layer's
/// output, and scales it channel by channel.
fn folded_batch_norm(graph: &Graph, node: &Node) -> Option<ValueId> {
    let output = *node.outputs.first()?;
    // A matrix product has its channels in the last dimension, a batch-norm in the second.
    let convolves = matches!(node.kind(), Kind::Conv2d | Kind::Convolution);
    let channels_second = convolves || graph.sizes(output)?.len() == 2;
    let mut readers = graph
        .users(output)
        .filter(|user| !matches!(user.kind(), Kind::Size | Kind::Count));
    let only = readers.next()?;
    let folds = node.has(Property::Weights)
        && channels_second
        && only.kind() == Kind::BatchNorm
        && only.inputs.first() == Some(&output)
        && readers.next().is_none()
        && !graph.outputs.contains(&output);
    only.outputs.first().copied().filter(|_| folds)
}

/// Whether contrastive excitation backpropagation is zero at `layer` whatever the network has
/// learned. That is so if a 1x1 convolution of the layer makes the scores: both passes bring
/// each pixel the same probability, and only channels differ.
pub fn contrast_vanishes(graph: &Graph, rules: &[NodeRule], layer: ValueId) -> bool {
    let input_of = |rule: &NodeRule| {
        let node = graph.made_by(rule.value as usize)?;
        Some((node, *node.inputs.get(rule.input as usize)?))
    };
    let mut rules = rules.iter().rev();
    let contrast = rules.find(|rule| rule.flow == BackpropRule::ZPlusContrastive);
    let Some((scorer, mut value)) = contrast.and_then(input_of) else {
        return false;
    };
    // Back over operators that leave each value in its place.
    while value != layer {
        let passes =
            |rule: &&NodeRule| rule.value as usize == value && rule.flow == BackpropRule::Pass;
        match rules.find(passes).and_then(input_of) {
            Some((_, input)) => value = input,
            None => return false,
        }
    }
    let plane = |value| graph.activation(value).map(|(_, h, w)| (h, w));
    scorer.is_pointwise_convolution() && plane(scorer.outputs[0]) == plane(layer)
}

/// The rule of an operator (none if the probability follows its ordinary gradient), and the inputs
/// that it passes the probability to.
fn propagation(
    graph: &Graph,
    node: &Node,
    from_image: &HashSet<ValueId>,
) -> Result<(Option<BackpropRule>, Vec<ValueId>)> {
    // Constants and sizes carry no probability.
    let carries = |value: &ValueId| from_image.contains(value) && holds_tensors(graph, *value);
    let activations: Vec<ValueId> = node.inputs.iter().copied().filter(carries).collect();
    let (rule, input) = match (node.operator.backprop, activations.as_slice()) {
        (Backprop::Move, _) => return Ok((None, activations)),
        (Backprop::ZPlus, &[a]) => (BackpropRule::ZPlus, a),
        (Backprop::Pass, &[a, ..]) => (BackpropRule::Pass, a),
        (Backprop::Sum | Backprop::Product, &[a]) => (BackpropRule::Pass, a),
        // Not a constant less the activation, which changes its sign.
        (Backprop::Offset, &[a]) if node.inputs[0] == a => (BackpropRule::Pass, a),
        (Backprop::Sum, &[a, b]) if a == b => (BackpropRule::Pass, a),
        (Backprop::Sum, &[_, _]) => return Ok((Some(BackpropRule::SplitPositive), activations)),
        (Backprop::Product, &[a, b]) => {
            let why = ": it is ambiguous which of its two inputs is the gate";
            let input = gated_input(graph, a, b).ok_or_else(|| no_rule(node, why))?;
            (BackpropRule::Pass, input)
        }
        _ => return Err(no_rule(node, "")),
    };
    Ok((Some(rule), vec![input]))
}

/// The factor of a product that the other one, the gate, is applied to. It is the larger one. Of
/// two equal sizes it is the one that the other is computed from (`x * sigmoid(x)`), else the one
/// that is not made by a sigmoid or softmax.
fn gated_input(graph: &Graph, a: ValueId, b: ValueId) -> Option<ValueId> {
    let size = |value| -> i64 { graph.sizes(value).map_or(1, |sizes| sizes.iter().product()) };
    let depends_on = |value, from| graph.descendants(from).contains(&value);
    let is_gate = |mut value| {
        while let Some(node) = graph.made_by(value) {
            if node.has(Property::Gate) {
                return true;
            }
            if node.operator.backprop != Backprop::Move {
                break;
            }
            value = node.inputs[0];
        }
        false
    };
    match size(a).cmp(&size(b)) {
        Ordering::Greater => Some(a),
        Ordering::Less => Some(b),
        Ordering::Equal if a == b || depends_on(b, a) => Some(a),
        Ordering::Equal if depends_on(a, b) => Some(b),
        Ordering::Equal => match (is_gate(a), is_gate(b)) {
            (true, false) => Some(b),
            (false, true) => Some(a),
            _ => None,
        },
    }
}

/// Whether a value is a tensor with dimensions, or a container of tensors.
fn holds_tensors(graph: &Graph, value: ValueId) -> bool {
    if let Some(sizes) = graph.sizes(value) {
        return !sizes.is_empty();
    }
    let Some(node) = graph.made_by(value) else {
        return false;
    };
    let mut items = node.inputs.iter();
    match node.kind() {
        Kind::Split => true,
        Kind::Container => node.inputs.is_empty() || items.any(|&item| holds_tensors(graph, item)),
        _ => false,
    }
}

//! The head of a network: the operators between its last activations and the class scores. They
//! reduce space (pooling), weigh it (attention maps) or describe its pixels anew (powers,
//! norms). PRISM shows the activation before them, which the convolutional body made.

use std::collections::HashSet;

use super::graph::{Graph, Node, ValueId};
use super::operators::{Backprop, Kind, Property};

/// What the class scores are computed from.
#[derive(Debug, Default)]
pub struct Head {
    /// The last activations of the body, in the order of their operators.
    pub activations: Vec<ValueId>,
    /// The attention layers in the head. One is a way to pool; several mix features further.
    pub attentions: usize,
}

/// A value on the way back from the class scores.
#[derive(Clone, Copy)]
struct Step {
    value: ValueId,
    /// The number of scores if no layer with weights lies between.
    classes: Option<i64>,
    /// Whether a pooling by powers follows (log-sum-exp).
    after_power: bool,
    /// Whether it is inside an attention layer: what its values are, before their projection.
    in_attention: bool,
}

/// Goes back from the class scores along values, not along weights, to the last activations.
/// `scores` are tensors with a number of scores of an image in each.
pub fn find_head(graph: &Graph, scores: &[(ValueId, i64)]) -> Head {
    let mut head = Head::default();
    let mut seen = HashSet::new();
    let open = scores.iter().map(|&(value, count)| Step {
        value,
        classes: Some(count),
        after_power: false,
        in_attention: false,
    });
    let mut open: Vec<Step> = open.collect();
    while let Some(step) = open.pop() {
        let value = step.value;
        if !seen.insert(value) {
            continue;
        }
        let Some(node) = graph.made_by(value) else {
            continue; // the images, or a constant
        };
        let is_activation = graph.activation(value).is_some() && graph.follows_convolution(value);
        let in_attention = step.in_attention && is_projected(node);
        if is_activation && !in_attention {
            let last = before_description(graph, value, step.after_power);
            let scorer = step.classes;
            let scorer = scorer.and_then(|classes| classifier_convolution(graph, last, classes));
            match scorer {
                Some(value) if graph.follows_convolution(value) => open.push(Step {
                    value,
                    classes: None,
                    ..step
                }),
                _ if graph.activation(last).is_some() => head.activations.push(last),
                _ => open.push(Step {
                    value: last,
                    ..step
                }),
            }
            continue;
        }
        let attends = is_attention(graph, node);
        head.attentions += usize::from(attends);
        let is_layer = node.has(Property::Weights) && !is_pooling(graph, node);
        let next = |value| Step {
            value,
            classes: step.classes.filter(|_| !is_layer),
            after_power: step.after_power || node.short_name() == "logsumexp",
            // The projection of the values is the first layer before the weighted sum.
            in_attention: attends || in_attention && !is_layer,
        };
        let inputs = value_inputs(graph, node).into_iter();
        open.extend(inputs.chain(items(graph, value)).map(next));
    }
    head.activations.sort_by_key(|&value| graph.maker(value));
    head.activations.dedup();
    let pooled = head
        .activations
        .iter()
        .map(|&value| before_max_pooling(graph, value));
    let pooled: HashSet<ValueId> = pooled.collect();
    if let (&[only], 2..) = (Vec::from_iter(pooled).as_slice(), head.activations.len()) {
        head.activations = vec![only]; // spatial pyramid pooling
    }
    head
}

/// Whether an operator belongs to the projection of the values of an attention layer.
fn is_projected(node: &Node) -> bool {
    let lists = [Kind::Linear, Kind::Container, Kind::Item, Kind::Split];
    let multiplies = node.kind() == Kind::MatrixProduct;
    multiplies || lists.contains(&node.kind()) || node.operator.backprop == Backprop::Move
}

/// What was put into a list, a dictionary or a part of a tensor.
fn items(graph: &Graph, filled: ValueId) -> Vec<ValueId> {
    let items = graph
        .fillers(filled)
        .flat_map(|filler| image_inputs(graph, filler));
    items.filter(|&item| item != filled).collect()
}

/// Goes back from an activation over operators that describe or weigh its features anew.
fn before_description(graph: &Graph, mut value: ValueId, mut after_power: bool) -> ValueId {
    while graph.activation(value).is_some()
        && let Some(node) = graph.made_by(value)
        && let Some(input) = described(graph, node, value, after_power)
    {
        after_power |= node.kind() == Kind::Power;
        value = input;
    }
    value
}

/// The input that an operator describes anew, if it does no more than that.
fn described(graph: &Graph, node: &Node, value: ValueId, after_power: bool) -> Option<ValueId> {
    let inputs = image_inputs(graph, node);
    let first = *inputs.first()?;
    let shape = |value| graph.activation(value);
    let keeps_pixels = || {
        shape(first)
            .zip(shape(value))
            .is_some_and(|((c, h, w), after)| [(c, h, w), (c, w, h)].contains(&after))
    };
    let steps = match node.kind() {
        Kind::Permute
        | Kind::Transpose
        | Kind::Reshape
        | Kind::Layout
        | Kind::Flip
        | Kind::Rotate => keeps_pixels(),
        Kind::Power | Kind::Softmax | Kind::LogSoftmax => true,
        // An average pool that libtorch cannot pad by itself.
        Kind::Padding => true,
        // The lower bound of generalised-mean pooling, the scale of log-sum-exp.
        Kind::Bound => after_power,
        Kind::Elementwise if after_power && inputs.len() == 1 => {
            node.operator.backprop.is_arithmetic()
        }
        Kind::Elementwise => match (node.operator.backprop, inputs.as_slice()) {
            // Pixels of unit length, or less their mean or maximum over space.
            (Backprop::Offset, &[of, by]) => is_length(graph, by) || is_of_space(graph, by, of),
            // Places weighted by a softmax.
            (backprop, &[of]) if backprop.is_arithmetic() => graph
                .made_by(of)
                .is_some_and(|node| node.kind() == Kind::Softmax),
            (Backprop::Product, &[a, b]) => {
                let is_weight =
                    |value, other| weighs_space(graph, value) || is_power_of(graph, value, other);
                return match (is_weight(a, b), is_weight(b, a)) {
                    (true, false) => Some(b),
                    (false, true) => Some(a),
                    _ => None,
                };
            }
            _ => false,
        },
        _ => node.has(Property::KeepsFeatures),
    };
    steps.then_some(first)
}

fn before_max_pooling(graph: &Graph, value: ValueId) -> ValueId {
    match graph.made_by(value) {
        Some(node) if node.kind() == Kind::MaxPool2d => {
            before_description(graph, node.inputs[0], false)
        }
        _ => value,
    }
}

/// The input of a convolution that itself makes the class scores (SqueezeNet): it has one channel
/// per class.
fn classifier_convolution(graph: &Graph, mut value: ValueId, classes: i64) -> Option<ValueId> {
    let mut node = graph.made_by(value)?;
    while node.has(Property::NonLinear)
        || node.operator.backprop.is_arithmetic() && image_inputs(graph, node).len() == 1
    {
        value = *image_inputs(graph, node).first()?;
        node = graph.made_by(value)?;
    }
    let (channels, ..) = graph.activation(value)?;
    (node.is_conv2d() && channels == classes).then(|| node.inputs[0])
}

/// The inputs of an operator of the head that carry features, not weights of features.
fn value_inputs(graph: &Graph, node: &Node) -> Vec<ValueId> {
    let mut inputs = image_inputs(graph, node);
    let backprop = node.operator.backprop;
    match node.kind() {
        Kind::Size | Kind::Count => return Vec::new(),
        // Of queries, keys and values the values; an encoder layer has one input.
        Kind::Attention => {
            let values = node.inputs.get(2).filter(|value| inputs.contains(value));
            return values.or(inputs.first()).copied().into_iter().collect();
        }
        Kind::Conv2d
        | Kind::Convolution
        | Kind::Linear
        | Kind::Layout
        | Kind::Reshape
        | Kind::Power => {
            inputs.truncate(1);
        }
        // The factors of einsum lie in a list.
        Kind::MatrixProduct if inputs.len() == 1 => {
            let list = graph
                .made_by(inputs[0])
                .filter(|list| list.kind() == Kind::Container);
            inputs = list.map_or(inputs, |list| image_inputs(graph, list));
        }
        _ if node.short_name() == "div" => inputs.truncate(1),
        _ => {}
    }
    if backprop.is_arithmetic() || node.kind() == Kind::MatrixProduct {
        let is_weight = |input| {
            let mut others = inputs.iter().filter(|&&other| other != input);
            is_weight(graph, input) || others.any(|&other| is_attention_to(graph, input, other))
        };
        let values = inputs.iter().copied().filter(|&input| !is_weight(input));
        let values: Vec<ValueId> = values.collect();
        if !values.is_empty() {
            return values;
        }
    }
    inputs
}

/// Whether a convolution makes a factor of the features in the other factor: attention maps.
fn is_attention_to(graph: &Graph, factor: ValueId, other: ValueId) -> bool {
    let before_layout = |mut value: ValueId| {
        while graph.activation(value).is_none()
            && let Some(node) = graph.made_by(value)
            && node.operator.backprop == Backprop::Move
            && let Some(&input) = node.inputs.first()
        {
            value = input;
        }
        before_description(graph, value, false)
    };
    let (factor, other) = (before_layout(factor), before_layout(other));
    let are_activations = [factor, other]
        .iter()
        .all(|&value| graph.activation(value).is_some());
    are_activations && factor != other && graph.descendants(other).contains(&factor)
}

fn image_inputs(graph: &Graph, node: &Node) -> Vec<ValueId> {
    let inputs = node.inputs.iter().copied();
    inputs
        .filter(|&input| graph.depends_on_images(input))
        .collect()
}

/// Whether a factor weighs the pixels of the other factor.
fn weighs_space(graph: &Graph, value: ValueId) -> bool {
    graph.is_plane(value)
        || graph.activation(value).is_some()
            && is_made_by(graph, value, &|node| node.kind() == Kind::Softmax)
}

/// Whether a value is a power or exponential of another one (soft pooling).
fn is_power_of(graph: &Graph, value: ValueId, of: ValueId) -> bool {
    let power = graph
        .made_by(value)
        .is_some_and(|node| node.kind() == Kind::Power);
    power
        && value != of
        && before_description(graph, value, false) == before_description(graph, of, false)
}

/// Whether a value is a mean or maximum over space of another one.
fn is_of_space(graph: &Graph, value: ValueId, of: ValueId) -> bool {
    let reduction = graph
        .made_by(value)
        .filter(|node| node.kind() == Kind::Reduction);
    reduction.is_some_and(|node| node.inputs.first() == Some(&of)) && !graph.has_pixels(value)
}

/// Whether a factor is a weight: an attention map, or what a sigmoid or softmax made.
fn is_weight(graph: &Graph, value: ValueId) -> bool {
    graph.is_plane(value) || is_made_by(graph, value, &|node| node.has(Property::Gate))
}

/// Whether such an operator made a value, apart from its layout and scale.
fn is_made_by(graph: &Graph, mut value: ValueId, is: &dyn Fn(&Node) -> bool) -> bool {
    while let Some(node) = graph.made_by(value) {
        let inputs = image_inputs(graph, node);
        let is_scaled = node.operator.backprop.is_arithmetic();
        let keeps = node.has(Property::KeepsAttention)
            || node.operator.backprop == Backprop::Move
            || node.kind() == Kind::Reduction
            || is_scaled && inputs.len() == 1
            // Weights that sum to one.
            || node.operator.backprop == Backprop::Offset && inputs.len() == 2;
        match inputs.first() {
            _ if is(node) => return true,
            Some(&input) if keeps => value = input,
            _ => return false,
        }
    }
    false
}

/// Whether a value is the length of vectors, apart from its layout and a lower bound.
fn is_length(graph: &Graph, value: ValueId) -> bool {
    let mut value = value;
    while let Some(node) = graph.made_by(value) {
        let bounds = node.kind() == Kind::Bound;
        if node.kind() == Kind::Norm {
            return true;
        }
        let adds = node.operator.backprop.is_arithmetic() && image_inputs(graph, node).len() == 1;
        match node.inputs.first() {
            Some(&input) if bounds || adds || node.operator.backprop == Backprop::Move => {
                value = input
            }
            _ => return false,
        }
    }
    false
}

/// Attention: features are averaged with weights that a softmax made from features.
fn is_attention(graph: &Graph, node: &Node) -> bool {
    let softmaxed = |value| is_made_by(graph, value, &|node| node.kind() == Kind::Softmax);
    node.is_attention()
        || node.kind() == Kind::MatrixProduct
            && image_inputs(graph, node).len() == 2
            && image_inputs(graph, node).into_iter().any(softmaxed)
}

/// Whether a matrix product has no weights of its own: it averages features.
fn is_pooling(graph: &Graph, node: &Node) -> bool {
    node.kind() == Kind::MatrixProduct && image_inputs(graph, node).len() == 2
}

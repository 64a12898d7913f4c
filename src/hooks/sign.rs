//! Whether a value can be negative.

use super::graph::{Graph, ValueId};
use super::operators::{Backprop, Kind, Property};

/// Whether the operators that made a value leave room for negative numbers. What is not known can
/// be negative.
pub fn can_be_negative(graph: &Graph, value: ValueId) -> bool {
    let Some(node) = graph.made_by(value) else {
        return true;
    };
    let at_least_zero = |name| node.scalar(name).is_some_and(|bound| bound >= 0.0);
    let first = || {
        node.inputs
            .first()
            .is_none_or(|&input| can_be_negative(graph, input))
    };
    let any = || {
        let inputs = node.inputs.iter().copied();
        let mut inputs = inputs
            .filter(|&input| graph.depends_on_images(input))
            .peekable();
        inputs.peek().is_none() || inputs.any(|input| can_be_negative(graph, input))
    };
    match node.short_name() {
        "relu" | "relu6" | "sigmoid" | "hardsigmoid" | "softplus" | "softmax" | "exp" | "abs"
        | "square" | "sqrt" => false,
        "hardtanh" => !at_least_zero("min_val"),
        "clamp" | "clamp_min" => !at_least_zero("min"),
        "threshold" => !(at_least_zero("threshold") && at_least_zero("value")),
        _ => match node.kind() {
            Kind::MaxPool2d | Kind::AvgPool2d | Kind::AdaptivePool | Kind::Pool => first(),
            Kind::Concat | Kind::Container | Kind::Upsample => any(),
            Kind::Dropout => first(),
            // Of activations alone: a constant may be negative.
            Kind::Elementwise
                if matches!(node.operator.backprop, Backprop::Sum | Backprop::Product)
                    && node
                        .inputs
                        .iter()
                        .take(2)
                        .all(|&input| graph.depends_on_images(input)) =>
            {
                any()
            }
            _ if node.operator.backprop == Backprop::Move || node.has(Property::KeepsFeatures) => {
                first()
            }
            _ => true,
        },
    }
}

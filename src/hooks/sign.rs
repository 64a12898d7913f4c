//! Which values can be negative.

use super::graph::{Graph, Node, ValueId};
use super::operators::{Backprop, Kind, Property};

/// For each value whether the operators that made it leave room for negative numbers. What is not
/// known can be negative.
pub fn can_be_negative(graph: &Graph) -> Vec<bool> {
    let mut negative = vec![true; graph.count()];
    for node in &graph.nodes {
        let made = makes_negative(graph, node, &negative);
        for &output in &node.outputs {
            negative[output] = made;
        }
    }
    negative
}

fn makes_negative(graph: &Graph, node: &Node, negative: &[bool]) -> bool {
    let at_least_zero = |name| node.scalar(name).is_some_and(|bound| bound >= 0.0);
    let first = || node.inputs.first().is_none_or(|&input| negative[input]);
    let is_image = |value: &ValueId| graph.depends_on_images(*value);
    let any = || {
        let mut inputs = node
            .inputs
            .iter()
            .filter(|value| is_image(value))
            .peekable();
        inputs.peek().is_none() || inputs.any(|&input| negative[input])
    };
    match node.kind() {
        _ if node.has(Property::NeverNegative) => false,
        Kind::Bound => {
            let least = at_least_zero("min_val") || at_least_zero("min");
            let replaced = at_least_zero("threshold") && at_least_zero("value");
            !least && !replaced && first()
        }
        // Padding may have any value.
        Kind::Padding => first() || node.scalar("value").is_some_and(|value| value < 0.0),
        Kind::MaxPool2d | Kind::AvgPool2d | Kind::AdaptivePool | Kind::Pool | Kind::Dropout => {
            first()
        }
        Kind::Concat | Kind::Container => any(),
        // Of activations alone: a constant may be negative.
        Kind::Elementwise
            if matches!(node.operator.backprop, Backprop::Sum | Backprop::Product)
                && node.scalar("alpha").is_none_or(|alpha| alpha >= 0.0)
                && node.inputs.iter().take(2).all(is_image) =>
        {
            any()
        }
        _ if node.operator.backprop == Backprop::Move || node.has(Property::KeepsFeatures) => {
            first()
        }
        _ => true,
    }
}

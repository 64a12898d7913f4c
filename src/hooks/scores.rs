//! The class scores as values of a graph: where they are made, and how they end.

use std::collections::HashSet;

use anyhow::{Context, Result};
use tch::Tensor;

use super::graph::{Graph, Node, ValueId};
use super::messages::plain;
use super::operators::{Kind, Property};
use super::outputs::{Chosen, OutputChoice, choose};
use crate::error::{Hint, usage_hinted};
use crate::remarks::Remark;
use crate::scores::{Evidence, ScoreKind, ScoresEnd, ScoresForm};

/// What the user says about the scores of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScoreHook {
    /// The output that has them.
    pub output: Option<OutputChoice>,
    /// What they mean.
    pub kind: Option<ScoreKind>,
    /// How many class names there are.
    pub names: Option<usize>,
}

/// The class scores of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassScores {
    /// The tensors with the scores, and the number of scores of an image in each.
    pub parts: Vec<(ValueId, i64)>,
    /// What the graph says about them.
    pub evidence: Evidence,
    /// The names of the classes, if the network has a named tensor for each.
    pub names: Option<Vec<String>>,
    /// Why these tensors were chosen, if there are others.
    pub remark: Option<Remark>,
}

impl ClassScores {
    /// Finds the class scores among the outputs of a graph.
    ///
    /// # Errors
    /// Returns an error if no output can be class scores, and a usage error if there is no output
    /// as chosen.
    pub fn find(graph: &Graph, hook: &ScoreHook) -> Result<ClassScores> {
        let Chosen { outputs, remark } = choose(graph, hook)?;
        let ends = outputs.iter().map(|output| output.end.1);
        let same = |end| ends.clone().all(|other| other == end);
        // What ends the network is taken off only if it ends all tensors, and if its result is
        // not what is asked for.
        let end = match ends.clone().next() {
            Some(end) if same(end) && hook.kind != Some(ScoreKind::None) => end,
            _ if ends.clone().any(is_squashed) => ScoresEnd::Squashed,
            _ => ScoresEnd::Other,
        };
        let is_taken_off = matches!(end, ScoresEnd::Softmax | ScoresEnd::Sigmoid);
        let parts: Vec<(ValueId, i64)> = outputs
            .iter()
            .map(|output| {
                (
                    if is_taken_off {
                        output.end.0
                    } else {
                        output.value
                    },
                    output.count,
                )
            })
            .collect();
        let form = match parts.as_slice() {
            [(_, 1)] if hook.kind != Some(ScoreKind::None) => ScoresForm::Binary,
            [_] => ScoresForm::Classes,
            _ => ScoresForm::Heads,
        };
        if form == ScoresForm::Binary && hook.kind == Some(ScoreKind::Softmax) {
            let text = "the network has one score, and the softmax of one score is always 1";
            return Err(usage_hinted(text, Hint::Scores));
        }
        let names: Vec<String> = outputs.iter().map(|output| output.name.clone()).collect();
        let is_named = names
            .iter()
            .all(|name| !name.is_empty() && !name.contains('.'));
        Ok(ClassScores {
            names: (form == ScoresForm::Heads && is_named).then_some(names),
            parts,
            evidence: Evidence {
                end,
                form,
                given: hook.kind,
            },
            remark,
        })
    }

    /// The tensors with the scores.
    pub fn values(&self) -> impl Iterator<Item = ValueId> {
        self.parts.iter().map(|&(value, _)| value)
    }

    /// The one that is computed last.
    pub fn last(&self, graph: &Graph) -> ValueId {
        let last = self.values().max_by_key(|&value| graph.maker(value));
        last.unwrap_or(graph.input)
    }

    /// The number of classes.
    pub fn classes(&self) -> i64 {
        match self.evidence.form {
            ScoresForm::Binary => 2,
            _ => self.parts.iter().map(|&(_, count)| count).sum(),
        }
    }

    /// The scores `[N,K]` of `images` images from the tensors with them.
    ///
    /// # Errors
    /// Returns an error if a tensor has not as many values.
    pub fn assemble(&self, tensors: &[Tensor], images: i64) -> Result<Tensor> {
        let columns: Result<Vec<Tensor>> = self
            .parts
            .iter()
            .zip(tensors)
            .map(|(&(_, count), tensor)| {
                let shape = || format!("for {images} images it returned {:?}", tensor.size());
                tensor
                    .f_reshape([images, count])
                    .map_err(plain)
                    .with_context(shape)
            })
            .collect();
        let columns = columns?;
        let scores = match columns.as_slice() {
            [only] => only.shallow_clone(),
            several => Tensor::f_cat(several, 1).map_err(plain)?,
        };
        if self.evidence.form != ScoresForm::Binary {
            return Ok(scores);
        }
        let opposite = -&scores;
        let opposite = match self.evidence.is_probability() {
            true => opposite + 1.0,
            false => opposite,
        };
        Tensor::f_cat(&[opposite, scores], 1).map_err(plain)
    }
}

fn is_squashed(end: ScoresEnd) -> bool {
    matches!(
        end,
        ScoresEnd::Softmax | ScoresEnd::Sigmoid | ScoresEnd::Squashed
    )
}

/// How many class scores of one image a tensor can hold: `[N,K]`, also with further axes of size
/// 1, or without the axis of the images.
pub fn score_count(graph: &Graph, value: ValueId) -> Option<i64> {
    let sizes = per_image(graph, value).filter(|sizes| sizes.len() <= 4)?;
    let wide = sizes.iter().filter(|&&size| size != 1).count();
    let count: i64 = sizes.iter().product();
    (wide <= 1 && count > 0).then_some(count)
}

/// The sizes of a value for one image: the first axis, if it is that of the images, is 1.
pub fn per_image(graph: &Graph, value: ValueId) -> Option<Vec<i64>> {
    let mut sizes = graph.sizes(value)?.to_vec();
    if let Some(first) = sizes.first_mut().filter(|first| **first == graph.images()) {
        *first = 1;
    }
    Some(sizes)
}

/// How a value that can hold class scores ends: what enters its last softmax or sigmoid, or the
/// value itself.
pub fn end_of(graph: &Graph, value: ValueId) -> (ValueId, ScoresEnd) {
    let last = before_layout(graph, value);
    let Some(node) = graph.made_by(last) else {
        return (value, ScoresEnd::Other);
    };
    let before = node.inputs.first().copied().unwrap_or(last);
    match node.kind() {
        Kind::Softmax | Kind::LogSoftmax if is_over_classes(graph, node) => {
            return (before, ScoresEnd::Softmax);
        }
        _ if matches!(node.short_name(), "sigmoid" | "log_sigmoid") => {
            return (before, ScoresEnd::Sigmoid);
        }
        _ => {}
    }
    if !is_layer(graph, node) {
        return match is_bounded(graph, last) {
            true => (value, ScoresEnd::Squashed),
            false => (value, ScoresEnd::Other),
        };
    }
    // A layer that reads class shares gives shares of groups of classes.
    let before = before_layout(graph, layer_input(graph, node).unwrap_or(last));
    match graph.made_by(before).is_some_and(is_squash) {
        true => (value, ScoresEnd::Squashed),
        false => (value, ScoresEnd::Layer),
    }
}

/// Whether an operator makes numbers that can be probabilities, or a part of the formula of one
/// (`exp`).
fn is_squash(node: &Node) -> bool {
    node.has(Property::Gate) || matches!(node.short_name(), "exp" | "erf")
}

/// Whether all numbers that a value is computed from, back to the last layers with weights, have
/// been through a sigmoid or softmax. Attention over space weights logits by such numbers, but
/// the logits themselves have not.
fn is_bounded(graph: &Graph, value: ValueId) -> bool {
    let mut seen = HashSet::new();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        if !seen.insert(value) || !graph.depends_on_images(value) {
            continue;
        }
        match graph.made_by(value) {
            Some(node) if is_squash(node) => {}
            Some(node) if !is_layer(graph, node) && node.kind() != Kind::Size => {
                open.extend(&node.inputs);
            }
            _ => return false,
        }
    }
    true
}

/// Whether a softmax is over the axis of the classes.
fn is_over_classes(graph: &Graph, node: &Node) -> bool {
    let axis = node.argument("dim").and_then(|dim| dim.first().copied());
    let sizes = node
        .inputs
        .first()
        .and_then(|&input| per_image(graph, input));
    let (Some(axis), Some(sizes)) = (axis, sizes) else {
        return false;
    };
    let rank = sizes.len() as i64;
    let axis = if axis < 0 { axis + rank } else { axis };
    let count: i64 = sizes.iter().product();
    let classes = sizes.get(axis as usize);
    classes.is_some_and(|&classes| classes > 1 && classes == count)
}

/// Goes back over operators that give the same values in the same order.
pub fn before_layout(graph: &Graph, mut value: ValueId) -> ValueId {
    let count = |value| {
        graph
            .sizes(value)
            .map(|sizes| sizes.iter().product::<i64>())
    };
    while let Some(node) = graph.made_by(value)
        && node.has(Property::SameValues)
        && let Some(&input) = node.inputs.first()
        && count(input).is_some()
        && count(input) == count(value)
    {
        value = input;
    }
    value
}

/// Whether an operator is a layer with weights: one of the tensors that it multiplies depends on
/// the image.
pub fn is_layer(graph: &Graph, node: &Node) -> bool {
    node.has(Property::Weights) && layer_input(graph, node).is_some()
}

/// The only tensor that a layer reads and that depends on the image.
pub fn layer_input(graph: &Graph, node: &Node) -> Option<ValueId> {
    let mut found = node.inputs.iter().copied().filter(|&input| {
        graph.sizes(input).is_some_and(|sizes| !sizes.is_empty()) && graph.depends_on_images(input)
    });
    let first = found.next();
    first.filter(|_| found.next().is_none())
}

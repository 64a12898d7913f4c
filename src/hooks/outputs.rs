//! Which of the tensors that a network returns are its class scores.

use std::collections::HashSet;

use anyhow::{Result, bail};

use super::graph::{Graph, Node, ValueId};
use super::operators::{Kind, Property};
use super::scores::{
    ScoreHook, before_layout, end_of, is_layer, layer_input, per_image, score_count,
};
use crate::error::{Hint, usage, usage_hinted};
use crate::names::first_few;
use crate::remarks::Remark;
use crate::scores::ScoresEnd;

/// An output as the user names it: by its name, or by its number, counted from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputChoice(pub String);

/// The most outputs that a message lists.
const MOST_LISTED: usize = 6;

/// The most letters of an output's name in a message.
const LONGEST_NAME: usize = 20;

/// Beginnings of words in the names of class scores.
const SCORE_WORDS: [&str; 9] = [
    "logit", "prob", "score", "pred", "class", "cls", "label", "main", "out",
];

/// Beginnings of words in the names of other outputs; they count more.
const OTHER_WORDS: [&str; 15] = [
    "aux", "emb", "feat", "hidden", "pool", "proj", "loss", "box", "bbox", "regress", "att",
    "mask", "latent", "repr", "code",
];

/// An output that can be class scores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its number among all outputs.
    pub index: usize,
    /// Its name, if it has one.
    pub name: String,
    /// The tensor with the scores.
    pub value: ValueId,
    /// Scores of an image.
    pub count: i64,
    /// How it ends (see [`end_of`]).
    pub end: (ValueId, ScoresEnd),
    /// What enters its last softmax or sigmoid, or itself, before it got its shape.
    root: ValueId,
    /// Whether the network returns only the best scores, their ranks or decisions by them.
    is_ranked: bool,
}

/// The outputs that are the class scores; several if each class has a tensor of its own.
pub struct Chosen {
    /// In order.
    pub outputs: Vec<Candidate>,
    /// Why these, if there are others.
    pub remark: Option<Remark>,
}

/// Chooses the class scores among all outputs of a graph.
///
/// # Errors
/// Returns an error if no output can be class scores, and a usage error if there is no output
/// as chosen.
pub fn choose(graph: &Graph, hook: &ScoreHook) -> Result<Chosen> {
    let found: Vec<Candidate> = (0..graph.outputs.len())
        .filter_map(|index| candidate(graph, index))
        .collect();
    if let Some(choice) = &hook.output {
        let index = index_of(graph, choice)?;
        let chosen = found.iter().find(|output| output.index == index);
        let Some(chosen) = chosen else {
            let message = format!(
                "output {} is not class scores [N,K]{}; the network returns {}",
                choice.0,
                why_not(graph, graph.outputs[index])
                    .map_or(String::new(), |why| format!(": it {why}")),
                listed(graph, &all(graph))
            );
            return Err(usage_hinted(message, Hint::Output));
        };
        return Ok(Chosen {
            remark: chosen.is_ranked.then(|| ranked(chosen)),
            outputs: vec![chosen.clone()],
        });
    }
    let found = distinct(found);
    match found.as_slice() {
        [] => bail!(nothing(graph)),
        [only] => Ok(Chosen {
            remark: only.is_ranked.then(|| ranked(only)),
            outputs: vec![only.clone()],
        }),
        several => {
            let left = most_like_scores(graph, several, hook.names);
            if left.outputs.len() > 1 && left.outputs.iter().all(|output| output.count == 1) {
                return Ok(Chosen {
                    remark: Some(joined(graph, &left.outputs, &found, hook)),
                    outputs: left.outputs.into_iter().cloned().collect(),
                });
            }
            let (chosen, reason, is_known) = left.last(graph);
            let all: Vec<usize> = found.iter().map(|output| output.index).collect();
            let text = format!(
                "output {} has the class scores (of {}): {reason}",
                titled(chosen),
                listed(graph, &all)
            );
            let remark = if is_known {
                Remark::note(text)
            } else {
                Remark::warning(text)
            };
            Ok(Chosen {
                remark: Some(remark.with_hint(Hint::Output)),
                outputs: vec![chosen.clone()],
            })
        }
    }
}

fn all(graph: &Graph) -> Vec<usize> {
    (0..graph.outputs.len()).collect()
}

/// The number of an output that the user chose.
fn index_of(graph: &Graph, choice: &OutputChoice) -> Result<usize> {
    let by_name = graph.output_names.iter().position(|name| *name == choice.0);
    let number = choice.0.parse().ok();
    let by_number = number.filter(|&number: &usize| number < graph.outputs.len());
    by_name.or(by_number).ok_or_else(|| {
        let message = format!(
            "there is no output {}; the network returns {}",
            choice.0,
            listed(graph, &all(graph))
        );
        usage(message)
    })
}

/// An output if it can be class scores.
fn candidate(graph: &Graph, index: usize) -> Option<Candidate> {
    let returned = graph.outputs[index];
    let value = before_ranking(graph, returned);
    let count = score_count(graph, value)?;
    let is_number = !is_whole(graph, value) && graph.depends_on_images(value);
    let end = end_of(graph, value);
    is_number.then(|| Candidate {
        index,
        name: graph.output_names.get(index).cloned().unwrap_or_default(),
        value,
        count,
        end,
        root: before_layout(graph, end.0),
        is_ranked: value != returned,
    })
}

/// Of outputs that hold the same scores (logits and their softmax, ranks and scores) the one
/// whose end is known best.
fn distinct(found: Vec<Candidate>) -> Vec<Candidate> {
    let is_known =
        |output: &Candidate| matches!(output.end.1, ScoresEnd::Softmax | ScoresEnd::Sigmoid);
    let mut kept: Vec<Candidate> = Vec::new();
    for output in found {
        match kept.iter_mut().find(|other| other.root == output.root) {
            Some(other) if is_known(&output) && !is_known(other) => *other = output,
            Some(_) => {}
            None => kept.push(output),
        }
    }
    kept
}

/// The scores before the network sorts them, takes the best, numbers the best, or compares them
/// with a threshold. A value that is not so made stays as it is.
fn before_ranking(graph: &Graph, value: ValueId) -> ValueId {
    let mut scores = value;
    loop {
        let last = before_layout(graph, scores);
        // Better scores exceed a threshold; other comparisons say less of them.
        let exceeds = |node: &Node| matches!(node.short_name(), "gt" | "ge");
        let node = graph.made_by(last);
        let Some(node) = node.filter(|node| node.has(Property::Ranks) || exceeds(node)) else {
            return scores;
        };
        let is_compared = exceeds(node);
        match node.inputs.first() {
            Some(&input) if is_compared => {
                let mut thresholds = node.inputs[1..].iter();
                let count = score_count(graph, input);
                if count.is_none()
                    || count != score_count(graph, last)
                    || thresholds.any(|&threshold| graph.depends_on_images(threshold))
                {
                    return scores;
                }
                scores = input;
            }
            // The larger of two tensors (`max`) has as many values as they.
            Some(&input)
                if score_count(graph, input).is_some_and(|count| count > 1)
                    && (!node.short_name().ends_with("max")
                        || score_count(graph, input) > score_count(graph, last)) =>
            {
                scores = input;
            }
            _ => return scores,
        }
    }
}

/// Whether a value holds whole numbers or flags, which are no scores.
fn is_whole(graph: &Graph, mut value: ValueId) -> bool {
    const FLOATING: [i64; 4] = [5, 6, 7, 15]; // half, float, double, bfloat16
    while let Some(node) = graph.made_by(value) {
        match node.kind() {
            Kind::Comparison => return true,
            // The places of the values beside them, or alone.
            Kind::Ranking | Kind::Reduction => {
                return node.short_name().starts_with("arg") || node.outputs.get(1) == Some(&value);
            }
            _ if let Some([kind]) = node.argument("dtype") => return !FLOATING.contains(kind),
            _ if before_layout(graph, value) == value => return false,
            _ => {}
        }
        match node.inputs.first() {
            Some(&input) => value = input,
            None => return false,
        }
    }
    false
}

/// The outputs that look most like class scores.
struct Likely<'a> {
    outputs: Vec<&'a Candidate>,
    /// What tells them from the others.
    reason: &'static str,
}

impl<'a> Likely<'a> {
    /// The one behind most layers, of equals the last, why it is chosen, and whether anything but
    /// the order tells it from the others.
    fn last(&self, graph: &Graph) -> (&'a Candidate, String, bool) {
        let mut order: Vec<((usize, Option<usize>), &Candidate)> = self
            .outputs
            .iter()
            .map(|output| {
                (
                    (depth(graph, output.root), graph.maker(output.root)),
                    *output,
                )
            })
            .collect();
        order.sort_by_key(|&(place, _)| place);
        let (last, count) = (order[order.len() - 1], order.len());
        let is_deepest = order[..count - 1]
            .iter()
            .all(|before| before.0.0 < last.0.0);
        let is_exit = order.iter().all(|other| other.1.count == last.1.count);
        let reason = match (count, is_exit, is_deepest) {
            (1, ..) => self.reason.to_string(),
            (_, true, true) => format!("it is the deepest of {count} with as many values"),
            (_, true, false) => format!("it is computed last of {count} with as many values"),
            (_, false, true) => "it is the deepest, and nothing else tells them apart".to_string(),
            _ => "it is computed last, and nothing else tells them apart".to_string(),
        };
        (last.1, reason, count == 1 || is_exit)
    }
}

/// The number of layers with weights before a value.
fn depth(graph: &Graph, value: ValueId) -> usize {
    let before = graph.ancestors(value).into_iter();
    let nodes = before.map(|node| &graph.nodes[node]);
    nodes.filter(|node| node.has(Property::Weights)).count()
}

/// The outputs that look most like class scores, by one test after the other.
fn most_like_scores<'a>(
    graph: &Graph,
    several: &'a [Candidate],
    names: Option<usize>,
) -> Likely<'a> {
    type Test<'t> = &'t dyn Fn(&Candidate) -> bool;
    let is_read_by = |output: &Candidate| {
        let after = graph.descendants(output.root);
        let mut others = several.iter().filter(|other| other.root != output.root);
        others.any(|other| after.contains(&other.root))
    };
    let singles = several.iter().filter(|output| output.count == 1).count();
    let is_wide: Test = &|output| output.count > 1;
    const WIDE: &str = "it has more than one score";
    let tests: [(&str, Test); 11] = [
        (
            "it has as many values as there are class names",
            &|output| match output.count {
                1 if singles == 1 => matches!(names, Some(1 | 2)),
                1 => names == Some(singles), // a class each
                count => names == Some(count as usize),
            },
        ),
        (
            "the other names are those of features or auxiliary outputs",
            &|output| !has_word(&output.name, &OTHER_WORDS),
        ),
        ("its name is that of class scores", &|output| {
            has_word(&output.name, &SCORE_WORDS)
        }),
        ("the others are pooled or normalised features", &|output| {
            !is_feature(graph, output.root)
        }),
        // One score beside others is their uncertainty or the like, several are classes.
        (WIDE, &|output| singles > 1 || is_wide(output)),
        ("it is computed from the others", &|output| {
            !is_read_by(output)
        }),
        ("it ends in a softmax or sigmoid", &|output| {
            !matches!(output.end.1, ScoresEnd::Layer | ScoresEnd::Other)
        }),
        ("a layer with weights makes it", &|output| {
            output.end.1 != ScoresEnd::Other
        }),
        (
            "the others have as many values as their layers read, as embeddings have",
            &|output| !keeps_its_width(graph, output),
        ),
        (
            "the others have a number of values that is usual for embeddings",
            &|output| !is_usual_width(output.count),
        ),
        (WIDE, is_wide),
    ];
    let mut left: Vec<&Candidate> = several.iter().collect();
    let mut reason = "";
    for (why, test) in tests {
        if left.iter().all(|output| output.count == 1) {
            break; // a class each
        }
        let passed: Vec<&Candidate> = left.iter().copied().filter(|output| test(output)).collect();
        if !passed.is_empty() && passed.len() < left.len() {
            left = passed;
            reason = why;
        }
    }
    let outputs = left;
    Likely { outputs, reason }
}

/// Whether a word of a name begins with one of `beginnings`.
fn has_word(name: &str, beginnings: &[&str]) -> bool {
    let name = name.to_lowercase();
    let mut words = name.split(|c: char| !c.is_alphabetic());
    words.any(|word| {
        beginnings
            .iter()
            .any(|beginning| word.starts_with(beginning))
    })
}

/// Whether a value is an activation that was pooled, or the values of a layer after a
/// normalisation or a non-linearity: features rather than scores.
fn is_feature(graph: &Graph, value: ValueId) -> bool {
    let Some(node) = graph.made_by(value) else {
        return false;
    };
    let pools = matches!(
        node.kind(),
        Kind::Reduction | Kind::AdaptivePool | Kind::AvgPool2d | Kind::MaxPool2d | Kind::Pool
    );
    let of_pixels = node
        .inputs
        .first()
        .is_some_and(|&input| graph.activation(input).is_some());
    let is_activated = node.has(Property::NonLinear) && !node.has(Property::Gate);
    pools && of_pixels || is_activated || follows_norm(graph, value)
}

/// Whether an operator normalises, or gives the norm that is divided by.
fn is_norm(node: &Node) -> bool {
    node.kind() == Kind::BatchNorm || node.short_name().contains("norm")
}

/// Whether a normalisation lies between the last layers with weights and a value.
fn follows_norm(graph: &Graph, value: ValueId) -> bool {
    let mut seen = HashSet::new();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        let Some(node) = graph.made_by(value).filter(|_| seen.insert(value)) else {
            continue;
        };
        if is_norm(node) {
            return true;
        }
        if !is_layer(graph, node) {
            open.extend(&node.inputs);
        }
    }
    false
}

/// Whether the layer that makes an output has as many values as it reads.
fn keeps_its_width(graph: &Graph, output: &Candidate) -> bool {
    let node = graph
        .made_by(output.root)
        .filter(|node| is_layer(graph, node));
    let read = node.and_then(|node| layer_input(graph, node));
    let sizes = read.and_then(|value| per_image(graph, value));
    sizes.is_some_and(|sizes| sizes.iter().product::<i64>() == output.count)
}

/// Whether embeddings usually have this many values: a power of two or a multiple of 64.
fn is_usual_width(count: i64) -> bool {
    count >= 32 && (count % 64 == 0 || count.count_ones() == 1)
}

// Messages.

fn ranked(output: &Candidate) -> Remark {
    Remark::note(format!(
        "the network returns only its best scores, their ranks or decisions; the {} scores that they are chosen from are read",
        output.count
    ))
}

fn joined(graph: &Graph, heads: &[&Candidate], found: &[Candidate], hook: &ScoreHook) -> Remark {
    let own = match hook.kind {
        None => ", each with a probability of its own",
        Some(_) => "",
    };
    let count = heads.len();
    let others: Vec<usize> = found
        .iter()
        .map(|output| output.index)
        .filter(|&index| heads.iter().all(|head| head.index != index))
        .collect();
    let others = match others.is_empty() {
        true => String::new(),
        false => format!("; left out: {}", listed(graph, &others)),
    };
    let text = format!(
        "the network returns {count} scores one by one: they are taken for {count} classes{own}{others}"
    );
    Remark::note(text).with_hint(Hint::Output)
}

fn titled(output: &Candidate) -> String {
    match output.name.as_str() {
        "" => output.index.to_string(),
        name => format!("{} '{}'", output.index, short(name)),
    }
}

/// The beginning of a name, for messages.
fn short(name: &str) -> String {
    match name.chars().count() > LONGEST_NAME {
        true => name.chars().take(LONGEST_NAME).chain(['…']).collect(),
        false => name.to_string(),
    }
}

/// The outputs with these numbers: `0 [N,48], 1 'logits' [N,5]`.
fn listed(graph: &Graph, outputs: &[usize]) -> String {
    let about = |&index: &usize| {
        let name = match graph.output_names.get(index).map_or("", String::as_str) {
            "" => String::new(),
            name => format!(" '{}'", short(name)),
        };
        format!("{index}{name} {}", shape(graph, graph.outputs[index]))
    };
    let outputs: Vec<String> = outputs.iter().map(about).collect();
    first_few(&outputs, MOST_LISTED)
}

/// The shape of an output for any number of images: `[N,5]`.
fn shape(graph: &Graph, value: ValueId) -> String {
    let Some(sizes) = per_image(graph, value) else {
        return "(no tensor)".to_string();
    };
    let axis = |(axis, size): (usize, &i64)| match (axis, size) {
        (0, 1) => "N".to_string(),
        (_, size) => size.to_string(),
    };
    let axes: Vec<String> = sizes.iter().enumerate().map(axis).collect();
    format!("[{}]", axes.join(","))
}

/// Why a tensor with the shape of class scores is none.
fn why_not(graph: &Graph, value: ValueId) -> Option<String> {
    score_count(graph, value)?;
    if is_whole(graph, value) {
        return Some("holds whole numbers or flags, not scores".to_string());
    }
    if graph.depends_on_images(value) {
        return None;
    }
    let hides = graph.nodes.iter().any(Node::is_block);
    let hidden = match hides {
        true => " (what a loop or branch computes is not seen; export without them, or by tracing)",
        false => "",
    };
    Some(format!(
        "does not depend on the images as far as the graph shows{hidden}"
    ))
}

fn nothing(graph: &Graph) -> String {
    let problem = match graph.outputs.as_slice() {
        [] => "its output holds no tensor".to_string(),
        [only] => match why_not(graph, *only) {
            Some(why) => format!("its output {} {why}", shape(graph, *only)),
            None => format!("its output has the shape {}", shape(graph, *only)),
        },
        several => {
            let several: Vec<usize> = (0..several.len()).collect();
            format!("its outputs are {}", listed(graph, &several))
        }
    };
    format!("{problem}; prism explains classifiers, which return class scores [N,K]")
}

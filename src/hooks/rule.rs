//! Which tensors PRISM reads: the *final excitation*, whose channels the PCA
//! runs over, and the *guides*, which carry its colours back to finer pixels.
//!
//! Two rules pick them. `torchprism` is the rule of Szandała's TorchPRISM 2.0;
//! `auto` keeps it where it is meant for (VGG) and elsewhere takes the last
//! activation, guided by the activations that enter spatial operators.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use anyhow::{Result, anyhow, bail};

use super::graph::{Graph, Node, ValueId, is_inside};
use crate::error::{Hint, hinted, usage};

/// How the final excitation and the guides are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Rule {
    /// TorchPRISM's for the VGG family; elsewhere the last activation before
    /// global pooling, guided by what enters spatial operators.
    #[default]
    Auto,
    /// TorchPRISM's: every max-pool and every strided convolution.
    Torchprism,
}

impl Rule {
    /// The names that [`Rule::from_str`] knows.
    pub const NAMES: [&'static str; 2] = ["auto", "torchprism"];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Auto => "auto",
            Rule::Torchprism => "torchprism",
        })
    }
}

impl FromStr for Rule {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Rule> {
        match name {
            "auto" => Ok(Rule::Auto),
            "torchprism" => Ok(Rule::Torchprism),
            _ => Err(usage(format!(
                "there is no rule '{name}'; there are {}",
                Rule::NAMES.join(", ")
            ))),
        }
    }
}

/// How guides bring features up to the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extrapolation {
    /// Gradual extrapolation (Szandała, IEEE Access 2021): multiplied with each
    /// guide's channel mean, up to the shallowest guide's resolution.
    Product,
    /// Each image's colours fitted by what its guides tell, up to the size of
    /// the image (height, width).
    Regression {
        /// Height and width of the image.
        size: (i64, i64),
    },
}

/// The tensors of a network that PRISM reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// `[N,C,h,w]`, the input of the PCA.
    pub excitation: ValueId,
    /// In execution order, the shallowest first.
    pub guides: Vec<ValueId>,
    /// What is done with the guides.
    pub extrapolation: Extrapolation,
}

/// Guides of one resolution: the last ones say most, and more than three no
/// better (docs/quality.md).
const PER_RESOLUTION: usize = 3;

impl Rule {
    /// Applies the rule to a graph whose class scores are `logits`; `layer`
    /// names another final excitation.
    ///
    /// # Errors
    /// Where the graph has nothing to hook, or no layer of that name (a usage
    /// error that suggests the nearest).
    pub fn select(self, graph: &Graph, logits: ValueId, layer: Option<&str>) -> Result<Selection> {
        let chosen = layer.map(|name| find_layer(graph, name)).transpose()?;
        if chosen.is_none() {
            refuse_transformers(graph, logits)?;
        }
        let last = last_activation(graph, logits);
        let family_vgg = || {
            last.is_some_and(|last| {
                let mut reductions = reductions(graph, logits, last).peekable();
                reductions.peek().is_some()
                    && reductions.all(|node| graph.nodes[node].is_max_pool2d())
                    && graph
                        .maker(last)
                        .is_some_and(|node| graph.nodes[node].is_max_pool2d())
            })
        };
        if self == Rule::Torchprism || family_vgg() {
            return torchprism(graph, chosen);
        }
        let excitation = chosen.or(last).ok_or_else(nothing_to_hook)?;
        let (_, height, width) = graph.activation(graph.input).ok_or_else(nothing_to_hook)?;
        Ok(Selection {
            excitation,
            guides: entering_spatial_operators(graph, excitation),
            extrapolation: Extrapolation::Regression {
                size: (height, width),
            },
        })
    }
}

/// A network of more attention than convolutions: what little convolution it has
/// only cuts the image into patches.
fn refuse_transformers(graph: &Graph, logits: ValueId) -> Result<()> {
    let ancestors = graph.ancestors(logits);
    let count = |is: &dyn Fn(usize) -> bool| ancestors.iter().filter(|&&node| is(node)).count();
    let attentions =
        count(&|node| graph.nodes[node].is_attention() || weighs_by_softmax(graph, node));
    let convolutions = count(&|node| graph.nodes[node].is_conv2d());
    if attentions > convolutions {
        bail!(
            "this is a vision transformer: it recognises by attention between patches, where PRISM shows the channels of a convolutional network's activations; give a CNN (or a layer of your choice with --layer)"
        );
    }
    Ok(())
}

/// Attention written out: a softmax whose weights multiply something else that is
/// made of the image.
fn weighs_by_softmax(graph: &Graph, node: usize) -> bool {
    if graph.nodes[node].kind() != "softmax" {
        return false;
    }
    let of_image = graph.descendants(graph.input);
    let mut open = graph.nodes[node].outputs.clone();
    while let Some(value) = open.pop() {
        for user in graph.users(value).iter().map(|&user| &graph.nodes[user]) {
            match user.kind() {
                "matmul" | "bmm" | "einsum" => {
                    let made = |input: &&ValueId| of_image.contains(*input);
                    if user.inputs.iter().filter(made).count() > 1 {
                        return true;
                    }
                }
                "dropout" | "to" | "view" | "reshape" | "transpose" | "permute" | "expand" => {
                    open.extend(&user.outputs);
                }
                _ => {}
            }
        }
    }
    false
}

fn nothing_to_hook() -> anyhow::Error {
    hinted(
        "the network has nothing to hook: no convolution makes an activation [N,C,h,w] of more than one pixel on the way to its class scores",
        Hint::LargerImageSize,
    )
}

/// The value that `--layer NAME` means: the operator of that name, else what
/// the module of that name computes last.
///
/// # Errors
/// A usage error with the nearest names.
pub fn find_layer(graph: &Graph, name: &str) -> Result<ValueId> {
    let layers = || {
        graph
            .nodes
            .iter()
            .filter(|node| layer_output(graph, node).is_some())
    };
    let inside = |node: &&Node| !name.is_empty() && is_inside(&node.path, name);
    if let Some(node) = layers()
        .find(|node| node.name == name)
        .or_else(|| layers().rfind(inside))
        && let Some(value) = layer_output(graph, node)
    {
        return Ok(value);
    }
    // Operators that make no tensor have no name.
    if !name.is_empty()
        && let Some(node) = graph.nodes.iter().find(|node| node.name == name)
    {
        let sizes = graph.sizes(node.outputs[0]).unwrap_or_default();
        return Err(usage(format!(
            "layer '{name}' makes a tensor {sizes:?}, not an activation [N,C,h,w] with more than one pixel; `prism layers` lists those"
        )));
    }
    let mut names: Vec<(f64, &str)> = layers()
        .map(|node| (strsim::jaro_winkler(name, &node.name), node.name.as_str()))
        .collect();
    names.sort_by(|a, b| b.0.total_cmp(&a.0));
    let nearest: Vec<&str> = names.iter().take(3).map(|(_, name)| *name).collect();
    Err(usage(match nearest.as_slice() {
        [] => format!("there is no layer '{name}'"),
        nearest => format!(
            "there is no layer '{name}'; the nearest are {} (`prism layers` lists all)",
            nearest.join(", ")
        ),
    }))
}

/// The activation that a node makes, if it makes one.
pub fn layer_output(graph: &Graph, node: &Node) -> Option<ValueId> {
    let value = *node.outputs.first()?;
    graph.activation(value).map(|_| value)
}

/// TorchPRISM's rule: the outputs of every max-pool and strided convolution in
/// execution order, preceded by the first one's input; the last is the final
/// excitation. A strided convolution that a ReLU follows is seen after it:
/// TorchPRISM keeps references, and its networks' ReLUs work in place.
fn torchprism(graph: &Graph, chosen: Option<ValueId>) -> Result<Selection> {
    let mut seen: Vec<ValueId> = Vec::new();
    for node in &graph.nodes {
        let strided = node.is_conv2d() && node.stride() > 1;
        if !(strided || node.is_max_pool2d()) {
            continue;
        }
        let Some(&output) = node.outputs.first() else {
            continue;
        };
        if graph.sizes(output).is_none_or(|sizes| sizes.len() != 4) {
            continue;
        }
        if seen.is_empty() {
            seen.extend(node.inputs.first());
        }
        let relu = graph
            .users(output)
            .iter()
            .map(|&user| &graph.nodes[user])
            .find(|user| strided && user.kind() == "relu");
        seen.push(relu.map_or(output, |relu| relu.outputs[0]));
    }
    let made_at = |value: ValueId| graph.maker(value).map_or(-1, |node| node as i64);
    let excitation = match chosen {
        Some(value) => value,
        None => seen.pop().ok_or_else(|| {
            anyhow!("the network has nothing that TorchPRISM's rule hooks: no 2-d max-pool and no strided convolution; use --hooks auto")
        })?,
    };
    seen.retain(|&value| made_at(value) < made_at(excitation));
    Ok(Selection {
        excitation,
        guides: seen,
        extrapolation: Extrapolation::Product,
    })
}

/// The last activation before global pooling or flatten, after its batch-norm
/// and non-linearity.
fn last_activation(graph: &Graph, logits: ValueId) -> Option<ValueId> {
    let ancestors = graph.ancestors(logits);
    let last = (0..graph.nodes.len())
        .rev()
        .filter(|index| ancestors.contains(index))
        .filter_map(|index| layer_output(graph, &graph.nodes[index]))
        .next()?;
    let value = before_pooling(graph, last)?;
    let value = classifier_convolution(graph, logits, value)
        .and_then(|conv| before_pooling(graph, graph.nodes[conv].inputs[0]))
        .filter(|&input| sees_a_convolution(graph, input))
        .unwrap_or(value);
    // An activation is made by some convolution; pixels alone are not one.
    sees_a_convolution(graph, value).then_some(value)
}

/// Goes back over what leaves the features as they are, or only averages them.
fn before_pooling(graph: &Graph, mut value: ValueId) -> Option<ValueId> {
    while let Some(node) = graph.maker(value) {
        let node = &graph.nodes[node];
        let passes = matches!(
            node.kind(),
            "adaptive_avg_pool2d"
                | "adaptive_max_pool2d"
                | "avg_pool2d"
                | "dropout"
                | "feature_dropout"
                | "contiguous"
                | "clone"
                | "detach"
                | "to"
        ) || node.puts_channels_last();
        if !passes {
            break;
        }
        value = *node.inputs.first()?;
    }
    graph.activation(value).map(|_| value)
}

/// A convolution that makes the class scores itself (SqueezeNet): it has as
/// many channels as there are classes, and only pooling follows it.
fn classifier_convolution(graph: &Graph, logits: ValueId, value: ValueId) -> Option<usize> {
    let classes = *graph.sizes(logits)?.get(1)?;
    let mut node = graph.maker(value)?;
    while graph.nodes[node].is_nonlinearity() {
        node = graph.maker(*graph.nodes[node].inputs.first()?)?;
    }
    let made = *graph.nodes[node].outputs.first()?;
    let is_classifier = graph.nodes[node].is_conv2d()
        && graph
            .activation(made)
            .is_some_and(|(channels, ..)| channels == classes)
        && !graph
            .ancestors(logits)
            .iter()
            .any(|&after| after > node && graph.nodes[after].has_weights());
    is_classifier.then_some(node)
}

fn sees_a_convolution(graph: &Graph, value: ValueId) -> bool {
    graph
        .ancestors(value)
        .iter()
        .any(|&node| graph.nodes[node].is_conv2d())
}

/// The operators that make an activation coarser before `excitation`, in
/// execution order.
fn reductions(graph: &Graph, logits: ValueId, excitation: ValueId) -> impl Iterator<Item = usize> {
    let end = graph.maker(excitation).unwrap_or(0);
    let mut ancestors: Vec<usize> = graph.ancestors(logits).into_iter().collect();
    ancestors.sort_unstable();
    ancestors.into_iter().filter(move |&index| {
        let node = &graph.nodes[index];
        index <= end
            && (node.is_conv2d() || node.is_pooling())
            && node.stride() > 1
            && layer_output(graph, node).is_some()
    })
}

/// The guides of the auto rule: what enters an operator that gathers over space on
/// the way to the excitation, without padding made for it, and is no coarser; of
/// each resolution the last three. Never the image.
fn entering_spatial_operators(graph: &Graph, excitation: ValueId) -> Vec<ValueId> {
    let made_at = |value: ValueId| graph.maker(value);
    let Some((_, least_height, least_width)) = graph.activation(excitation) else {
        return Vec::new();
    };
    let mut by_resolution: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    let on_the_way = graph.ancestors(excitation).into_iter();
    for node in on_the_way.filter(|&node| graph.is_spatial(node)) {
        let value = graph.nodes[node].inputs.first();
        let Some(value) = value.and_then(|&value| without_padding(graph, value)) else {
            continue;
        };
        if let Some((_, h, w)) = graph.activation(value)
            && (h >= least_height && w >= least_width)
            && value != excitation
            && sees_a_convolution(graph, value)
        {
            let level = by_resolution.entry((h, w)).or_default();
            level.insert((made_at(value), value));
        }
    }
    let mut guides: Vec<ValueId> = by_resolution
        .into_values()
        .flat_map(|level| level.into_iter().rev().take(PER_RESOLUTION))
        .map(|(_, value)| value)
        .collect();
    guides.sort_by_key(|&value| made_at(value));
    guides
}

fn without_padding(graph: &Graph, mut value: ValueId) -> Option<ValueId> {
    while let Some(node) = graph.maker(value) {
        let node = &graph.nodes[node];
        if !node.kind().contains("pad") {
            break;
        }
        value = *node.inputs.first()?;
    }
    Some(value)
}

/// The class scores, before a softmax that ends the network.
///
/// # Errors
/// Where a network returns none.
pub(super) fn logits(graph: &Graph) -> Result<ValueId> {
    if let Some(mut logits) = graph.logits() {
        while let Some(node) = graph.maker(logits).map(|node| &graph.nodes[node])
            && matches!(node.kind(), "softmax" | "log_softmax")
            && graph.sizes(node.inputs[0]) == graph.sizes(logits)
        {
            logits = node.inputs[0];
        }
        return Ok(logits);
    }
    let returned: Vec<String> = graph
        .outputs
        .iter()
        .map(|&value| match graph.sizes(value) {
            Some(sizes) => format!("{sizes:?}"),
            None => "no tensor".to_string(),
        })
        .collect();
    match returned.as_slice() {
        [] => bail!(
            "its output holds no tensor; prism explains classifiers, which return class scores [N,K]"
        ),
        shapes => bail!(
            "its output has the shape {}; prism explains classifiers, which return class scores [N,K]",
            shapes.join(", ")
        ),
    }
}

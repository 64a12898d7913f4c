//! Selects the activations that PRISM reads: the *final excitation*, whose channels the PCA
//! analyses, and the *guides* (earlier activations), which sharpen the map.
//!
//! There are two rules. `torchprism` is the rule of Szandała's TorchPRISM 2.0. `auto` applies it
//! to the VGG family, for which it was designed. For other networks it takes the last activation
//! before global pooling, guided by the inputs of spatial operators.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::Result;
use clap::ValueEnum;

use super::graph::{Graph, Node, ValueId};
use super::layers::find_layer;
use super::operators::{Kind, Property};
use crate::error::{Hint, hinted};
use crate::size::Size;

/// How the final excitation and the guides are selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Rule {
    /// TorchPRISM's rule for the VGG family. For other networks the last activation before
    /// global pooling, guided by the inputs of spatial operators.
    #[default]
    Auto,
    /// TorchPRISM's rule: the outputs of all max-pools and strided convolutions.
    Torchprism,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value();
        f.write_str(name.as_ref().map_or("", |name| name.get_name()))
    }
}

/// How guides upsample the features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extrapolation {
    /// Gradual extrapolation (Szandała, IEEE Access 2021): the features are multiplied by each
    /// guide's channel mean, up to the resolution of the shallowest guide.
    Product,
    /// For each image, the colours are regressed on the guides, up to the size of the image.
    Regression {
        /// Height and width of the image.
        size: Size,
    },
}

/// The values of a graph that PRISM reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// `[N,C,h,w]`, the input of the PCA.
    pub excitation: ValueId,
    /// In execution order, the shallowest first.
    pub guides: Vec<ValueId>,
    /// How the guides are used.
    pub extrapolation: Extrapolation,
}

/// Guides per resolution. The last ones carry the most information, and more than three do not
/// improve the map (docs/quality.md).
const GUIDES_PER_RESOLUTION: usize = 3;

impl Rule {
    /// Applies the rule to a graph whose class scores are `logits`. `layer` names another final
    /// excitation.
    ///
    /// # Errors
    /// Returns an error if the graph has nothing to hook, and a usage error with the nearest
    /// names if it has no such layer.
    pub(super) fn select(
        self,
        graph: &Graph,
        logits: ValueId,
        layer: Option<&str>,
    ) -> Result<Selection> {
        let chosen = layer.map(|name| find_layer(graph, name)).transpose()?;
        if chosen.is_none() {
            refuse_transformers(graph, logits)?;
        }
        let last = last_activation(graph, logits);
        let is_vgg = || last.is_some_and(|last| is_vgg(graph, logits, last));
        if self == Rule::Torchprism || is_vgg() {
            return torchprism(graph, chosen);
        }
        let excitation = chosen.or(last).ok_or_else(nothing_to_hook)?;
        let (_, height, width) = graph.activation(graph.input).ok_or_else(nothing_to_hook)?;
        Ok(Selection {
            excitation,
            guides: spatial_inputs(graph, excitation),
            extrapolation: Extrapolation::Regression {
                size: Size::new(height, width),
            },
        })
    }
}

fn nothing_to_hook() -> anyhow::Error {
    hinted(
        "the network has nothing to hook: no convolution makes an activation [N,C,h,w] of more than one pixel on the way to its class scores",
        Hint::LargerImageSize,
    )
}

/// Refuses networks with more attention than convolutions. The few convolutions of a vision
/// transformer only cut the image into patches.
fn refuse_transformers(graph: &Graph, logits: ValueId) -> Result<()> {
    let ancestors = graph.ancestors(logits);
    let count = |is: &dyn Fn(&Node) -> bool| {
        let nodes = ancestors.iter().map(|&node| &graph.nodes[node]);
        nodes.filter(|node| is(node)).count()
    };
    let attentions = count(&|node| node.is_attention() || is_attention_softmax(graph, node));
    if attentions > count(&Node::is_conv2d) {
        return Err(hinted(
            "this is a vision transformer: it recognises by attention between patches, but PRISM shows the channels of a convolutional network's activations; give a CNN",
            Hint::Layer,
        ));
    }
    Ok(())
}

/// Whether it is the softmax of attention in separate operators: a matrix product multiplies its
/// weights by another tensor that depends on the image.
fn is_attention_softmax(graph: &Graph, node: &Node) -> bool {
    if node.kind() != Kind::Softmax {
        return false;
    }
    let from_image = graph.descendants(graph.input);
    let mut open = node.outputs.clone();
    while let Some(value) = open.pop() {
        for user in graph.users(value) {
            if user.kind() == Kind::MatrixProduct {
                let inputs = user.inputs.iter();
                if inputs.filter(|input| from_image.contains(input)).count() > 1 {
                    return true;
                }
            } else if user.has(Property::KeepsAttention) {
                open.extend(&user.outputs);
            }
        }
    }
    false
}

/// Whether only max-pools make activations coarser, and one of them makes the last activation.
fn is_vgg(graph: &Graph, logits: ValueId, last: ValueId) -> bool {
    let end = graph.maker(last).unwrap_or(0);
    let is_max_pool = |node: &Node| node.kind() == Kind::MaxPool2d;
    let ancestors = graph.ancestors(logits);
    let mut reductions = ancestors
        .iter()
        .filter(|&&index| index <= end)
        .map(|&index| &graph.nodes[index])
        .filter(|node| node.has_window() && node.stride() > 1)
        .filter(|node| graph.layer_output(node).is_some())
        .peekable();
    reductions.peek().is_some()
        && reductions.all(is_max_pool)
        && graph.made_by(last).is_some_and(is_max_pool)
}

/// TorchPRISM's rule: the outputs of all max-pools and strided convolutions in execution order,
/// preceded by the input of the first. The last one is the final excitation. A strided
/// convolution that a ReLU follows is read after the ReLU: TorchPRISM keeps references, and the
/// ReLUs of its networks work in place.
fn torchprism(graph: &Graph, chosen: Option<ValueId>) -> Result<Selection> {
    let mut captured: Vec<ValueId> = Vec::new();
    for node in &graph.nodes {
        let strided = node.is_conv2d() && node.stride() > 1;
        let mut outputs = node.outputs.iter().take(1);
        let output = outputs.find(|&&value| graph.sizes(value).is_some_and(|s| s.len() == 4));
        let Some(&output) = output.filter(|_| strided || node.kind() == Kind::MaxPool2d) else {
            continue;
        };
        if captured.is_empty() {
            captured.extend(node.inputs.first());
        }
        let mut users = graph.users(output);
        let relu = users.find(|user| strided && user.kind() == Kind::Relu);
        captured.push(relu.map_or(output, |relu| relu.outputs[0]));
    }
    let nothing = "TorchPRISM's rule has nothing to hook: no 2-d max-pool, no strided convolution";
    let excitation = chosen.or_else(|| captured.pop());
    let excitation = excitation.ok_or_else(|| hinted(nothing, Hint::AutoRule))?;
    captured.retain(|&value| graph.maker(value) < graph.maker(excitation));
    Ok(Selection {
        excitation,
        guides: captured,
        extrapolation: Extrapolation::Product,
    })
}

/// The last activation before global pooling or flatten, after its batch-norm and
/// non-linearity.
fn last_activation(graph: &Graph, logits: ValueId) -> Option<ValueId> {
    let last = graph.ancestors(logits).into_iter().max_by_key(|&index| {
        let output = graph.layer_output(&graph.nodes[index]);
        output.map(|_| index)
    });
    let last = before_pooling(graph, graph.layer_output(&graph.nodes[last?])?)?;
    let value = classifier_convolution(graph, logits, last)
        .and_then(|conv| before_pooling(graph, conv.inputs[0]))
        .filter(|&input| graph.follows_convolution(input))
        .unwrap_or(last);
    // Pixels that no convolution has read are not an activation.
    graph.follows_convolution(value).then_some(value)
}

/// Goes back over operators that leave the features as they are or only average them.
fn before_pooling(graph: &Graph, mut value: ValueId) -> Option<ValueId> {
    while let Some(node) = graph.made_by(value)
        && (node.has(Property::KeepsFeatures) || node.puts_channels_last())
    {
        value = *node.inputs.first()?;
    }
    graph.activation(value).map(|_| value)
}

/// A convolution that itself makes the class scores (SqueezeNet): it has one channel per class,
/// and no layer with weights follows it.
fn classifier_convolution(graph: &Graph, logits: ValueId, value: ValueId) -> Option<&Node> {
    let classes = *graph.sizes(logits)?.get(1)?;
    let mut index = graph.maker(value)?;
    while graph.nodes[index].has(Property::NonLinear) {
        index = graph.maker(*graph.nodes[index].inputs.first()?)?;
    }
    let node = &graph.nodes[index];
    let (channels, ..) = graph.activation(*node.outputs.first()?)?;
    let mut ancestors = graph.ancestors(logits).into_iter();
    let is_classifier = node.is_conv2d()
        && channels == classes
        && !ancestors.any(|after| after > index && graph.nodes[after].has(Property::Weights));
    is_classifier.then_some(node)
}

/// The guides of the auto rule: the inputs, before padding, of the spatial operators on the way
/// to the excitation, unless they are coarser than it; the last three of each resolution. The
/// image is not a guide.
fn spatial_inputs(graph: &Graph, excitation: ValueId) -> Vec<ValueId> {
    let Some((_, least_height, least_width)) = graph.activation(excitation) else {
        return Vec::new();
    };
    let mut by_resolution: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    let ancestors = graph.ancestors(excitation).into_iter();
    for node in ancestors.filter(|&node| graph.is_spatial(node)) {
        let input = graph.nodes[node].inputs.first();
        if let Some(value) = input.and_then(|&value| before_padding(graph, value))
            && let Some((_, h, w)) = graph.activation(value)
            && (h >= least_height && w >= least_width)
            && value != excitation
            && graph.follows_convolution(value)
        {
            let level = by_resolution.entry((h, w)).or_default();
            level.insert((graph.maker(value), value));
        }
    }
    let mut guides: Vec<_> = by_resolution
        .into_values()
        .flat_map(|level| level.into_iter().rev().take(GUIDES_PER_RESOLUTION))
        .collect();
    guides.sort_by_key(|&(maker, _)| maker);
    guides.into_iter().map(|(_, value)| value).collect()
}

fn before_padding(graph: &Graph, mut value: ValueId) -> Option<ValueId> {
    while let Some(node) = graph.made_by(value)
        && node.kind() == Kind::Padding
    {
        value = *node.inputs.first()?;
    }
    Some(value)
}

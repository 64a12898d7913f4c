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
use super::head::find_head;
use super::layers::find_layer;
use super::operators::{Kind, Property};
use super::region::Region;
use super::scores::ClassScores;
use super::sign::can_be_negative;
use crate::error::{Hint, hinted};
use crate::names::{first_few, name_of};
use crate::remarks::Remark;

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
        f.write_str(&name_of(self))
    }
}

/// How the features are upsampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Upsampling {
    /// Gradual extrapolation (Szandała, IEEE Access 2021): the features are multiplied by each
    /// guide's channel mean, up to the resolution of the shallowest guide.
    Product,
    /// Each pixel is a weighted mean of the colours of cells that are near, and alike in the
    /// guides.
    Bilateral,
    /// Bilinear, without guides.
    Bilinear,
    /// The map has the resolution of the features.
    None,
}

impl fmt::Display for Upsampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name_of(self))
    }
}

/// The values of a graph that PRISM reads.
#[derive(Debug, Clone)]
pub struct Selection {
    /// `[N,C,h,w]`, the input of the PCA.
    pub excitation: ValueId,
    /// In execution order, the shallowest first.
    pub guides: Vec<ValueId>,
    /// How the features are upsampled.
    pub upsampling: Upsampling,
    /// Whether TorchPRISM's rule selected the layers.
    pub is_torchprism: bool,
    /// The part of the image that the features cover.
    pub region: Region,
    /// What was assumed, and what the map does not show.
    pub remarks: Vec<Remark>,
}

/// The layers that a remark lists.
const LISTED: usize = 4;

/// Guides per resolution: the last ones, which carry the most information.
const GUIDES_PER_RESOLUTION: usize = 3;

impl Rule {
    /// Applies the rule to a graph with these class scores. `layer` names another final excitation,
    /// `upsampling` is another way than the rule's.
    ///
    /// # Errors
    /// Returns an error if the graph has nothing to hook, and a usage error with the nearest
    /// names if it has no such layer.
    pub(super) fn select(
        self,
        graph: &Graph,
        scores: &ClassScores,
        layer: Option<&str>,
        upsampling: Option<Upsampling>,
    ) -> Result<Selection> {
        let logits = scores.last(graph);
        let chosen = layer.map(|name| find_layer(graph, name)).transpose()?;
        let mut remarks = Vec::new();
        let last = match chosen {
            Some(_) => None,
            None => {
                refuse_transformers(graph, logits)?;
                last_activation(graph, scores, &mut remarks)
            }
        };
        let negative = can_be_negative(graph);
        let is_vgg = || {
            let last = last.or_else(|| last_activation(graph, scores, &mut Vec::new()));
            last.is_some_and(|last| is_vgg(graph, logits, last, &negative))
        };
        let (excitation, guides, is_torchprism) = if self == Rule::Torchprism || is_vgg() {
            let (excitation, guides) = torchprism(graph, chosen)?;
            (excitation, guides, true)
        } else {
            let excitation = chosen.or(last).ok_or_else(|| nothing_to_hook(graph))?;
            (excitation, spatial_inputs(graph, excitation), false)
        };
        let upsampling = upsampling.unwrap_or(match is_torchprism {
            true => Upsampling::Product,
            false => Upsampling::Bilateral,
        });
        let negative = guides.iter().filter(|&&guide| negative[guide]);
        let negative: Vec<&str> = negative.map(|&guide| graph.name(guide)).collect();
        if upsampling == Upsampling::Product && !negative.is_empty() {
            let names = first_few(&negative, LISTED);
            remarks.push(Remark::note(format!(
                "the product of TorchPRISM's rule assumes guides that are not negative, but these can be: {names}"
            )));
        }
        let region = Region::of(graph, excitation, &mut remarks);
        Ok(Selection {
            excitation,
            guides,
            upsampling,
            is_torchprism,
            region,
            remarks,
        })
    }
}

fn nothing_to_hook(graph: &Graph) -> anyhow::Error {
    let mut stacked = graph.nodes.iter().filter(|node| {
        let sizes = node.outputs.first().and_then(|&output| graph.sizes(output));
        node.is_conv2d() && sizes.is_some_and(|sizes| sizes[0] > graph.images())
    });
    if let Some(node) = stacked.next_back() {
        let count = graph
            .sizes(node.outputs[0])
            .map_or(0, |sizes| sizes[0] / graph.images());
        return anyhow::anyhow!(
            "it makes {count} pictures of each image (crops, flips or patches of it, side by side in the batch), so its features have no one place on the image; export the network without them"
        );
    }
    let is_hidden = |node: &Node| node.is_block() && node.holds(Kind::Conv2d);
    if graph.nodes.iter().any(is_hidden) {
        return anyhow::anyhow!(
            "its convolutions are inside a loop or branch, of which only the result can be read; export the network without it, or by tracing"
        );
    }
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
    let mut open = node.outputs.clone();
    while let Some(value) = open.pop() {
        for user in graph.users(value) {
            if user.kind() == Kind::MatrixProduct {
                let inputs = user.inputs.iter();
                if inputs
                    .filter(|&&input| graph.depends_on_images(input))
                    .count()
                    > 1
                {
                    return true;
                }
            } else if user.has(Property::KeepsAttention) {
                open.extend(&user.outputs);
            }
        }
    }
    false
}

/// Whether only max-pools make activations coarser, one of them makes the last activation, and
/// what they pool is not negative: the product of guides assumes that.
fn is_vgg(graph: &Graph, logits: ValueId, last: ValueId, negative: &[bool]) -> bool {
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
        && reductions.all(|node| {
            is_max_pool(node) && node.inputs.first().is_some_and(|&input| !negative[input])
        })
        && graph.made_by(last).is_some_and(is_max_pool)
}

/// TorchPRISM's rule: the outputs of all max-pools and strided convolutions in execution order,
/// preceded by the input of the first. The last one is the final excitation. A strided
/// convolution that a ReLU follows is read after the ReLU: TorchPRISM keeps references, and the
/// ReLUs of its networks work in place.
fn torchprism(graph: &Graph, chosen: Option<ValueId>) -> Result<(ValueId, Vec<ValueId>)> {
    let mut captured: Vec<ValueId> = Vec::new();
    for node in &graph.nodes {
        let strided = node.is_conv2d() && node.stride() > 1;
        let mut outputs = node.outputs.iter().take(1);
        let output = outputs.find(|&&value| graph.sizes(value).is_some_and(|s| s.len() == 4));
        let Some(&output) = output.filter(|_| strided || node.kind() == Kind::MaxPool2d) else {
            continue;
        };
        if captured.is_empty() {
            let input = node.inputs.first();
            captured.extend(input.map(|&input| before_infinite_padding(graph, input)));
        }
        let mut users = graph.users(output);
        let relu = users.find(|user| strided && user.kind() == Kind::Relu);
        captured.push(relu.map_or(output, |relu| relu.outputs[0]));
    }
    let nothing = "TorchPRISM's rule has nothing to hook: no 2-d max-pool, no strided convolution";
    let excitation = chosen.or_else(|| captured.pop());
    let excitation = excitation.ok_or_else(|| hinted(nothing, Hint::AutoRule))?;
    captured.retain(|&value| graph.maker(value) < graph.maker(excitation));
    Ok((excitation, captured))
}

/// The last activation of the body. If the scores read several, it is one that shows the image
/// whole and unmirrored, the last of them.
fn last_activation(
    graph: &Graph,
    scores: &ClassScores,
    remarks: &mut Vec<Remark>,
) -> Option<ValueId> {
    let head = find_head(graph, &scores.parts);
    let turned = |value: ValueId| graph.place(value).is_none_or(|place| !place.is_upright());
    let preference = |&&value: &&ValueId| (!turned(value), graph.maker(value));
    let last = *head.activations.iter().max_by_key(preference)?;
    if head.activations.len() > 1 {
        let name = |&value: &ValueId| {
            let turned = if turned(value) {
                " (mirrored or cropped)"
            } else {
                ""
            };
            format!("{}{turned}", graph.name(value))
        };
        let names: Vec<String> = head.activations.iter().map(name).collect();
        let text = format!(
            "the class scores are computed from {} last activations: {}; '{}' is analysed",
            names.len(),
            first_few(&names, LISTED),
            graph.name(last)
        );
        remarks.push(Remark::warning(text).with_hint(Hint::Layer));
    }
    if head.attentions > 1 {
        let text = format!(
            "several attention layers lie between '{}' and the class scores; the map does not show them",
            graph.name(last)
        );
        remarks.push(Remark::warning(text));
    }
    Some(last)
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
            && graph.covers_the_same(value, excitation)
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

/// What a max-pool reads, without padding by -inf, which is no activation.
fn before_infinite_padding(graph: &Graph, value: ValueId) -> ValueId {
    let is_infinite =
        |node: &&Node| node.short_name() == "constant_pad_nd" && node.scalar("value").is_none();
    let padding = graph.made_by(value).filter(is_infinite);
    padding
        .and_then(|node| node.inputs.first().copied())
        .unwrap_or(value)
}

fn before_padding(graph: &Graph, mut value: ValueId) -> Option<ValueId> {
    while let Some(node) = graph.made_by(value)
        && node.kind() == Kind::Padding
    {
        value = *node.inputs.first()?;
    }
    Some(value)
}

//! How many channels the images of a network have.

use std::collections::HashSet;

use anyhow::{Result, anyhow};

use super::graph::{Graph, Node, ValueId};
use super::messages::is_lack_of_memory;
use super::network::NetworkGraph;
use super::operators::{Kind, Property};
use crate::error::{Hint, hinted};
use crate::size::Size;

/// The channels of photographs.
const COLOURS: i64 = 3;

/// The numbers that are tried if the graph does not tell.
const TRIED: std::ops::RangeInclusive<i64> = 1..=8;

impl NetworkGraph {
    /// The graph as data, for images of `size` with this number of channels; if none is given,
    /// for images in colour, or else of as many channels as the network takes.
    ///
    /// # Errors
    /// Returns an error if the network cannot take images of such a size or number of channels.
    pub(super) fn describe(&self, size: Size, channels: Option<i64>) -> Result<Graph> {
        let wanted = channels.unwrap_or(COLOURS);
        let refused = match self.describe_for(size, wanted) {
            Err(error) if !is_lack_of_memory(&error) => error,
            described => return described,
        };
        let known = input_channels(&self.structure()?);
        let found = match known {
            Some(taken) if taken != wanted => Some((taken, self.describe_for(size, taken))),
            Some(_) => None,
            None => TRIED
                .filter(|&tried| tried != wanted)
                .map(|tried| (tried, self.describe_for(size, tried)))
                .find(|(_, described)| described.is_ok()),
        };
        match (found, channels) {
            (Some((taken, _)), Some(stored)) => Err(anyhow!(
                "it takes {}, but the stored images have {stored}; give an array `input` [N,{taken},H,W]",
                in_words(taken)
            )),
            (Some((taken, described)), None) => {
                described.map_err(|error| wrong_size(size, taken, &error))
            }
            (None, _) => Err(wrong_size(size, wanted, &refused)),
        }
    }
}

/// `1 channel`, `4 channels`.
pub fn in_words(channels: i64) -> String {
    format!("{channels} channel{}", if channels == 1 { "" } else { "s" })
}

fn wrong_size(size: Size, channels: i64, error: &anyhow::Error) -> anyhow::Error {
    let Size { height, width } = size;
    let message = format!("it cannot take images [N,{channels},{height},{width}]: {error:#}");
    hinted(message, Hint::ImageSize)
}

/// The number of channels that the first layer with weights reads, if only operators that keep
/// the channels are before it.
fn input_channels(graph: &Graph) -> Option<i64> {
    let mut images: HashSet<ValueId> = HashSet::from([graph.input]);
    for node in &graph.nodes {
        let reads = |value: Option<&ValueId>| value.is_some_and(|value| images.contains(value));
        if reads(node.inputs.first())
            && let Some(channels) = weighted_channels(node)
        {
            return Some(channels);
        }
        if node.inputs.iter().any(|value| images.contains(value)) && keeps_channels(node) {
            images.extend(node.outputs.first());
        }
    }
    None
}

/// The channels of the input of a convolution or batch-norm with constant weights.
fn weighted_channels(node: &Node) -> Option<i64> {
    let weight = node.weight()?;
    let groups = node.argument("groups").and_then(|groups| groups.first());
    match (node.kind(), weight) {
        (Kind::Conv2d, &[_, channels, _, _]) if node.is_conv2d() => {
            Some(channels * groups.unwrap_or(&1))
        }
        (Kind::Conv2d | Kind::Convolution, &[channels, _, _, _]) => Some(channels),
        (Kind::BatchNorm, &[channels]) => Some(channels),
        _ => None,
    }
}

fn keeps_channels(node: &Node) -> bool {
    match node.kind() {
        Kind::Elementwise | Kind::Bound | Kind::Relu | Kind::Dropout | Kind::Padding => true,
        Kind::Comparison | Kind::Flip | Kind::Rotate | Kind::Sample | Kind::Upsample => true,
        Kind::MaxPool2d | Kind::AvgPool2d | Kind::AdaptivePool => true,
        Kind::Slice => node.argument("dim").is_some_and(|dim| dim[0] != 1),
        _ if node.has(Property::KeepsFeatures) => true,
        _ if node.short_name() == "roll" => true,
        _ => false,
    }
}

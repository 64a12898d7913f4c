//! What a network does to the colours of its input before its first convolution.

use anyhow::{Context, Result};
use tch::{Kind, Tensor};

use super::ffi::{Execution, Output, Reading};
use super::graph::{Graph, ValueId};
use super::messages::plain;
use super::network::NetworkGraph;
use super::scores::layer_input;
use crate::size::Size;

/// A convolution with fewer output channels makes no features: it only scales or mixes colours.
const LEAST_FEATURES: i64 = 4;

/// Channel by channel, the network computes `scale x + shift` of its input first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// Factors of red, green and blue.
    pub scale: [f64; 3],
    /// What is added then.
    pub shift: [f64; 3],
}

impl Entry {
    /// The entry of a network, found by giving it images of one colour; none if the first
    /// convolution reads the image itself, or something else than scaled colours.
    pub(super) fn find(network: &NetworkGraph, graph: &Graph, size: Size) -> Option<Entry> {
        let value = first_features_input(graph)?;
        let is_coloured = matches!(graph.sizes(value), Some([_, 3, _, _]));
        if value == graph.input || !is_coloured {
            return None;
        }
        let images = graph.images();
        let [black, grey, white] = colours(network, value, images, size).ok()?;
        let scale = std::array::from_fn(|channel| white[channel] - black[channel]);
        let is_scaled = (0..3).all(|channel| {
            let middle = (white[channel] + black[channel]) / 2.0;
            let scale: f64 = scale[channel];
            // Zero if each image is standardised by its own mean.
            scale.abs() > 1e-6 && (grey[channel] - middle).abs() <= 1e-3 * scale.abs()
        });
        let shift = black;
        is_scaled.then_some(Entry { scale, shift })
    }
}

/// What enters the first convolution that makes features.
fn first_features_input(graph: &Graph) -> Option<ValueId> {
    let makes_features = |value: &ValueId| match graph.sizes(*value) {
        Some(&[_, channels, ..]) => channels >= LEAST_FEATURES,
        _ => false,
    };
    let mut nodes = graph.nodes.iter();
    let first =
        nodes.find(|node| node.is_conv2d() && node.outputs.first().is_some_and(makes_features));
    layer_input(graph, first?)
}

/// The colours of a value, in the middle, for a black, a grey and a white image (0, 0.5 and 1).
fn colours(
    network: &NetworkGraph,
    value: ValueId,
    images: i64,
    size: Size,
) -> Result<[[f64; 3]; 3]> {
    let output = Output::new(value, Reading::Whole);
    let program = network.raw.program(&[output], None, Execution::Plain)?;
    let mut found = [[0.0; 3]; 3];
    for (colours, level) in found.iter_mut().zip([0.0, 0.5, 1.0]) {
        let kind = (Kind::Float, network.device);
        let image =
            Tensor::f_full([images, 3, size.height, size.width], level, kind).map_err(plain)?;
        let seen = program.run(&image)?;
        let seen = seen.first().context("it returned nothing")?;
        let (_, _, height, width) = seen.size4()?;
        for (channel, colour) in (0..).zip(colours) {
            *colour = seen.double_value(&[0, channel, height / 2, width / 2]);
        }
    }
    Ok(found)
}

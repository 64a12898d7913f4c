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
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The factor of each channel, in the network's order; of a grey image that is repeated, the
    /// mean of its factors.
    pub scale: Vec<f64>,
    /// What is added then, likewise.
    pub shift: Vec<f64>,
}

impl Entry {
    /// The entry of a network, found by giving it images of one colour; none if the first
    /// convolution reads the image itself, or something else than scaled colours.
    pub(super) fn find(network: &NetworkGraph, graph: &Graph, size: Size) -> Option<Entry> {
        let value = first_features_input(graph)?;
        let &[images, channels, ..] = graph.sizes(graph.input)? else {
            return None;
        };
        let &[_, found, _, _] = graph.sizes(value)? else {
            return None;
        };
        // A grey image may be repeated for a network of colours.
        if value == graph.input || !matches!((channels, found), (1 | 3, 3) | (1, 1)) {
            return None;
        }
        let shape = [images, channels, size.height, size.width];
        let [black, grey, white] = colours(network, value, shape).ok()?;
        let colours = white.iter().zip(&black);
        let scale: Vec<f64> = colours.map(|(white, black)| white - black).collect();
        let is_scaled = (0..scale.len()).all(|channel| {
            let middle = (white[channel] + black[channel]) / 2.0;
            let scale = scale[channel].abs();
            // Zero if each image is standardised by its own mean.
            scale > 1e-6 && (grey[channel] - middle).abs() <= 1e-3 * scale
        });
        let shift = black;
        let of_grey = |values: Vec<f64>| match channels {
            1 => vec![values.iter().sum::<f64>() / values.len() as f64],
            _ => values,
        };
        is_scaled.then(|| Entry {
            scale: of_grey(scale),
            shift: of_grey(shift),
        })
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

/// The channels of a value, in the middle, for black, grey and white images (0, 0.5 and 1) of a
/// shape.
fn colours(network: &NetworkGraph, value: ValueId, shape: [i64; 4]) -> Result<[Vec<f64>; 3]> {
    let output = Output::new(value, Reading::Whole);
    let program = network.raw.program(&[output], None, Execution::Plain)?;
    let mut found = [const { Vec::new() }; 3];
    for (colours, level) in found.iter_mut().zip([0.0, 0.5, 1.0]) {
        let kind = (Kind::Float, network.device);
        let image = Tensor::f_full(shape, level, kind).map_err(plain)?;
        let seen = program.run(&image)?;
        let seen = seen.first().context("it returned nothing")?;
        let (_, channels, height, width) = seen.size4()?;
        let middle = |channel| seen.double_value(&[0, channel, height / 2, width / 2]);
        *colours = (0..channels).map(middle).collect();
    }
    Ok(found)
}

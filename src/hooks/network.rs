//! Networks as graphs, before anything in them is hooked.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use tch::{Device, Tensor};

use super::ffi::{Output, RawGraph, Reading};
use super::graph::Graph;
use super::messages::plain;
use super::model::Precision;
use super::selection::class_scores;
use crate::size::Size;

/// A network as a graph, before anything in it is hooked.
#[derive(Debug)]
pub struct NetworkGraph {
    /// Its file or its name, for messages.
    pub(super) origin: String,
    pub(super) raw: RawGraph,
    pub(super) device: Device,
    parameter_names: HashMap<usize, String>,
}

impl NetworkGraph {
    /// Loads a TorchScript file, scripted or traced.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line if the file cannot be loaded.
    pub fn load(path: &Path, device: Device) -> Result<NetworkGraph> {
        Ok(NetworkGraph {
            raw: RawGraph::load(path, device)?,
            origin: path.display().to_string(),
            device,
            parameter_names: HashMap::new(),
        })
    }

    /// The forward pass without hooks: a function from images `[N,3,H,W]` to class scores
    /// `[N,K]`, both float32. Benchmarks compare hooked networks with it.
    ///
    /// # Errors
    /// Returns an error if the network cannot take images of `size` (height, width), or returns
    /// no class scores.
    #[doc(hidden)]
    pub fn bare_forward(
        &self,
        size: Size,
        precision: Precision,
    ) -> Result<impl Fn(&Tensor) -> Result<Tensor>> {
        let scores = Output::new(class_scores(&self.describe(size, None)?)?, Reading::Whole);
        let program = self.raw.program(&[scores], None, precision.execution())?;
        let device = self.device;
        Ok(move |batch: &Tensor| {
            let outputs = program.run(&batch.f_to_device(device).map_err(plain)?)?;
            outputs.into_iter().next().context("it returned nothing")
        })
    }

    /// The graph as data, for images of `size` with `channels`.
    ///
    /// # Errors
    /// Returns libtorch's reason if the network cannot take such images.
    pub(super) fn describe_for(&self, size: Size, channels: i64) -> Result<Graph> {
        let shape = [1, channels, size.height, size.width];
        let json = self.raw.describe(Some(shape), self.device)?;
        Graph::parse(&json, &self.parameter_names)
    }

    /// The graph as data, without the sizes of its values.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line.
    pub(super) fn structure(&self) -> Result<Graph> {
        let json = self.raw.describe(None, self.device)?;
        Graph::parse(&json, &self.parameter_names)
    }
}

/// The recorded operators of a network that lives in memory. Recording needs the shapes of the
/// weights only, so the values can be loaded at the same time.
#[derive(Debug)]
pub struct Trace {
    name: String,
    raw: RawGraph,
    device: Device,
}

impl Trace {
    /// Records the operators of `forward`, which runs a network such as one of `tch::vision`.
    /// Its tensors have shapes but no values meanwhile.
    ///
    /// `name` is used in messages; `example` is `[1,3,H,W]` on the network's device.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line if the network cannot take the example (for example
    /// because the image is too small for its strides).
    pub fn record(
        name: &str,
        example: &Tensor,
        forward: impl FnOnce(&Tensor) -> Tensor,
    ) -> Result<Trace> {
        Ok(Trace {
            name: name.to_string(),
            raw: tch::no_grad(|| RawGraph::record(example, forward))?,
            device: example.device(),
        })
    }

    /// The network, after its weights have been loaded. The layers are named after `parameters`,
    /// its tensors by name.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line if the trace is not a graph.
    pub fn into_graph(mut self, parameters: &HashMap<String, Tensor>) -> Result<NetworkGraph> {
        self.raw.finish_trace()?;
        let parameter_names = parameters
            .iter()
            .map(|(name, tensor)| (tensor.data_ptr() as usize, name.clone()))
            .collect();
        Ok(NetworkGraph {
            raw: self.raw,
            origin: self.name,
            device: self.device,
            parameter_names,
        })
    }
}

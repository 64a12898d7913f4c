//! Networks as graphs, before anything in them is hooked.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use tch::{Device, Tensor};

use super::batching::hold_generator;
use super::ffi::{Builder, BuiltValue, Execution, Output, RawGraph, Reading};
use super::graph::{Graph, ValueId};
use super::messages::{is_lack_of_memory, plain};
use super::model::Precision;
use super::scores::{ClassScores, ScoreHook};
use crate::size::Size;

/// The largest batch size that is looked for in a graph, and the number of sizes that are tried.
const LARGEST_BATCH: i64 = 256;
const TRIED_BATCHES: usize = 8;

/// A network as a graph, before anything in it is hooked.
#[derive(Debug)]
pub struct NetworkGraph {
    /// Its file or its name, for messages.
    pub(super) origin: String,
    pub(super) raw: RawGraph,
    pub(super) device: Device,
    /// The size of images that its file has built in.
    pub(super) fixed_size: Option<Size>,
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
            fixed_size: None,
            parameter_names: HashMap::new(),
        })
    }

    /// A network that was built; `origin` is its file or its name, for messages. `fixed_size`: the
    /// size of images for which it was made, if constants in it follow from that.
    ///
    /// # Errors
    /// Returns one line if the graph cannot be run as that of a network.
    pub(crate) fn built(
        origin: String,
        builder: Builder,
        outputs: &[(String, BuiltValue)],
        fixed_size: Option<Size>,
    ) -> Result<NetworkGraph> {
        let device = builder.device();
        Ok(NetworkGraph {
            raw: builder.finish(outputs)?,
            origin,
            device,
            fixed_size,
            parameter_names: HashMap::new(),
        })
    }

    /// The forward pass without hooks: a function from images `[N,C,H,W]` to class scores
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
        let scores = ClassScores::find(&self.describe(size, None)?, &ScoreHook::default())?;
        let outputs: Vec<Output> = scores
            .values()
            .map(|value| Output::new(value, Reading::Whole))
            .collect();
        let program = self.raw.program(&outputs, None, precision.execution())?;
        let device = self.device;
        Ok(move |batch: &Tensor| {
            let outputs = program.run(&batch.f_to_device(device).map_err(plain)?)?;
            scores.assemble(&outputs, batch.size()[0])
        })
    }

    /// All that the network returns for `images` `[N,C,H,W]`, class scores or not, by the operators one
    /// by one or by libtorch's passes. Tests of single operators compare it.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line.
    #[doc(hidden)]
    pub fn returned(&self, images: &Tensor, is_plain: bool) -> Result<Vec<Tensor>> {
        let outputs = self.structure()?.outputs;
        let whole = |value| Output::new(value, Reading::Whole);
        let outputs: Vec<Output> = outputs.into_iter().map(whole).collect();
        let execution = match is_plain {
            true => Execution::Plain,
            false => Execution::Optimised,
        };
        let program = self.raw.program(&outputs, None, execution)?;
        program.run(&images.f_to_device(self.device).map_err(plain)?)
    }

    /// The graph as data, for one image of `size` with `channels`, or for as many images as are
    /// built into it.
    ///
    /// # Errors
    /// Returns libtorch's reason if the network cannot take such images.
    pub(super) fn describe_for(&self, size: Size, channels: i64) -> Result<Graph> {
        let error = match self.describe_batch(1, size, channels) {
            Ok(graph) if graph.returns_a_row_for(1) => return Ok(graph),
            Ok(graph) => {
                // A constant of a batch size may spread one image over many rows.
                let found = self.built_in(size, channels, &graph.returned_rows())?;
                return Ok(found.unwrap_or(graph));
            }
            Err(error) if is_lack_of_memory(&error) => return Err(error),
            Err(error) => error,
        };
        self.built_in(size, channels, &[])?.ok_or(error)
    }

    fn describe_batch(&self, images: i64, size: Size, channels: i64) -> Result<Graph> {
        let shape = [images, channels, size.height, size.width];
        let _held = hold_generator(); // it may draw
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

    /// The graph for the batch size above 1 that is built into the network: one of `likely`, or
    /// a constant of the graph.
    fn built_in(&self, size: Size, channels: i64, likely: &[i64]) -> Result<Option<Graph>> {
        let constants: Vec<i64> = serde_json::from_str(&self.raw.batches()?)?;
        let tried = likely.iter().chain(&constants).copied();
        let tried = tried.filter(|size| (2..=LARGEST_BATCH).contains(size));
        let fits = |images: i64| {
            let graph = self.describe_batch(images, size, channels).ok()?;
            graph.returns_a_row_for(images).then_some(graph)
        };
        Ok(tried.take(TRIED_BATCHES).find_map(fits))
    }

    /// The batch size that is built into the network, given its graph and the values that are
    /// read of it, each with its dimension of the images.
    pub(super) fn built_in_batch(
        &self,
        graph: &Graph,
        read: &[(ValueId, usize)],
        size: Size,
    ) -> Option<i64> {
        if graph.images() > 1 {
            return Some(graph.images());
        }
        let shape = [2, graph.channels(), size.height, size.width];
        let _held = hold_generator(); // it may draw
        let sizes = self.raw.sizes(shape, self.device);
        let takes_two = match sizes {
            Ok(json) => serde_json::from_str::<Vec<Option<Vec<i64>>>>(&json).is_ok_and(|sizes| {
                let images = |&(value, batch): &(ValueId, usize)| {
                    sizes.get(value)?.as_ref()?.get(batch).copied()
                };
                read.iter().all(|value| images(value) == Some(2))
            }),
            Err(error) => is_lack_of_memory(&error),
        };
        (!takes_two).then_some(1)
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
            fixed_size: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_traced_convolution_asks_for_tf32() {
        let file = Path::new("tests/data/networks/tiny_vgg_traced.pt");
        let network = NetworkGraph::load(file, Device::Cpu).unwrap();
        let graph = network.structure().unwrap();
        let switches: Vec<_> = (graph.nodes.iter())
            .filter_map(|node| node.argument("allow_tf32"))
            .collect();
        assert!(!switches.is_empty(), "the file has the switch");
        assert!(switches.iter().all(|switch| *switch == [0]), "{switches:?}");
    }
}

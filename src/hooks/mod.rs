//! Forward hooks on TorchScript.
//!
//! TorchScript itself has none. Here every network is one flat graph, in which
//! any tensor can be made a further output: [`HookedModel`] chooses the tensors
//! by a [`Rule`], compiles the graph that returns them, and runs it.

mod backprop;
mod ffi;
mod graph;
mod messages;
mod rule;

use std::collections::HashMap;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use tch::{Device, Kind, Tensor};

pub use ffi::Execution;
pub(crate) use ffi::{skip_init, tensor_of_floats};
pub use graph::{Graph, Node, ValueId};
pub use rule::{Extrapolation, Rule, Selection};

use crate::classes::no_class;
use crate::error::usage;
use crate::saliency::Method;
use ffi::{GradientTap, Output, RawGraph, RawProgram, RawTrace, Reading};
use messages::{is_lack_of_memory, plain};

/// A network as a graph, before anything in it is hooked.
#[derive(Debug)]
pub struct NetworkGraph {
    /// For messages: its file, or its name.
    origin: String,
    raw: RawGraph,
    device: Device,
    parameter_names: HashMap<usize, String>,
}

impl NetworkGraph {
    /// Loads a TorchScript file, scripted or traced.
    ///
    /// # Errors
    /// With libtorch's reason, on one line.
    pub fn load(path: &Path, device: Device) -> Result<NetworkGraph> {
        Ok(NetworkGraph {
            raw: RawGraph::load(path, device)?,
            origin: path.display().to_string(),
            device,
            parameter_names: HashMap::new(),
        })
    }

    /// Traces a network that lives in memory, such as one of `tch::vision`.
    ///
    /// `example` is `[1,3,H,W]` on the network's device; `parameters` are the
    /// network's tensors by name, after which its layers are called; `name` is
    /// for messages.
    ///
    /// # Errors
    /// With libtorch's reason, on one line, where the network cannot take the
    /// example (an image too small for its strides, say).
    pub fn trace(
        name: &str,
        example: &Tensor,
        parameters: &HashMap<String, Tensor>,
        forward: impl FnOnce(&Tensor) -> Tensor,
    ) -> Result<NetworkGraph> {
        let raw = tch::no_grad(|| RawTrace::record(example, false, forward))?;
        let (name, device) = (name.to_string(), example.device());
        Trace { name, raw, device }.into_graph(parameters)
    }

    /// The graph as data, for images of `size` (height, width).
    ///
    /// # Errors
    /// Where the network cannot take such images.
    pub fn describe(&self, size: (i64, i64)) -> Result<Graph> {
        let described = self.raw.describe([1, 3, size.0, size.1], self.device);
        let json = described.map_err(|error| match is_lack_of_memory(&error) {
            true => error,
            false => error.context(format!(
                "it cannot take images [N,3,{},{}] (--image-size sets another size)",
                size.0, size.1
            )),
        })?;
        Graph::parse(&json, &self.parameter_names)
    }
}

/// The operators of a network that lives in memory, of which only the weights' sizes
/// matter so far: they can be recorded before the weights are there.
#[derive(Debug)]
pub struct Trace {
    name: String,
    raw: RawTrace,
    device: Device,
}

impl Trace {
    /// Records what `forward` calls, as [`NetworkGraph::trace`] does, on images that have
    /// the shape of `example` but no values.
    ///
    /// # Errors
    /// As there.
    pub fn record(
        name: &str,
        example: &Tensor,
        forward: impl FnOnce(&Tensor) -> Tensor,
    ) -> Result<Trace> {
        Ok(Trace {
            name: name.to_string(),
            raw: tch::no_grad(|| RawTrace::record(example, true, forward))?,
            device: example.device(),
        })
    }

    /// The network, once its `parameters` have their values.
    ///
    /// # Errors
    /// With libtorch's reason, on one line.
    pub fn into_graph(self, parameters: &HashMap<String, Tensor>) -> Result<NetworkGraph> {
        let parameter_names = parameters
            .iter()
            .map(|(name, tensor)| (tensor.data_ptr() as usize, name.clone()))
            .collect();
        Ok(NetworkGraph {
            raw: self.raw.into_graph()?,
            origin: self.name,
            device: self.device,
            parameter_names,
        })
    }
}

/// A network without hooks: what its forward pass costs by itself.
#[derive(Debug)]
pub struct Classifier {
    program: RawProgram,
    device: Device,
}

impl Classifier {
    /// Of `network` for images of `size` (height, width).
    ///
    /// # Errors
    /// Where the network cannot take such images, or returns no class scores.
    pub fn new(
        network: &NetworkGraph,
        size: (i64, i64),
        execution: Execution,
    ) -> Result<Classifier> {
        let logits = rule::logits(&network.describe(size)?)?;
        Ok(Classifier {
            program: network.raw.program(&[whole(logits)], None, execution)?,
            device: network.device,
        })
    }

    /// Class scores `[N,K]` of `[N,3,H,W]` float32 images.
    ///
    /// # Errors
    /// With libtorch's reason, on one line.
    pub fn forward(&self, batch: &Tensor) -> Result<Tensor> {
        let batch = batch.f_to_device(self.device).map_err(plain)?;
        let scores = self.program.run(&batch)?.into_iter().next();
        scores.context("it returned nothing")
    }
}

/// What is read of a network, and how it computes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Chooses the final excitation and the guides.
    pub rule: Rule,
    /// Another final excitation, by name.
    pub layer: Option<String>,
    /// Whether and how classes are traced back.
    pub saliency: Option<SaliencyHook>,
    /// How it computes. Where classes are traced back: plainly.
    pub execution: Execution,
}

impl Execution {
    /// The names that [`Execution::from_str`] knows.
    pub const NAMES: [&'static str; 2] = ["f32", "bf16"];

    /// Whether a device has its arithmetic, or emulates it slowly.
    pub fn is_native(self, device: Device) -> bool {
        match (self, device) {
            (Execution::Plain | Execution::Optimised, _) => true,
            (Execution::Bfloat16, Device::Cpu) => cpu_has_bfloat16(),
            (Execution::Bfloat16, _) => true,
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_has_bfloat16() -> bool {
    std::is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_has_bfloat16() -> bool {
    false
}

impl FromStr for Execution {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Execution> {
        match name {
            "f32" => Ok(Execution::Optimised),
            "bf16" => Ok(Execution::Bfloat16),
            _ => Err(usage(format!(
                "there is no precision '{name}'; there are {}",
                Execution::NAMES.join(", ")
            ))),
        }
    }
}

/// Where the saliency of a class is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaliencyHook {
    /// How.
    pub method: Method,
    /// At which layer; the final excitation where none is named.
    pub layer: Option<String>,
}

/// What a layer is to PRISM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The input of the PCA.
    Excitation,
    /// Carries the colours to its resolution.
    Guide,
    /// Not read.
    None,
}

impl Role {
    /// The word for it; empty for [`Role::None`].
    pub fn word(self) -> &'static str {
        match self {
            Role::Excitation => "excitation",
            Role::Guide => "guide",
            Role::None => "",
        }
    }
}

/// One layer that can be hooked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Unique name, as `--layer` takes it.
    pub name: String,
    /// Its operator: `conv2d`, `relu`, ...
    pub operator: String,
    /// Channels, height and width of what it makes.
    pub shape: (i64, i64, i64),
    /// Whether PRISM reads it.
    pub role: Role,
}

/// What one batch leaves behind.
#[derive(Debug)]
pub struct Excitations {
    /// Class scores before softmax, `[N,K]` float32.
    pub logits: Tensor,
    /// The final excitation, `[N,C,h,w]` float32.
    pub excitation: Tensor,
    /// What is kept of the guides, `[N,k,h,w]` float32, in execution order: the
    /// channel mean (k = 1) for a product, the means of the positive parts of four
    /// runs of channels (k = 4, or as many as there are channels) for a regression.
    pub guides: Vec<Tensor>,
    /// The saliency of a class, `[N,1,h,w]` float32, where it is hooked.
    pub saliency: Option<Tensor>,
}

impl Excitations {
    /// Those of several batches, in order, as those of one.
    ///
    /// # Errors
    /// Where their tensors do not fit.
    pub fn cat(parts: &[Excitations]) -> Result<Excitations> {
        let join = |of: &dyn Fn(&Excitations) -> Tensor| {
            Tensor::f_cat(&parts.iter().map(of).collect::<Vec<_>>(), 0)
        };
        let levels = parts.first().map_or(0, |part| part.guides.len());
        Ok(Excitations {
            logits: join(&|part| part.logits.shallow_clone())?,
            excitation: join(&|part| part.excitation.shallow_clone())?,
            guides: (0..levels)
                .map(|level| join(&|part| part.guides[level].shallow_clone()))
                .collect::<Result<_, _>>()?,
            saliency: parts
                .iter()
                .map(|part| part.saliency.as_ref())
                .collect::<Option<Vec<_>>>()
                .map(|saliencies| Tensor::f_cat(&saliencies, 0))
                .transpose()?,
        })
    }
}

/// A network whose excitations can be read.
#[derive(Debug)]
pub struct HookedModel {
    origin: String,
    program: RawProgram,
    graph: Graph,
    selection: Selection,
    saliency: Option<(Method, ValueId)>,
    /// The class that is traced back, where not each image's own.
    target: Option<i64>,
    classes: i64,
    size: (i64, i64),
    device: Device,
}

impl HookedModel {
    /// Hooks `network` for images of `size` (height, width).
    ///
    /// # Errors
    /// Where the network cannot take such images, returns no class scores
    /// `[N,K]`, has nothing to hook, or an operator that `hooks.saliency` cannot
    /// go back through; a usage error where a layer is unknown.
    pub fn new(network: &NetworkGraph, size: (i64, i64), hooks: &Hooks) -> Result<HookedModel> {
        HookedModel::hook(network, size, hooks).with_context(|| network.origin.clone())
    }

    fn hook(network: &NetworkGraph, size: (i64, i64), hooks: &Hooks) -> Result<HookedModel> {
        let graph = network.describe(size)?;
        if graph
            .nodes
            .iter()
            .any(|node| node.operator.starts_with("quantized::"))
        {
            bail!(
                "this is a quantised network, whose activations are no floating-point numbers; export the network that it was made from"
            );
        }
        let logits = rule::logits(&graph)?;
        let selection = hooks.rule.select(&graph, logits, hooks.layer.as_deref())?;
        let mut outputs = vec![whole(logits), whole(selection.excitation)];
        let reading = match selection.extrapolation {
            Extrapolation::Product => Reading::ChannelMean,
            Extrapolation::Regression { .. } => Reading::GroupMeans,
        };
        outputs.extend(selection.guides.iter().map(|&guide| Output {
            value: guide as i64,
            reading,
        }));
        let saliency = match &hooks.saliency {
            Some(hook) => Some((hook.method, watch(&graph, logits, &selection, hook)?)),
            None => None,
        };
        let watched = saliency.as_ref().map(|(_, watched)| watched);
        let classes = graph.sizes(logits).map_or(0, |sizes| sizes[1]);
        Ok(HookedModel {
            origin: network.origin.clone(),
            program: network.raw.program(&outputs, watched, hooks.execution)?,
            graph,
            selection,
            saliency: saliency.map(|(method, watched)| (method, watched.value as ValueId)),
            target: None,
            classes,
            size,
            device: network.device,
        })
    }

    /// Runs the network on `[N,3,H,W]` float32 images and reads its excitations.
    ///
    /// # Errors
    /// With libtorch's reason, on one line.
    pub fn forward(&self, batch: &Tensor) -> Result<Excitations> {
        let images = batch.size()[0];
        let seen = self.run(batch).or_else(|error| {
            if images < 2 {
                return Err(error);
            }
            // A network traced with its batch size turned into a number takes
            // one image at a time.
            let single: Vec<Excitations> = batch
                .split(1, 0)
                .iter()
                .map(|image| self.run(image))
                .collect::<Result<_>>()?;
            Excitations::cat(&single)
        });
        seen.with_context(|| format!("{}: running the network", self.origin))
    }

    fn run(&self, batch: &Tensor) -> Result<Excitations> {
        let images = batch.size()[0];
        let mut tensors = self
            .program
            .run(&batch.f_to_device(self.device).map_err(plain)?)?;
        let saliency = match self.saliency {
            Some((method, _)) => {
                let (Some(activation), Some(logits)) = (tensors.pop(), tensors.first()) else {
                    bail!("it returned nothing");
                };
                let returned = self.traced_back(logits, &activation)?;
                let saliency = method.saliency(&activation.detach(), &returned);
                Some(saliency.f_to_device(Device::Cpu).map_err(plain)?)
            }
            None => None,
        };
        let mut tensors = tensors
            .into_iter()
            .map(|tensor| {
                let tensor = tensor.detach().f_to_device(Device::Cpu).map_err(plain)?;
                tensor.f_to_kind(Kind::Float).map_err(plain)
            })
            .collect::<Result<Vec<Tensor>>>()?
            .into_iter();
        let (Some(logits), Some(excitation)) = (tensors.next(), tensors.next()) else {
            bail!("it returned nothing");
        };
        let guides: Vec<Tensor> = tensors.collect();
        ensure!(
            logits.size() == [images, self.classes]
                && guides
                    .iter()
                    .chain([&excitation])
                    .chain(&saliency)
                    .all(|tensor| tensor.size()[0] == images),
            "for {images} images it returned class scores {:?}",
            logits.size()
        );
        Ok(Excitations {
            logits,
            excitation,
            guides,
            saliency,
        })
    }

    /// What comes back from the target's score to a layer, `[N,C,h,w]`.
    fn traced_back(&self, logits: &Tensor, activation: &Tensor) -> Result<Tensor> {
        let scores = match self.target {
            Some(target) => logits.f_select(1, target).map_err(plain)?,
            None => {
                let top = logits.detach().f_argmax(1, true).map_err(plain)?;
                logits.f_gather(1, &top, false).map_err(plain)?
            }
        };
        let score = scores.f_sum(Kind::Float).map_err(plain)?;
        let gradients = if score.requires_grad() {
            Tensor::f_run_backward(&[score], &[activation], false, false).map_err(plain)?
        } else {
            Vec::new()
        };
        match gradients.into_iter().next() {
            Some(gradient) if gradient.defined() => Ok(gradient),
            _ => bail!(
                "no gradient of the class scores reaches the layer '{}'; take another --saliency-layer",
                self.saliency_name().unwrap_or_default()
            ),
        }
    }

    /// Traces this class back in every image, not each one's own top class.
    ///
    /// # Errors
    /// A usage error where the network has no such class.
    pub fn set_target(&mut self, class: usize) -> Result<()> {
        let target = i64::try_from(class).unwrap_or(i64::MAX);
        if target >= self.classes {
            return Err(no_class(class, self.classes()));
        }
        self.target = Some(target);
        Ok(())
    }

    /// The number of classes, K.
    pub fn classes(&self) -> usize {
        self.classes as usize
    }

    /// Height and width of the images it takes.
    pub fn input_size(&self) -> (i64, i64) {
        self.size
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Bytes of the largest tensor that it makes of one image.
    pub fn largest_tensor(&self) -> usize {
        self.graph.largest_tensor() as usize * Kind::Float.elt_size_in_bytes()
    }

    /// What is done with its guides.
    pub fn extrapolation(&self) -> Extrapolation {
        self.selection.extrapolation
    }

    /// Every layer that can be hooked, in execution order.
    pub fn layers(&self) -> Vec<Layer> {
        let graph = &self.graph;
        let layer = |node: &Node| {
            let value = rule::layer_output(graph, node)?;
            let role = if value == self.selection.excitation {
                Role::Excitation
            } else if self.selection.guides.contains(&value) {
                Role::Guide
            } else {
                Role::None
            };
            Some(Layer {
                name: node.name.clone(),
                operator: node.kind().to_string(),
                shape: graph.activation(value)?,
                role,
            })
        };
        graph.nodes.iter().filter_map(layer).collect()
    }

    /// The name of the layer that makes the final excitation.
    pub fn excitation_name(&self) -> &str {
        self.graph.name(self.selection.excitation)
    }

    /// The name of the layer at which saliency is read, where it is.
    pub fn saliency_name(&self) -> Option<&str> {
        self.saliency.map(|(_, layer)| self.graph.name(layer))
    }

    /// The names of the layers that make the guides, the shallowest first;
    /// `image` where the image itself is one.
    pub fn guide_names(&self) -> Vec<&str> {
        self.selection
            .guides
            .iter()
            .map(|&guide| self.graph.name(guide))
            .collect()
    }
}

/// The layer that a saliency is read at, and what is done behind it.
fn watch(
    graph: &Graph,
    logits: ValueId,
    selection: &Selection,
    hook: &SaliencyHook,
) -> Result<GradientTap> {
    let layer = match &hook.layer {
        Some(name) => rule::find_layer(graph, name)?,
        None => selection.excitation,
    };
    if !graph.descendants(layer).contains(&logits) {
        return Err(usage(format!(
            "the class scores do not depend on layer '{}', so it has no saliency; `prism layers` lists the others",
            graph.name(layer)
        )));
    }
    let watch = |layer| {
        let rules = match hook.method {
            Method::GradCam => Vec::new(),
            Method::ExcitationBackprop { contrastive } => {
                backprop::flow_rules(graph, logits, layer, contrastive)?
            }
        };
        Ok(GradientTap {
            value: layer as i64,
            rules,
        })
    };
    let watched = watch(layer)?;
    if !backprop::contrast_vanishes(graph, &watched.rules, layer) {
        return Ok(watched);
    }
    match (&hook.layer, selection.guides.last()) {
        (None, Some(&guide)) => watch(guide),
        _ => Err(usage(format!(
            "--saliency exct-backp is zero at layer '{}' for any image, as a 1x1 convolution of it makes the class scores; take an earlier --saliency-layer",
            graph.name(layer)
        ))),
    }
}

fn whole(value: ValueId) -> Output {
    Output {
        value: value as i64,
        reading: Reading::Whole,
    }
}

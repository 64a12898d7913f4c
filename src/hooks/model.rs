//! Hooked networks: a forward pass that also returns the activations inside the network.

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use tch::{Device, Kind, Tensor};

use super::batching::Batching;
use super::entry::Entry;
use super::excitation_backprop::{contrast_vanishes, node_rules};
use super::ffi::{Execution, GradientTap, Output, RawLayout, RawProgram, Reading, pinned};
use super::graph::{Graph, Node, ValueId};
use super::layers::{Layer, Role, find_layer};
use super::messages::{is_lack_of_memory, plain};
use super::network::NetworkGraph;
use super::region::Region;
use super::scores::{ClassScores, ScoreHook};
use super::selection::{Rule, Selection, Upsampling};
use crate::classes::no_class;
use crate::error::{Hint, hinted, usage_hinted};
use crate::remarks::Remark;
use crate::saliency::Method;
use crate::scores::{Evidence, ScoresForm};
use crate::size::Size;

/// Which activations are read, and how the network computes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Selects the final excitation and the guides.
    pub rule: Rule,
    /// Name of another final excitation.
    pub layer: Option<String>,
    /// Another upsampling than the rule's.
    pub upsampling: Option<Upsampling>,
    /// Which output has the class scores, and what they mean.
    pub scores: ScoreHook,
    /// The saliency of a class, if it is computed.
    pub saliency: Option<SaliencyHook>,
    /// Whether the class scores of given features are asked for: [`HookedModel::scores_of`].
    pub scores_of_features: bool,
    /// Arithmetic of the network; always float32 if a saliency is computed.
    pub precision: Precision,
    /// Seed of the random numbers of a network that draws any.
    pub seed: i64,
    /// The number of channels of the images; as many as the network takes if there is none.
    pub channels: Option<i64>,
}

/// Arithmetic of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Precision {
    /// float32.
    #[default]
    F32,
    /// bfloat16 (8 bits of mantissa) in the operators that support it.
    Bf16,
    /// float16 (11 bits of mantissa, numbers up to 65504), on GPUs.
    F16,
}

impl Precision {
    /// Whether the network computes in it without loss.
    pub fn is_exact(self) -> bool {
        self == Precision::F32
    }

    /// Whether a device has this arithmetic, instead of emulating it slowly.
    pub fn is_native(self, device: Device) -> bool {
        #[cfg(target_arch = "x86_64")]
        let cpu_has_bf16 = std::is_x86_feature_detected!("avx512bf16");
        #[cfg(not(target_arch = "x86_64"))]
        let cpu_has_bf16 = false;
        match self {
            Precision::F32 => true,
            Precision::Bf16 => device != Device::Cpu || cpu_has_bf16,
            Precision::F16 => device != Device::Cpu,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
        }
    }

    pub(super) fn execution(self) -> Execution {
        match self {
            Precision::F32 => Execution::Optimised,
            Precision::Bf16 => Execution::Bfloat16,
            Precision::F16 => Execution::Float16,
        }
    }
}

/// How the saliency of a class is computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaliencyHook {
    /// The method.
    pub method: Method,
    /// Name of the layer; the final excitation if there is none.
    pub layer: Option<String>,
}

/// The activations of one batch, on the device of the network.
#[derive(Debug)]
pub struct Excitations {
    /// Class scores, before a softmax or sigmoid that ends the network, `[N,K]` float32.
    pub logits: Tensor,
    /// The final excitation, `[N,C,h,w]` float32.
    pub excitation: Tensor,
    /// The guides, reduced to `[N,k,h,w]` float32, in execution order. For
    /// [`Upsampling::Product`] it is the channel mean (k = 1), for [`Upsampling::Bilateral`] sums
    /// of the channels with random signs (k = 16, or the number of channels if that is smaller).
    /// Otherwise there are none.
    pub guides: Vec<Tensor>,
    /// The saliency of a class, `[N,1,h,w]` float32, if it is computed.
    pub saliency: Option<Tensor>,
}

/// A network whose activations can be read.
#[derive(Debug)]
pub struct HookedModel {
    origin: String,
    program: RawProgram,
    /// What follows the final excitation, if it is asked for and the class scores depend on
    /// nothing else.
    head: Option<RawProgram>,
    graph: Graph,
    selection: Selection,
    saliency: Option<(Method, ValueId)>,
    /// The class of the saliency; the top class of each image if there is none.
    target: Option<i64>,
    scores: ClassScores,
    entry: Option<Entry>,
    batching: Batching,
    size: Size,
    device: Device,
    precision: Precision,
}

impl HookedModel {
    /// Hooks `network` for images of `size`.
    ///
    /// # Errors
    /// Returns an error if the network cannot take such images, returns no class scores `[N,K]`,
    /// has nothing to hook, or has an operator that `hooks.saliency` has no rule for. An unknown
    /// layer is a usage error.
    pub fn new(network: &NetworkGraph, size: Size, hooks: &Hooks) -> Result<HookedModel> {
        HookedModel::compile(network, size, hooks, hooks.precision.execution())
            .with_context(|| network.origin.clone())
    }

    /// As [`HookedModel::new`], but runs the operators of the graph one by one in float32. Tests
    /// compare optimised networks with it.
    #[doc(hidden)]
    pub fn new_plain(network: &NetworkGraph, size: Size, hooks: &Hooks) -> Result<Self> {
        HookedModel::compile(network, size, hooks, Execution::Plain)
            .with_context(|| network.origin.clone())
    }

    fn compile(
        network: &NetworkGraph,
        size: Size,
        hooks: &Hooks,
        execution: Execution,
    ) -> Result<HookedModel> {
        let graph = network.describe(size, hooks.channels)?;
        let scores = ClassScores::find(&graph, &hooks.scores)?;
        let layer = hooks.layer.as_deref();
        let mut selection = hooks
            .rule
            .select(&graph, &scores, layer, hooks.upsampling)?;
        if let Some(fixed) = network.fixed_size.filter(|&fixed| fixed != size) {
            let text = format!(
                "the network was exported for images of {fixed} pixels; sizes that its file has as constants do not follow {size}"
            );
            let remark = Remark::warning(text).with_hint(Hint::ImageSize);
            selection.remarks.push(remark);
        }
        let reading = match selection.upsampling {
            Upsampling::Product => Some(Reading::ChannelMean),
            Upsampling::Bilateral => Some(Reading::SignedSums),
            Upsampling::Bilinear | Upsampling::None => None,
        };
        let mut outputs: Vec<Output> = scores
            .values()
            .map(|value| Output::new(value, Reading::Whole))
            .collect();
        let excitation = Output::of(&graph, selection.excitation, Reading::Whole);
        let head = match hooks.scores_of_features {
            true => network.raw.head(&excitation, &outputs).ok(),
            false => None,
        };
        if hooks.scores_of_features && head.is_none() {
            selection.remarks.push(Remark::note(format!(
                "the class scores also depend on layers that bypass '{}', so the groups of places have no class names",
                graph.name(selection.excitation)
            )));
        }
        outputs.push(excitation);
        if let Some(reading) = reading {
            let guides = selection.guides.iter();
            outputs.extend(guides.map(|&guide| Output::of(&graph, guide, reading)));
        }
        let saliency = hooks.saliency.as_ref();
        let tap = saliency.map(|hook| gradient_tap(&graph, &scores, &selection, hook));
        let tap = tap.transpose()?;
        let layer = tap.as_ref().map(|tap| tap.value as ValueId);
        if let Some(layer) = layer
            && !graph.covers_the_same(layer, selection.excitation)
        {
            let text = format!(
                "the saliency at '{}' covers another part of the image than the features, so it does not lie on the map exactly",
                graph.name(layer)
            );
            selection.remarks.push(Remark::warning(text));
        }
        let read: Vec<(ValueId, usize)> = outputs
            .iter()
            .map(|output| output.value as ValueId)
            .map(|value| {
                (
                    value,
                    graph.layout(value).map_or(0, |layout| layout.batch()),
                )
            })
            .collect();
        let built_in = network.built_in_batch(&graph, &read, size);
        Ok(HookedModel {
            origin: network.origin.clone(),
            program: network.raw.program(&outputs, tap.as_ref(), execution)?,
            head,
            saliency: saliency.map(|hook| hook.method).zip(layer),
            target: None,
            scores,
            entry: Entry::find(network, &graph, size),
            batching: Batching::new(&graph, built_in, hooks.precision, hooks.seed)?,
            graph,
            selection,
            size,
            device: network.device,
            precision: hooks.precision,
        })
    }

    /// A batch in memory that a GPU reads by itself while the processor goes on; the batch itself
    /// if the network runs on the CPU, or if there is no such memory.
    pub fn staged(&self, batch: &Tensor) -> Tensor {
        match self.device {
            Device::Cpu => None,
            _ => pinned(batch).ok(),
        }
        .unwrap_or_else(|| batch.shallow_clone())
    }

    /// Runs the network on `[N,C,H,W]` float32 images and reads its activations. A GPU may still
    /// compute them when this returns.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line if an operator fails.
    pub fn forward(&self, batch: &Tensor) -> Result<Excitations> {
        let tensors = self.batching.run(batch, |images| self.run(images));
        let is_batch = batch.size()[0] > 1;
        let tensors = tensors.map_err(|error| match is_lack_of_memory(&error) {
            true if is_batch => hinted(error.to_string(), Hint::BatchSize),
            _ => error,
        });
        let mut tensors =
            tensors.with_context(|| format!("{}: running the network", self.origin))?;
        let saliency = self.saliency.and_then(|_| tensors.pop());
        let mut tensors = tensors.into_iter();
        let (Some(logits), Some(excitation)) = (tensors.next(), tensors.next()) else {
            bail!("{}: it returned nothing", self.origin);
        };
        Ok(Excitations {
            logits,
            excitation,
            guides: tensors.collect(),
            saliency,
        })
    }

    /// The class scores `[n,K]` of given final excitations `[n,C,h,w]`, in float32: what follows
    /// the hooked layer runs on them. `None` if the class scores also depend on earlier layers, or
    /// if it was not asked for.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line if an operator fails.
    pub fn scores_of(&self, excitations: &Tensor) -> Result<Option<Tensor>> {
        let Some(head) = &self.head else {
            return Ok(None);
        };
        let made = self.batching.run(excitations, |batch| {
            let images = batch.size()[0];
            let tensors = head.run(&batch.f_to_device(self.device).map_err(plain)?)?;
            let scores = self.scores.assemble(&tensors, images)?;
            let scores = scores.detach().f_to_device(Device::Cpu).map_err(plain)?;
            Ok(vec![scores.f_to_kind(Kind::Float).map_err(plain)?])
        });
        let mut made = made.with_context(|| format!("{}: running its last layers", self.origin))?;
        Ok(made.pop())
    }

    /// The outputs of the program, in float32; the last one is the saliency, if it is computed.
    fn run(&self, batch: &Tensor) -> Result<Vec<Tensor>> {
        let images = batch.size()[0];
        let batch = batch.f_to_device_(self.device, batch.kind(), true, false);
        let batch = batch.map_err(plain)?;
        let mut tensors = self.program.run(&batch)?;
        let others = tensors.split_off(self.scores.parts.len().min(tensors.len()));
        tensors = vec![self.scores.assemble(&tensors, images)?];
        tensors.extend(others);
        if let Some((method, layer)) = self.saliency
            && let Some(activation) = tensors.pop()
        {
            let gradient = self.gradient(&tensors[0], &activation)?;
            let upright = |tensor: &Tensor| match self.graph.layout(layer) {
                Some(layout) => layout.upright(tensor),
                None => Ok(tensor.shallow_clone()),
            };
            let (activation, gradient) = (upright(&activation.detach())?, upright(&gradient)?);
            tensors.push(method.saliency(&activation, &gradient));
        }
        for tensor in &mut tensors {
            *tensor = tensor.detach().f_to_kind(Kind::Float).map_err(plain)?;
        }
        for tensor in &tensors {
            let size = tensor.size();
            ensure!(
                size.first() == Some(&images),
                "for {images} images it returned {size:?}"
            );
        }
        Ok(tensors)
    }

    /// The gradient, or the winning probability, of the target class at an activation,
    /// `[N,C,h,w]`.
    fn gradient(&self, logits: &Tensor, activation: &Tensor) -> Result<Tensor> {
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
        let gradient = gradients.into_iter().next().filter(Tensor::defined);
        gradient.ok_or_else(|| {
            let layer = self.saliency_name().unwrap_or_default();
            let message = format!("no gradient of the class scores reaches layer '{layer}'");
            hinted(message, Hint::SaliencyLayer)
        })
    }

    /// Computes the saliency of this class in every image, instead of each image's own top class.
    ///
    /// # Errors
    /// Returns a usage error if the network has no such class.
    pub fn set_target(&mut self, class: usize) -> Result<()> {
        let target = i64::try_from(class).unwrap_or(i64::MAX);
        if target >= self.scores.classes() {
            return Err(no_class(class, self.classes()));
        }
        self.target = Some(target);
        Ok(())
    }

    /// The number of classes, K; 2 if the network has one score.
    pub fn classes(&self) -> usize {
        self.scores.classes() as usize
    }

    /// The names of the classes, if the network returns a named tensor for each.
    pub fn class_names(&self) -> Option<&[String]> {
        self.scores.names.as_deref()
    }

    /// What the graph says about the class scores.
    pub fn evidence(&self) -> Evidence {
        self.scores.evidence
    }

    /// What the network does to the colours of its input first, if anything.
    pub fn entry(&self) -> Option<&Entry> {
        self.entry.as_ref()
    }

    /// Height and width of its input.
    pub fn input_size(&self) -> Size {
        self.size
    }

    /// The number of channels of its input.
    pub fn channels(&self) -> i64 {
        self.graph.channels()
    }

    /// The arithmetic that was asked for.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The device that it runs on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Bytes of the largest tensor that it computes for one image.
    pub fn largest_tensor(&self) -> usize {
        self.graph.largest_tensor() as usize * Kind::Float.elt_size_in_bytes()
    }

    /// Why it computes without libtorch's faster operators, if libtorch refuses to use them.
    pub fn unoptimised(&self) -> Option<String> {
        self.program.unoptimised()
    }

    /// How its features are upsampled.
    pub fn upsampling(&self) -> Upsampling {
        self.selection.upsampling
    }

    /// Whether TorchPRISM's rule selected its layers.
    pub fn is_torchprism(&self) -> bool {
        self.selection.is_torchprism
    }

    /// The part of the image that the features cover.
    pub fn region(&self) -> &Region {
        &self.selection.region
    }

    /// What was assumed, and what the map does not show; also what the images so far have shown.
    pub fn remarks(&self) -> Vec<Remark> {
        let scores = self.scores.remark.iter();
        let known = scores.chain(&self.selection.remarks).cloned();
        known.chain(self.batching.remarks()).collect()
    }

    /// Every layer that can be hooked, in execution order.
    pub fn layers(&self) -> Vec<Layer> {
        let layer = |node: &Node| {
            let value = self.graph.layer_output(node)?;
            Some(Layer {
                name: node.name.clone(),
                operator: node.short_name().to_string(),
                shape: self.graph.activation(value)?,
                role: match value {
                    _ if value == self.selection.excitation => Role::Excitation,
                    _ if self.selection.guides.contains(&value) => Role::Guide,
                    _ => Role::None,
                },
            })
        };
        self.graph.nodes.iter().filter_map(layer).collect()
    }

    /// The name of the layer whose output is the final excitation.
    pub fn excitation_name(&self) -> &str {
        self.graph.name(self.selection.excitation)
    }

    /// The name of the layer of the saliency, if it is computed.
    pub fn saliency_name(&self) -> Option<&str> {
        self.saliency.map(|(_, layer)| self.graph.name(layer))
    }

    /// The names of the layers whose outputs are the guides, the shallowest first; `image` for
    /// the image itself.
    pub fn guide_names(&self) -> Vec<&str> {
        let guides = self.selection.guides.iter();
        guides.map(|&guide| self.graph.name(guide)).collect()
    }
}

/// The layer of a saliency, and the rules of the operators after it.
fn gradient_tap(
    graph: &Graph,
    scores: &ClassScores,
    selection: &Selection,
    hook: &SaliencyHook,
) -> Result<GradientTap> {
    let values: Vec<ValueId> = scores.values().collect();
    let layer = match &hook.layer {
        Some(name) => find_layer(graph, name)?,
        None => selection.excitation,
    };
    if scores.evidence.form == ScoresForm::Binary && hook.method == Method::ExcitationBackprop {
        let text = "excitation backpropagation without contrast starts at a class, but the network has one score for two classes";
        return Err(usage_hinted(text, Hint::GradCam));
    }
    let name = graph.name(layer);
    let after = graph.descendants(layer);
    if !values.iter().any(|value| after.contains(value)) {
        let message = format!("the class scores do not depend on layer '{name}'");
        return Err(usage_hinted(message, Hint::SaliencyLayer));
    }
    let tap = |layer| {
        let rules = match hook.method {
            Method::GradCam => Vec::new(),
            method => node_rules(graph, &values, layer, method.is_contrastive())?,
        };
        let value = layer as i64;
        Ok(GradientTap { value, rules })
    };
    let found = tap(layer)?;
    if !contrast_vanishes(graph, &found.rules, layer) {
        return Ok(found);
    }
    match (&hook.layer, selection.guides.last()) {
        (None, Some(&guide)) => tap(guide),
        _ => Err(usage_hinted(
            format!(
                "contrastive excitation backpropagation is zero at layer '{name}' for any image, because a 1x1 convolution of it makes the class scores"
            ),
            Hint::EarlierSaliencyLayer,
        )),
    }
}

impl Output {
    /// A value as it is.
    pub fn new(value: ValueId, reading: Reading) -> Output {
        const AS_IT_IS: RawLayout = RawLayout {
            permuted: 0,
            space: -1,
            height: 0,
            width: 0,
            order: [0; 4],
            mirrored: [0; 2],
        };
        Output {
            value: value as i64,
            reading,
            layout: AS_IT_IS,
        }
    }

    /// An activation as `[N,C,h,w]`, upright.
    pub fn of(graph: &Graph, value: ValueId, reading: Reading) -> Output {
        let made = Output::new(value, reading);
        let layout = graph
            .layout(value)
            .map_or(made.layout, |layout| layout.raw());
        Output { layout, ..made }
    }
}

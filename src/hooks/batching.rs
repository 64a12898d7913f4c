//! How images are put into batches, so that what a network says of an image does not depend on
//! the images beside it.
//!
//! A network may have a batch size built in, use the statistics of the batch, or draw random
//! numbers. The graph says whether any of this is possible. If so, a few more passes of the
//! first batch decide.

use std::cell::{OnceCell, RefCell};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail};
use tch::{Kind, Tensor};

use super::graph::{Graph, Node};
use super::messages::plain;
use super::model::Precision;
use super::operators::{Kind as Computes, Property};
use crate::error::Hint;
use crate::names::counted;
use crate::remarks::Remark;

/// The same program on the same images repeats its values up to the order of sums on a GPU.
const REPEATED: f64 = 1e-5;

/// Held by whoever draws random numbers: libtorch has one generator for the whole process, so a
/// network that draws on another thread would change what a seed gives.
static GENERATOR: Mutex<()> = Mutex::new(());

/// Waits until no other thread draws random numbers for a network.
pub(super) fn hold_generator() -> MutexGuard<'static, ()> {
    GENERATOR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rules for the batches of one network.
#[derive(Debug)]
pub struct Batching {
    /// The batch size that is built in.
    built_in: Option<i64>,
    /// Whether an operator uses the statistics of the batch by design.
    statistics: bool,
    /// Whether two passes of the same images may differ.
    may_vary: bool,
    /// Whether an image may change the scores of another one.
    may_mix: bool,
    /// The largest difference between an image alone and in a batch that is rounding, in units
    /// of the largest value.
    rounding: f64,
    seed: i64,
    way: OnceCell<Way>,
    remarks: RefCell<Vec<Remark>>,
}

/// What was decided.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// Images of a pass; all that there are if none.
    images: Option<i64>,
    /// Images to which a pass is filled up, with copies of its last one.
    filled_to: i64,
    /// The seed of each pass.
    seed: Option<i64>,
}

impl Batching {
    /// For the network of `graph`, in which the batch size `built_in` may be a constant.
    pub fn new(
        graph: &Graph,
        built_in: Option<i64>,
        precision: Precision,
        seed: i64,
    ) -> Result<Batching> {
        if graph.has_batch_statistics {
            refuse_single_values(graph)?;
        }
        let mut remarks = Vec::new();
        if !graph.put_into_inference.is_empty() {
            let operators = counted(&graph.put_into_inference).join(", ");
            remarks.push(Remark::note(format!(
                "the network was exported in training mode; it is put into inference mode ({operators})"
            )));
        }
        if graph.has_batch_statistics {
            remarks.push(Remark::note(
                "batch-norms use the statistics of the batch, because none are stored: images go one at a time",
            ));
        }
        if rounds_by_the_batch(graph) {
            remarks.push(Remark::note(
                "layers with 8-bit weights round what they read by the range of the batch: images go one at a time",
            ));
        }
        Ok(Batching {
            built_in,
            statistics: graph.has_batch_statistics || rounds_by_the_batch(graph),
            may_vary: !graph.varying.is_empty() || has_unknown(graph),
            may_mix: may_mix(graph),
            rounding: match precision {
                Precision::F32 => 1e-3,
                Precision::Bf16 | Precision::F16 => 0.05,
            },
            seed,
            way: OnceCell::new(),
            remarks: RefCell::new(remarks),
        })
    }

    /// What was found so far.
    pub fn remarks(&self) -> Vec<Remark> {
        self.remarks.borrow().clone()
    }

    /// Runs `pass`, which takes a batch to tensors with an entry for each image, on `images`.
    pub fn run(
        &self,
        images: &Tensor,
        pass: impl Fn(&Tensor) -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        let decided = self.way.get();
        let _held = decided
            .map_or(self.may_vary, |way| way.seed.is_some())
            .then(hold_generator);
        let way = match decided {
            Some(way) => *way,
            None => {
                let decided = self.decide(images, &pass)?;
                *self.way.get_or_init(|| decided)
            }
        };
        let step = way.images.unwrap_or(images.size()[0]);
        let parts = images.split(step.max(1), 0);
        let mut made = parts.iter().map(|part| way.pass(part, &pass));
        match parts.len() {
            1 => made.next().unwrap_or_else(|| bail!("there are no images")),
            _ => joined(&made.collect::<Result<Vec<_>>>()?),
        }
    }

    fn decide(
        &self,
        images: &Tensor,
        pass: &impl Fn(&Tensor) -> Result<Vec<Tensor>>,
    ) -> Result<Way> {
        let one = self.statistics.then_some(1);
        let mut way = Way {
            images: one.or(self.built_in),
            filled_to: self.built_in.unwrap_or(1),
            seed: None,
        };
        let count = images.size()[0];
        let images = images.narrow(0, 0, way.images.unwrap_or(count).min(count));
        let first = images.narrow(0, 0, 1);
        if self.may_vary
            && let Some(difference) = self.variation(&way, &images, pass)?
        {
            way.images = Some(1);
            way.seed = Some(self.seed);
            let text = format!(
                "the network is random: two passes of the same images gave scores that differ by {}; each image is seeded alike",
                rounded(difference)
            );
            self.remark(Remark::warning(text).with_hint(Hint::Seed));
        }
        if way.images != Some(1)
            && (self.may_mix || way.filled_to > 1)
            && self.mixes(&way, &first, pass)?
        {
            way.images = Some(1);
            self.remark(Remark::note(
                "the scores of an image depend on the images beside it in a batch: images go one at a time",
            ));
        }
        // A batch of copies stands for one image only if all of its rows are equal.
        if way.filled_to > 1 && way.images == Some(1) && way.seed.is_none() {
            let same = pass(&first.repeat([way.filled_to, 1, 1, 1]))?;
            let off = difference(&rows(&same, 0), &rows(&same, way.filled_to - 1));
            if off.relative > self.rounding {
                bail!(
                    "its batch size of {} is built in, and its images depend on each other; export it again with a dynamic batch, or a batch of 1",
                    way.filled_to
                );
            }
        }
        match self.built_in {
            Some(1) if count > 1 => self.remark(Remark::note(
                "the batch size 1 is built into the network: images go one at a time",
            )),
            Some(size) if size > 1 => self.remark(Remark::note(format!(
                "the batch size {size} is built into the network: every batch is filled up to {size} images"
            ))),
            _ => {}
        }
        Ok(way)
    }

    /// The difference of the scores in two passes of the same images, if it is more than
    /// rounding.
    fn variation(
        &self,
        way: &Way,
        images: &Tensor,
        pass: &impl Fn(&Tensor) -> Result<Vec<Tensor>>,
    ) -> Result<Option<f64>> {
        tch::manual_seed(self.seed);
        let off = difference(&way.pass(images, pass)?, &way.pass(images, pass)?);
        Ok((off.relative > REPEATED).then_some(off.scores))
    }

    /// Whether an image at the beginning or the end of a batch gives something else than alone.
    fn mixes(
        &self,
        way: &Way,
        image: &Tensor,
        pass: &impl Fn(&Tensor) -> Result<Vec<Tensor>>,
    ) -> Result<bool> {
        // They have other means, larger maxima and smaller minima.
        let others = [image * 1.8 + 1.3, image * -2.1 - 0.9];
        let count = self.built_in.unwrap_or(2);
        let alone = way.pass(image, pass)?;
        for (place, other) in [(0, &others[0]), (count - 1, &others[1])] {
            let mut batch = vec![other; count as usize];
            batch[place as usize] = image;
            let beside = pass(&Tensor::f_cat(&batch, 0).map_err(plain)?)?;
            if difference(&rows(&beside, place), &alone).relative > self.rounding {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn remark(&self, remark: Remark) {
        self.remarks.borrow_mut().push(remark);
    }
}

impl Way {
    fn pass(
        self,
        images: &Tensor,
        pass: &impl Fn(&Tensor) -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        if let Some(seed) = self.seed {
            tch::manual_seed(seed);
        }
        let count = images.size()[0];
        let missing = self.filled_to - count;
        if missing <= 0 {
            return pass(images);
        }
        let copies = images.narrow(0, count - 1, 1).repeat([missing, 1, 1, 1]);
        let filled = Tensor::f_cat(&[images, &copies], 0).map_err(plain)?;
        let mut made = pass(&filled)?;
        narrow(&mut made, count);
        Ok(made)
    }
}

/// The first entries of each tensor.
fn narrow(tensors: &mut [Tensor], count: i64) {
    for tensor in tensors {
        *tensor = tensor.narrow(0, 0, count);
    }
}

/// The entry of one image in each tensor.
fn rows(tensors: &[Tensor], at: i64) -> Vec<Tensor> {
    let row = |tensor: &Tensor| tensor.narrow(0, at, 1);
    tensors.iter().map(row).collect()
}

fn joined(parts: &[Vec<Tensor>]) -> Result<Vec<Tensor>> {
    let join = |index: usize| {
        let tensors: Vec<&Tensor> = parts.iter().map(|part| &part[index]).collect();
        Tensor::f_cat(&tensors, 0).map_err(plain)
    };
    (0..parts.first().map_or(0, Vec::len)).map(join).collect()
}

struct Difference {
    /// The largest of the class scores.
    scores: f64,
    /// The largest of class scores and final excitation, in units of the largest value.
    relative: f64,
}

/// Of two passes. Values that are not numbers do not differ.
fn difference(a: &[Tensor], b: &[Tensor]) -> Difference {
    let largest = |tensor: &Tensor| match tensor.numel() {
        0 => 0.0,
        _ => tensor.abs().max().to_kind(Kind::Double).double_value(&[]),
    };
    let off: Vec<(f64, f64)> = (a.iter().zip(b).take(2))
        .map(|(a, b)| (largest(&(a - b)), largest(a)))
        .collect();
    let relative = off.iter().map(|(off, scale)| off / scale.max(1e-30));
    Difference {
        scores: off.first().map_or(0.0, |off| off.0),
        relative: relative.filter(|off| !off.is_nan()).fold(0.0, f64::max),
    }
}

/// A difference in two digits.
fn rounded(value: f64) -> String {
    match value >= 0.01 {
        true => format!("{value:.2}"),
        false => format!("{value:.1e}"),
    }
}

/// Batch-norms of one value per channel make it zero, whatever the image is.
fn refuse_single_values(graph: &Graph) -> Result<()> {
    let images = graph.images();
    for node in &graph.nodes {
        let in_training = node.argument("training") == Some(&[1][..]);
        let sizes = node.inputs.first().and_then(|&input| graph.sizes(input));
        if let Some(&[_, channels, ..]) = sizes.filter(|_| in_training)
            && sizes.map_or(0, |sizes| sizes.iter().product::<i64>()) == images * channels
        {
            bail!(
                "the batch-norm '{}' uses the statistics of the batch, but an image gives it one value per channel; export the network in inference mode, with running statistics",
                node.name
            );
        }
    }
    Ok(())
}

fn rounds_by_the_batch(graph: &Graph) -> bool {
    let mut nodes = graph.nodes.iter();
    nodes.any(|node| node.has(Property::RoundsByTheBatch))
}

/// Whether an operator is not known, or contains other operators.
fn has_unknown(graph: &Graph) -> bool {
    let from_image = graph.descendants(graph.input);
    graph.nodes.iter().any(|node| {
        let reads_image = node.inputs.iter().any(|input| from_image.contains(input));
        reads_image && (node.is_block() || node.is_foreign())
    })
}

fn reads_images_apart(graph: &Graph, node: &Node) -> bool {
    let input = node.inputs.first();
    input.is_some_and(|&input| graph.has_batch_axis(input))
}

/// Whether an operator may combine values of several images: it is not known, it names the
/// first axis, or it reduces without naming axes.
fn may_mix(graph: &Graph) -> bool {
    let from_image = graph.descendants(graph.input);
    graph.nodes.iter().any(|node| {
        let mut inputs = node.inputs.iter();
        if !inputs.any(|input| from_image.contains(input)) {
            return false;
        }
        match node.kind() {
            Computes::Container | Computes::FillContainer | Computes::Item => return false,
            Computes::Size | Computes::Count => return false,
            Computes::Unknown => return true,
            // Any letter may stand for the images.
            _ if node.short_name() == "einsum" => return true,
            _ => {}
        }
        let mut tensors = node
            .inputs
            .iter()
            .filter(|input| from_image.contains(input))
            .filter_map(|&input| graph.sizes(input));
        // Tensors in a list have the rank of what is made of them.
        let made = node.outputs.first().and_then(|&output| graph.sizes(output));
        let Some(rank) = tensors.next().or(made).map(|sizes| sizes.len() as i64) else {
            return false; // numbers
        };
        let products = node.has(Property::Weights) && tensors.next().is_some();
        let axes = ["dim", "dims", "dim0", "dim1"].iter();
        let mut axes = axes.filter_map(|name| node.argument(name));
        match node.kind() {
            Computes::Reduction if node.argument("dim").is_none() => true,
            // Its input may hold all images in one row.
            Computes::Reduction if !reads_images_apart(graph, node) => true,
            Computes::Permute => axes.next().is_none_or(|dims| dims.first() != Some(&0)),
            _ => {
                node.is_block()
                    || products && rank < 3
                    || axes.any(|axes| axes.iter().any(|&axis| axis == 0 || axis == -rank))
            }
        }
    })
}

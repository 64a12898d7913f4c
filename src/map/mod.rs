//! From excitations to colours: the mathematics of PRISM.
//!
//! A [`Collector`] takes the excitations of a batch chunk by chunk. It accumulates whatever
//! depends on all images, so that the map does not depend on the chunks. [`Maps`] then computes
//! the map of each image.

mod bilateral;
mod components;
mod correlation;
mod groups;
mod normalise;
mod pca;
mod product;
mod quantise;
mod sample;

use std::ops::Range;

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

pub use bilateral::{Bilateral, stored};
pub use components::Components;
pub use groups::Groups;
pub use normalise::{Norm, NormAccumulator};
pub use pca::{Axes, COMPONENTS, Pca, PcaAccumulator, svd_flip};
pub use product::{gradual_extrapolation, resize};
pub use quantise::{COLOURS, ColourSet, FeatureFilter, colours, quantise, select};

use correlation::rank_correlation;
use groups::Grouping;
use quantise::{codes, colour_of, membership, painted};
use sample::Sample;

pub use crate::convert::to_picture;
use crate::hooks::{Excitations, HookedModel, Upsampling};
use crate::saliency;
use crate::size::Size;
use crate::spool::{Sequence, Spool};

/// Images whose maps are computed together in a pass over all images.
const CHUNK: usize = 8;

pub(crate) const NOT_FINITE: &str =
    "the network's activations are not finite (NaN or infinity); are its weights?";

/// Returns an error if a value is NaN or infinite. One sum detects all of them.
fn ensure_finite(tensor: &Tensor) -> Result<()> {
    ensure_finite_sums(&tensor.f_sum(Kind::Double)?)
}

fn ensure_finite_sums(sums: &Tensor) -> Result<()> {
    let sums = Vec::<f64>::try_from(sums.f_to_device(Device::Cpu)?.f_view([-1])?)?;
    ensure!(sums.iter().all(|sum| sum.is_finite()), NOT_FINITE);
    Ok(())
}

/// How excitations become maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapOptions {
    /// If set, the features are quantised and these colours selected.
    pub keep: Option<FeatureFilter>,
    /// How the features are upsampled.
    pub upsampling: Upsampling,
    /// Whether places are grouped by their features.
    pub groups: bool,
    /// Whether the leading components of all places are kept.
    pub components: bool,
    /// Height and width of the part of the image that the features cover.
    pub size: Size,
    /// Whether the layers are those of TorchPRISM's rule. Maps that are not upsampled are then
    /// TorchPRISM's.
    pub is_torchprism: bool,
}

impl MapOptions {
    /// The maps of a network, without groups and leading components.
    pub fn of(model: &HookedModel, keep: Option<FeatureFilter>) -> MapOptions {
        MapOptions {
            keep,
            groups: false,
            components: false,
            upsampling: model.upsampling(),
            size: model.region().size(),
            is_torchprism: model.is_torchprism(),
        }
    }

    /// Whether the maps are normalised after all other steps, as in TorchPRISM. Otherwise only the
    /// features are, so that a colour stays what it is.
    pub fn normalises_last(&self) -> bool {
        match self.upsampling {
            Upsampling::Product => true,
            Upsampling::None => self.is_torchprism,
            Upsampling::Bilateral | Upsampling::Bilinear => false,
        }
    }
}

/// What is stored of a batch. If a GPU makes it, it is on its way to the CPU's memory.
#[derive(Debug)]
pub struct Reduced {
    logits: Tensor,
    excitation: Tensor,
    guides: Vec<Tensor>,
    saliency: Option<Tensor>,
    /// The sums of all of them, on the device of the network, copied last.
    sums: Tensor,
}

impl Reduced {
    /// Waits until a GPU has made it.
    ///
    /// # Errors
    /// Returns an error if a value is not finite, or the GPU failed.
    pub fn wait(&self) -> Result<()> {
        ensure_finite_sums(&self.sums)
    }
}

/// Guides with those of one size as one, whose channels follow each other. They upsample alike,
/// and a GPU has less to do for a few images than to take its orders.
fn grouped(guides: Vec<Tensor>) -> Result<Vec<Tensor>> {
    let mut groups: Vec<Vec<Tensor>> = Vec::new();
    for guide in guides {
        let size = Size::of(&guide);
        match (groups.iter_mut()).find(|group| Size::of(&group[0]) == size) {
            Some(group) => group.push(guide),
            None => groups.push(vec![guide]),
        }
    }
    let groups = groups.iter().map(|group| Tensor::f_cat(group, 1));
    Ok(groups.collect::<Result<_, _>>()?)
}

/// A copy in the CPU's memory, which a GPU makes when it has computed the tensor; a tensor of the
/// CPU as it is.
fn sent(tensor: &Tensor) -> Result<Tensor> {
    match tensor.device() {
        Device::Cpu => Ok(tensor.shallow_clone()),
        _ => Ok((tensor.f_contiguous()?).f_to_device_(Device::Cpu, tensor.kind(), true, false)?),
    }
}

/// Collects the excitations of a batch, in order.
#[derive(Debug)]
pub struct Collector {
    options: MapOptions,
    spool: Spool,
    pca: Option<PcaAccumulator>,
    excitation: Sequence,
    guides: Vec<Sequence>,
    logits: Vec<Tensor>,
    saliency: Vec<Tensor>,
}

impl Collector {
    /// A collector for these maps that stores tensors in memory.
    pub fn new(options: MapOptions) -> Collector {
        Collector::with_spool(options, &Spool::default())
    }

    /// A collector for these maps that stores tensors in `spool`.
    pub fn with_spool(options: MapOptions, spool: &Spool) -> Collector {
        Collector {
            options,
            spool: spool.clone(),
            pca: None,
            excitation: Sequence::default(),
            guides: Vec::new(),
            logits: Vec::new(),
            saliency: Vec::new(),
        }
    }

    /// Adds the excitations of the next images.
    ///
    /// # Errors
    /// Returns an error if their shapes differ from the earlier ones, a value is not finite, or
    /// they cannot be stored.
    pub fn add(&mut self, excitations: Excitations) -> Result<()> {
        let reduced = self.reduce(excitations)?;
        reduced.wait()?;
        self.store(reduced)
    }

    /// Reduces excitations to what is stored, and adds up what depends on all images, on the
    /// device of the network. A GPU may still compute when this returns. If memory is not enough,
    /// nothing is added.
    ///
    /// # Errors
    /// Returns an error if their shapes differ from the earlier ones, or libtorch fails.
    pub fn reduce(&mut self, excitations: Excitations) -> Result<Reduced> {
        let Excitations {
            logits,
            excitation,
            mut guides,
            saliency,
        } = excitations;
        if self.options.upsampling == Upsampling::Bilateral && excitation.device() != Device::Cpu {
            guides = grouped(guides)?;
        }
        let every = [&logits, &excitation].into_iter();
        let sums = (every.chain(&guides).chain(&saliency)).map(|tensor| tensor.f_sum(Kind::Double));
        let sums = Tensor::f_stack(&sums.collect::<Result<Vec<_>, _>>()?, 0)?;
        if self.options.upsampling == Upsampling::Bilateral {
            for guide in &mut guides {
                *guide = stored(guide)?;
            }
        }
        let reduced = Reduced {
            logits: sent(&logits)?,
            excitation: sent(&excitation)?,
            guides: guides.iter().map(sent).collect::<Result<_>>()?,
            saliency: saliency.as_ref().map(sent).transpose()?,
            sums,
        };
        self.pca
            .get_or_insert_with(|| PcaAccumulator::new(excitation.size()[1]))
            .add_finite(&excitation)?;
        Ok(reduced)
    }

    /// Stores what [`reduce`](Collector::reduce) made of the next images, after
    /// [`wait`](Reduced::wait).
    ///
    /// # Errors
    /// Returns an error if their shapes differ from the earlier ones, or they cannot be stored.
    pub fn store(&mut self, reduced: Reduced) -> Result<()> {
        let is_sent = reduced.sums.device() != Device::Cpu;
        let kept = |tensor: Tensor| -> Result<Tensor> {
            if !is_sent {
                return Ok(tensor);
            }
            let mut own = tensor.f_empty_like()?; // memory that a GPU reads is scarce
            own.f_copy_(&tensor)?;
            Ok(own)
        };
        self.excitation.push(&self.spool, &reduced.excitation)?;
        self.guides
            .resize_with(reduced.guides.len(), Sequence::default);
        for (sequence, guide) in self.guides.iter_mut().zip(&reduced.guides) {
            sequence.push(&self.spool, guide)?;
        }
        self.logits.push(kept(reduced.logits)?);
        self.saliency
            .extend(reduced.saliency.map(kept).transpose()?);
        Ok(())
    }

    /// Fits the components to all images and computes the features.
    ///
    /// # Errors
    /// Returns an error if there is no image or the decomposition fails.
    pub fn finish(self) -> Result<Maps> {
        self.finish_with(None)
    }

    /// Computes the features with the components and ranges of `basis`, if given, so that a
    /// colour has the same meaning as in the run of the basis.
    ///
    /// # Errors
    /// Returns an error if there is no image, the decomposition fails, or the basis has other
    /// channels.
    pub fn finish_with(self, basis: Option<Basis>) -> Result<Maps> {
        let options = self.options;
        let pca = self.pca.unwrap_or_else(|| PcaAccumulator::new(0));
        let is_given = basis.is_some();
        let needs_leading = options.groups || options.components;
        let (mut basis, variance_ratio, leading) = match basis {
            Some(basis) => {
                let ratio = pca.variance_along(&basis.axes)?;
                let leading = match needs_leading {
                    true => Some(pca.finish()?.leading),
                    false => None,
                };
                (basis, ratio, leading)
            }
            None => {
                let pca = pca.finish()?;
                let leading = needs_leading.then_some(pca.leading);
                (Basis::without_ranges(pca.axes), pca.variance_ratio, leading)
            }
        };

        let Scores {
            mut features,
            sample,
            groups,
            kept,
        } = scores(
            &basis.axes,
            leading.as_ref(),
            self.excitation,
            &options,
            &self.spool,
        )?;
        let mut signs = None;
        if !is_given {
            let found = svd_flip(&features);
            features *= found.reshape([1, -1, 1, 1]);
            basis.axes.flip_signs(&found);
            basis.features = norm_of(&features);
            signs = Some(found);
        }
        let components = leading
            .zip(kept)
            .map(|(axes, scores)| Components::new(axes, scores, signs.as_ref()));

        let normalised = basis.features.apply(&features);
        let mut shown = match options.normalises_last() {
            true => features.shallow_clone(),
            false => normalised.shallow_clone(),
        };
        let colours_of_features = match options.keep {
            Some(_) => quantise(&normalised),
            None => normalised,
        };
        let colour_correlation = rank_correlation(&sample, &colours_of_features)?;
        let (mut shared, mut any) = (ColourSet::ALL, ColourSet::NONE);
        if let Some(filter) = options.keep {
            shown = colours_of_features;
            let sets = colours(&shown)?;
            (shared, any) = (ColourSet::shared(&sets), ColourSet::any(&sets));
            if options.normalises_last() {
                shown = select(&shown, shared, filter);
            }
        }

        let Size { height, width } = Size::of(&features);
        let mut maps = Maps {
            features,
            shown,
            shared,
            any,
            variance_ratio,
            colour_correlation,
            groups,
            components,
            basis,
            logits: Tensor::f_cat(&self.logits, 0)?,
            saliency: match self.saliency.as_slice() {
                [] => None,
                parts => Some(Tensor::f_cat(parts, 0)?),
            },
            bilateral: match options.upsampling {
                Upsampling::Bilateral => {
                    let guides = self.guides.iter().map(|guide| guide.shape());
                    let sizes = guides.map(|shape| Size::new(shape[1], shape[2]));
                    Bilateral::new(Size::new(height, width), sizes, options.size)
                }
                _ => None,
            },
            guides: self.guides,
            options,
        };
        if !is_given {
            maps.basis.maps = match options.normalises_last() {
                true => maps.find_norm()?,
                false => maps.basis.features,
            };
        }
        ensure!(maps.basis.maps.is_finite(), NOT_FINITE);
        Ok(maps)
    }
}

/// What the excitations of all images are along the components.
struct Scores {
    /// The first three components, `[N,3,h,w]` float32.
    features: Tensor,
    /// All channels of some places.
    sample: Sample,
    /// Groups of places, if they are asked for.
    groups: Option<Groups>,
    /// The leading components, `[N,d,h,w]` float32, if they are asked for and there are any.
    kept: Option<components::Stored>,
}

/// The scores of all excitations along `axes`, and what is asked for along `leading`.
fn scores(
    axes: &Axes,
    leading: Option<&Axes>,
    excitation: Sequence,
    options: &MapOptions,
    spool: &Spool,
) -> Result<Scores> {
    let (count, shape) = (excitation.len() as i64, excitation.shape());
    // Allocated at once: small tensors between large temporary ones would fragment the heap, by
    // two gigabytes for 5,000 images.
    let size = [count, COMPONENTS, shape[1], shape[2]];
    let features = Tensor::f_zeros(size, (Kind::Float, Device::Cpu))?;
    let cells = (count * shape[1] * shape[2]) as usize;
    let mut sample = Sample::new(cells, correlation::PLACES);
    let mut to_group = Sample::new(cells, groups::PLACES);
    for images in chunks(excitation.len()) {
        let (first, length) = (images.start, images.len() as i64);
        let excitation = excitation.get(images)?;
        sample.add(first, &excitation, axes, |rows| rows)?;
        if let Some(leading) = leading.filter(|_| options.groups) {
            let components = |rows: Tensor| rows.matmul(&leading.components.tr());
            to_group.add(first, &excitation, leading, components)?;
        }
        let scores = axes.project(&excitation);
        features.narrow(0, first as i64, length).copy_(&scores);
    }
    let mut result = Scores {
        features,
        sample,
        groups: None,
        kept: None,
    };
    let Some(leading) = leading else {
        return Ok(result);
    };
    let mut grouping = match options.groups {
        true => Some(Grouping::new(&to_group.rows()?, shape[0])?),
        false => None,
    };
    let mut kept = components::Stored::default();
    let keeps = options.components && leading.components.size()[0] > 0;
    for images in chunks(excitation.len()) {
        let excitation = excitation.get(images)?;
        let components = leading.project(&excitation);
        if let Some(grouping) = &mut grouping {
            grouping.add(&components, &excitation)?;
        }
        if keeps {
            kept.add(spool, leading, &components, &excitation)?;
        }
    }
    result.groups = grouping.map(Grouping::finish).transpose()?;
    result.kept = keeps.then_some(kept);
    Ok(result)
}

/// The images in chunks that fit in memory together.
fn chunks(images: usize) -> impl Iterator<Item = Range<usize>> {
    (0..images)
        .step_by(CHUNK)
        .map(move |start| start..(start + CHUNK).min(images))
}

fn norm_of(features: &Tensor) -> Norm {
    let mut norm = NormAccumulator::default();
    norm.add(features);
    norm.finish()
}

/// The components with their signs and the ranges that are stretched to [0, 1]: with the same
/// basis, colours of several runs have the same meaning.
#[derive(Debug)]
pub struct Basis {
    /// The components.
    pub axes: Axes,
    /// The range of the features.
    pub features: Norm,
    /// The range of the maps; that of the features if they are not normalised last.
    pub maps: Norm,
}

impl Basis {
    /// A basis whose ranges are still to be computed.
    fn without_ranges(axes: Axes) -> Basis {
        let unknown = NormAccumulator::default().finish();
        Basis {
            axes,
            features: unknown,
            maps: unknown,
        }
    }
}

/// The maps of a batch, computed on demand.
#[derive(Debug)]
pub struct Maps {
    /// Scores of the first three components, `[N,3,h,w]` float32, with fixed signs.
    pub features: Tensor,
    /// Share of the variance of each component, `[min(Nhw, C)]`, descending; with a given basis
    /// `[3]`, in the order of the basis.
    pub variance_ratio: Vec<f64>,
    /// How well the colours of the features keep the order of similarity of all channels: the rank
    /// correlation of minus colour distance and cosine similarity, over pairs of up to 400 cells.
    /// `None` if there are too few, or no differences.
    pub colour_correlation: Option<f64>,
    /// Groups of places with similar features, if they are asked for.
    pub groups: Option<Groups>,
    /// The leading components of all places, if they are asked for and not all places are equal.
    pub components: Option<Components>,
    /// Class scores, before a softmax or sigmoid that ends the network, `[N,K]` float32.
    pub logits: Tensor,
    /// Saliency of a class, `[N,1,h',w']` float32, not negative, at the resolution of the hooked
    /// layer.
    pub saliency: Option<Tensor>,
    /// The basis with which a later run has the same colours.
    pub basis: Basis,
    /// What is upsampled: the features or their colours; quantised if there is a filter.
    shown: Tensor,
    /// The quantised colours in every image, if there is a filter.
    shared: ColourSet,
    /// The quantised colours in at least one image, if there is a filter.
    any: ColourSet,
    guides: Vec<Sequence>,
    /// Bilateral upsampling, if there is a finer guide.
    bilateral: Option<Bilateral>,
    options: MapOptions,
}

impl Maps {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.features.size()[0] as usize
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size of the maps.
    pub fn size(&self) -> Size {
        match (self.options.upsampling, self.guides.first()) {
            (Upsampling::Bilateral | Upsampling::Bilinear, _) => self.options.size,
            (Upsampling::Product, Some(guide)) => Size::new(guide.shape()[1], guide.shape()[2]),
            _ => Size::of(&self.features),
        }
    }

    /// Whether pixels can be left out: their colour is NaN then.
    pub fn leaves_out(&self) -> bool {
        let filter = self.options.keep.unwrap_or(FeatureFilter::All);
        filter != FeatureFilter::All && !self.options.normalises_last()
    }

    /// Whether pixels that are left out are black, as in TorchPRISM.
    pub fn blackens(&self) -> bool {
        let filter = self.options.keep.unwrap_or(FeatureFilter::All);
        filter != FeatureFilter::All && self.options.normalises_last()
    }

    /// Whether the maps have blocks of one colour, which must not be smoothed.
    pub fn is_in_blocks(&self) -> bool {
        let is_quantised = self.options.keep.is_some() && !self.options.normalises_last();
        self.options.upsampling == Upsampling::None || is_quantised
    }

    /// Whether no guide is finer than the features, so that bilateral upsampling is bilinear.
    pub fn lacks_guides(&self) -> bool {
        self.options.upsampling == Upsampling::Bilateral && self.bilateral.is_none()
    }

    /// Whether all features are equal, so that the maps are black.
    pub fn is_constant(&self) -> bool {
        self.basis.maps.is_constant()
    }

    /// A note if the filter selects all colours or none.
    pub fn note(&self) -> Option<&'static str> {
        let all_shared = self.shared == self.any;
        let none_shared = self.shared.is_empty();
        match self.options.keep? {
            FeatureFilter::Shared if none_shared && self.leaves_out() => {
                Some("no colour is common to all images, so everything is left out")
            }
            FeatureFilter::Shared if none_shared => {
                Some("no colour is common to all images, so the map of the common ones is black")
            }
            FeatureFilter::Shared if all_shared => {
                Some("every colour is common to all images, so none was left out")
            }
            FeatureFilter::Unique if all_shared && self.leaves_out() => {
                Some("every colour is common to all images, so everything is left out")
            }
            FeatureFilter::Unique if all_shared => {
                Some("every colour is common to all images, so the map of the unique ones is black")
            }
            FeatureFilter::Unique if none_shared => {
                Some("no colour is common to all images, so none was left out")
            }
            _ => None,
        }
    }

    /// The number of channels of a map: red, green and blue, and alpha if there is a saliency.
    pub fn channels(&self) -> usize {
        3 + usize::from(self.saliency.is_some())
    }

    /// The quantised colours of each image, before the filter.
    ///
    /// # Errors
    /// Returns an error if libtorch fails.
    pub fn colours(&self) -> Result<Vec<ColourSet>> {
        colours(&self.quantised())
    }

    /// The colours of excitations `[n,C]` float64, `[n,3]` float64 in [0, 1]: those of the features
    /// before upsampling.
    pub fn colours_of(&self, excitations: &Tensor) -> Tensor {
        let axes = &self.basis.axes;
        let scores = (excitations - &axes.mean).matmul(&axes.components.tr());
        let colours = self.basis.features.apply(&scores.unsqueeze(2).unsqueeze(3));
        colours.flatten(1, 3).to_kind(Kind::Double)
    }

    /// The colour of each group before upsampling, in [0, 1], and whether the filter, if there is
    /// one, leaves it out: the colour of the mean; if there is a filter, the quantised one that most
    /// places of the group have.
    ///
    /// # Errors
    /// Returns an error if libtorch fails.
    pub fn group_colours(&self, groups: &Groups) -> Result<Vec<([f64; 3], bool)>> {
        let Some(filter) = self.options.keep else {
            let colours = self.colours_of(&groups.means).contiguous();
            let colours = Vec::<f64>::try_from(colours.view([-1]))?;
            let colours = colours.as_chunks().0.iter();
            return Ok(colours.map(|&colour| (colour, false)).collect());
        };
        let codes = codes(&self.quantised()).view([-1]);
        let of_places = groups.of_places.view([-1]);
        let colour = |group: i64| {
            let own = codes.f_masked_select(&of_places.eq(group))?;
            let most = own.f_bincount(None::<&Tensor>, i64::from(COLOURS))?;
            let code = most.argmax(0, false).int64_value(&[]) as u32;
            let left_out = !filter.selects(code, self.shared);
            Ok((colour_of(code).map(f64::from), left_out))
        };
        (0..groups.shares.len() as i64).map(colour).collect()
    }

    /// The features in quantised colours, `[N,3,h,w]`.
    fn quantised(&self) -> Tensor {
        quantise(&self.basis.features.apply(&self.features))
    }

    /// The excitations at the two ends of the colour of each component, `[3,2,C]` float64: the
    /// mean, and what the component adds where red (green, blue) is 0 and 1.
    pub fn ends(&self) -> Tensor {
        let axes = &self.basis.axes;
        let ends = Tensor::from_slice(&self.basis.features.ends());
        axes.components.unsqueeze(1) * ends.reshape([1, 2, 1]) + &axes.mean
    }

    /// The number of images whose saliency is zero everywhere.
    pub fn not_salient(&self) -> usize {
        self.saliency.as_ref().map_or(0, |saliency| {
            let largest = saliency.amax([1i64, 2, 3].as_slice(), false);
            self.len() - largest.count_nonzero(0).int64_value(&[]) as usize
        })
    }

    /// The maps of some images, `[n,3,H,W]` float32 in [0, 1]: red, green and blue; NaN if the
    /// pixel is left out. With a saliency `[n,4,H,W]`; the last channel is alpha.
    ///
    /// # Errors
    /// Returns an error if there are fewer images.
    pub fn map(&self, images: Range<usize>) -> Result<Tensor> {
        ensure!(
            images.start <= images.end && images.end <= self.len(),
            "there are {} images, not {}",
            self.len(),
            images.end
        );
        let upsampled = self.upsampled(images.clone())?;
        let colours = match self.options.normalises_last() {
            true => self.basis.maps.apply(&upsampled),
            false => upsampled,
        };
        let Some(saliency) = &self.saliency else {
            return Ok(colours);
        };
        let saliency = saliency.narrow(0, images.start as i64, images.len() as i64);
        let alpha = resize(&saliency::stretched(&saliency), self.size());
        Ok(Tensor::cat(&[colours, alpha], 1))
    }

    /// The images in chunks that fit in memory together.
    pub fn chunks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        chunks(self.len())
    }

    /// The normalisation range over all maps.
    fn find_norm(&self) -> Result<Norm> {
        let mut norm = NormAccumulator::default();
        for images in self.chunks() {
            norm.add(&self.upsampled(images)?);
        }
        Ok(norm.finish())
    }

    /// The maps before the last norm: `[n,3,H,W]`.
    fn upsampled(&self, images: Range<usize>) -> Result<Tensor> {
        let count = (images.end - images.start) as i64;
        let shown = self.shown.narrow(0, images.start as i64, count);
        let guides = || {
            let guides = self.guides.iter();
            let guides = guides.map(|guide| guide.get(images.clone()));
            guides.collect::<Result<Vec<_>>>()
        };
        let size = self.options.size;
        if let Some(filter) = self.options.keep
            && !self.options.normalises_last()
        {
            let codes = self.winners(&codes(&shown), &guides)?;
            return Ok(painted(&codes, self.shared, filter));
        }
        match self.options.upsampling {
            Upsampling::None => Ok(shown),
            Upsampling::Product => Ok(gradual_extrapolation(&shown, &guides()?)),
            Upsampling::Bilinear => Ok(resize(&shown, size)),
            Upsampling::Bilateral => {
                let upsampled = self.bilateral.as_ref();
                let upsampled = upsampled.map(|way| way.upsample(&shown, &guides()?));
                Ok(resize(&upsampled.transpose()?.unwrap_or(shown), size))
            }
        }
    }

    /// The quantised colour of each pixel, `[n,h,w]` to `[n,H,W]`: the one with the largest weight
    /// among the cells. So a pixel has a colour that a cell has.
    fn winners(&self, codes: &Tensor, guides: &impl Fn() -> Result<Vec<Tensor>>) -> Result<Tensor> {
        let size = self.options.size;
        let nearest = |codes: &Tensor| {
            let codes = codes.unsqueeze(1).to_kind(Kind::Float);
            let codes =
                codes.internal_upsample_nearest_exact2d([size.height, size.width], None, None);
            codes.squeeze_dim(1).to_kind(Kind::Int64)
        };
        match (self.options.upsampling, &self.bilateral) {
            (Upsampling::None | Upsampling::Product, _) => Ok(codes.shallow_clone()),
            (Upsampling::Bilateral, Some(way)) => {
                let weights = way.upsample(&membership(codes), &guides()?)?;
                Ok(nearest(&weights.argmax(1, false)))
            }
            _ => Ok(resize(&membership(codes), size).argmax(1, false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What libtorch makes of the channels of a guide does not depend on the channels beside them.
    #[test]
    fn grouped_guides_upsample_like_single_ones() {
        tch::manual_seed(8);
        let random = |channels: i64, side: i64| {
            Tensor::randn([2, channels, side, side], tch::kind::FLOAT_CPU) * 3.0 + 1.0
        };
        let guides = vec![random(2, 16), random(3, 8), random(1, 16), random(4, 8)];
        let (cells, image) = (Size::new(4, 4), Size::new(32, 32));
        let values = random(3, 4);
        let upsampled = |guides: &[Tensor]| {
            let stored: Vec<Tensor> = guides.iter().map(|guide| stored(guide).unwrap()).collect();
            let way = Bilateral::new(cells, stored.iter().map(Size::of), image).unwrap();
            way.upsample(&values, &stored).unwrap()
        };
        let single = upsampled(&guides);
        let groups = grouped(guides).unwrap();
        let sizes: Vec<Vec<i64>> = groups.iter().map(Tensor::size).collect();
        assert_eq!(sizes, [[2, 3, 16, 16], [2, 7, 8, 8]]);
        let off = (upsampled(&groups) - &single).abs().max();
        assert!(off.double_value(&[]) < 1e-5, "{off:?}");
        assert!(single.std(false).double_value(&[]) > 0.1);
    }
}

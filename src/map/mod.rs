//! From excitations to colours: the mathematics of PRISM.
//!
//! A [`Collector`] takes the excitations of a batch chunk by chunk. It accumulates whatever
//! depends on all images, so that the map does not depend on the chunks. [`Maps`] then computes
//! the map of each image.

mod analyse;
mod bilateral;
mod collect;
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
pub use collect::{Collector, Reduced};
pub use components::Components;
pub use groups::Groups;
pub use normalise::{Norm, NormAccumulator};
pub use pca::{Axes, COMPONENTS, Pca, PcaAccumulator, svd_flip};
pub use product::{gradual_extrapolation, resize};
pub use quantise::{COLOURS, ColourSet, FeatureFilter, colours, quantise, select};

use quantise::{codes, colour_of, membership, painted};

pub use crate::convert::to_picture;
use crate::hooks::{HookedModel, Upsampling};
use crate::joint::Group;
use crate::saliency;
use crate::size::Size;
use crate::spool::Sequence;

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

/// The images in chunks that fit in memory together.
fn chunks(images: usize) -> impl Iterator<Item = Range<usize>> {
    (0..images)
        .step_by(CHUNK)
        .map(move |start| start..(start + CHUNK).min(images))
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

/// The maps of a batch, computed on demand. In a joint run they are those of this rank's images, and
/// all numbers that sum up the images count those of all ranks.
#[derive(Debug)]
pub struct Maps {
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
    /// The basis with which a later run has the same colours.
    pub basis: Basis,
    /// The number of images before those of this rank, and that of all ranks.
    pub(crate) numbers: Numbers,
    /// The largest saliency of all images, if there is one.
    pub(crate) largest_saliency: Option<f64>,
    /// The number of images whose saliency is zero everywhere.
    unsalient: usize,
    /// Scores of the first three components, `[N,3,h,w]`, before `signs`.
    scores: Sequence,
    /// The signs of the features, `[1,3,1,1]`.
    signs: Tensor,
    logits: Sequence,
    saliency: Option<Sequence>,
    /// The quantised colours in every image, if there is a filter.
    shared: ColourSet,
    /// The quantised colours in at least one image, if there is a filter.
    any: ColourSet,
    guides: Vec<Sequence>,
    /// The numbers of the images whose guides are stored, ascending.
    guided: Vec<usize>,
    /// Bilateral upsampling, if there is a finer guide.
    bilateral: Option<Bilateral>,
    options: MapOptions,
}

/// The place of a rank's images among those of all ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// The number of images before the first one.
    pub first: usize,
    /// The number of all.
    pub all: usize,
}

impl Numbers {
    /// Of `count` images on this rank.
    ///
    /// # Errors
    /// Returns an error if a rank is lost.
    pub fn of(group: &Group, count: usize) -> Result<Numbers> {
        let counts = group.share(count)?;
        Ok(Numbers {
            first: counts.iter().take(group.rank()).sum(),
            all: counts.iter().sum(),
        })
    }
}

impl Maps {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Scores of the first three components of some images, `[n,3,h,w]` float32, with fixed signs.
    ///
    /// # Errors
    /// Returns an error if there are fewer images, or if they cannot be read back.
    pub fn features(&self, images: Range<usize>) -> Result<Tensor> {
        Ok(self.scores.get(images)? * &self.signs)
    }

    /// The size of the features.
    pub fn feature_size(&self) -> Size {
        match *self.scores.shape() {
            [_, height, width] => Size::new(height, width),
            _ => Size::new(0, 0),
        }
    }

    /// Class scores of some images, before a softmax or sigmoid that ends the network, `[n,K]`
    /// float32.
    ///
    /// # Errors
    /// Returns an error if there are fewer images, or if they cannot be read back.
    pub fn logits(&self, images: Range<usize>) -> Result<Tensor> {
        self.logits.get(images)
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.logits.shape().iter().product::<i64>() as usize
    }

    /// Saliency of a class in some images, `[n,1,h',w']` float32, not negative, at the resolution of
    /// the hooked layer; none if no saliency was computed.
    ///
    /// # Errors
    /// Returns an error if there are fewer images, or if they cannot be read back.
    pub fn saliency(&self, images: Range<usize>) -> Result<Option<Tensor>> {
        let saliency = self.saliency.as_ref();
        saliency.map(|saliency| saliency.get(images)).transpose()
    }

    /// The number of images whose saliency is zero everywhere.
    pub fn not_salient(&self) -> usize {
        self.unsalient
    }

    /// The size of the saliency, if there is one.
    pub fn saliency_size(&self) -> Option<Size> {
        let shape = self.saliency.as_ref()?.shape();
        Some(Size::new(*shape.get(1)?, *shape.get(2)?))
    }

    /// The size of the maps.
    pub fn size(&self) -> Size {
        match (self.options.upsampling, self.guides.first()) {
            (Upsampling::Bilateral | Upsampling::Bilinear, _) => self.options.size,
            (Upsampling::Product, Some(guide)) => Size::new(guide.shape()[1], guide.shape()[2]),
            _ => self.feature_size(),
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
        let mut all = Vec::with_capacity(self.len());
        for images in self.chunks() {
            all.extend(colours(&self.quantised(images)?)?);
        }
        Ok(all)
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
        let colour = |&code: &u32| {
            let left_out = !filter.selects(code, self.shared);
            (colour_of(code).map(f64::from), left_out)
        };
        Ok(groups.colours.iter().map(colour).collect())
    }

    /// The features of some images in quantised colours, `[n,3,h,w]`.
    fn quantised(&self, images: Range<usize>) -> Result<Tensor> {
        Ok(quantise(
            &self.basis.features.apply(&self.features(images)?),
        ))
    }

    /// What is upsampled, `[n,3,h,w]`: the features or their colours; quantised if there is a filter.
    fn shown(&self, images: Range<usize>) -> Result<Tensor> {
        match self.options.keep {
            Some(filter) if self.options.normalises_last() => {
                Ok(select(&self.quantised(images)?, self.shared, filter))
            }
            Some(_) => self.quantised(images),
            None if self.options.normalises_last() => self.features(images),
            None => Ok(self.basis.features.apply(&self.features(images)?)),
        }
    }

    /// The excitations at the two ends of the colour of each component, `[3,2,C]` float64: the
    /// mean, and what the component adds where red (green, blue) is 0 and 1.
    pub fn ends(&self) -> Tensor {
        let axes = &self.basis.axes;
        let ends = Tensor::from_slice(&self.basis.features.ends());
        axes.components.unsqueeze(1) * ends.reshape([1, 2, 1]) + &axes.mean
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
        let Some(saliency) = self.saliency(images)? else {
            return Ok(colours);
        };
        let alpha = resize(&saliency::stretched(&saliency), self.size());
        Ok(Tensor::cat(&[colours, alpha], 1))
    }

    /// The images in chunks that fit in memory together.
    pub fn chunks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        chunks(self.len())
    }

    /// The maps before the last norm: `[n,3,H,W]`.
    fn upsampled(&self, images: Range<usize>) -> Result<Tensor> {
        let shown = self.shown(images.clone())?;
        let guides = || {
            let place = |image| self.guided.partition_point(|&guided| guided < image);
            let places = place(images.start)..place(images.end);
            ensure!(
                places.len() == images.len(),
                "the maps of images {} to {} were not expected",
                images.start,
                images.end
            );
            let guides = self.guides.iter();
            let guides = guides.map(|guide| guide.get(places.clone()));
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

//! From excitations to colours: the mathematics of PRISM.
//!
//! A [`Collector`] takes the excitations of a batch chunk by chunk. It accumulates whatever
//! depends on all images, so that the map does not depend on the chunks. [`Maps`] then computes
//! the map of each image.

mod extrapolation;
mod normalise;
mod pca;
mod quantise;

use std::ops::Range;

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

pub use extrapolation::{gradual_extrapolation, regression, resize};
pub use normalise::{Norm, NormAccumulator};
pub use pca::{Axes, COMPONENTS, Pca, PcaAccumulator, svd_flip};
pub use quantise::{COLOURS, ColourSet, FeatureFilter, colours, quantise, select};

pub use crate::convert::to_picture;
use crate::hooks::{Excitations, Extrapolation};
use crate::saliency;
use crate::size::Size;
use crate::spool::{Sequence, Spool};

/// Images whose maps are computed together in a pass over all images.
const CHUNK: usize = 8;

const NOT_FINITE: &str =
    "the network's activations are not finite (NaN or infinity); are its weights?";

/// Returns an error if a value is NaN or infinite. One sum detects all of them.
fn ensure_finite(tensor: &Tensor) -> Result<()> {
    let sum = tensor.sum(Kind::Double).double_value(&[]);
    ensure!(sum.is_finite(), NOT_FINITE);
    Ok(())
}

/// How excitations become maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapOptions {
    /// If set, the features are quantised and these colours selected.
    pub keep: Option<FeatureFilter>,
    /// How the guides upsample the features; if `None`, the map has the resolution of the
    /// features.
    pub extrapolation: Option<Extrapolation>,
}

/// Collects the excitations of a batch, in order.
#[derive(Debug, Default)]
pub struct Collector {
    spool: Spool,
    pca: Option<PcaAccumulator>,
    excitation: Sequence,
    guides: Vec<Sequence>,
    logits: Vec<Tensor>,
    saliency: Vec<Tensor>,
}

impl Collector {
    /// A collector that stores tensors in `spool` (by default in memory).
    pub fn new(spool: &Spool) -> Collector {
        Collector {
            spool: spool.clone(),
            ..Collector::default()
        }
    }

    /// Adds the excitations of the next images.
    ///
    /// # Errors
    /// Returns an error if their shapes differ from the earlier ones, a value is not finite, or
    /// they cannot be stored.
    pub fn add(&mut self, excitations: Excitations) -> Result<()> {
        let Excitations {
            logits,
            excitation,
            guides,
            saliency,
        } = excitations;
        for tensor in [&logits].into_iter().chain(&guides).chain(&saliency) {
            ensure_finite(tensor)?;
        }
        self.pca
            .get_or_insert_with(|| PcaAccumulator::new(excitation.size()[1]))
            .add(&excitation)?;
        self.excitation.push(&self.spool, &excitation)?;
        self.guides.resize_with(guides.len(), Sequence::default);
        for (stored, guide) in self.guides.iter_mut().zip(&guides) {
            stored.push(&self.spool, guide)?;
        }
        self.logits.push(logits);
        self.saliency.extend(saliency);
        Ok(())
    }

    /// Fits the components to all images and computes the features.
    ///
    /// # Errors
    /// Returns an error if there is no image or the decomposition fails.
    pub fn finish(self, options: MapOptions) -> Result<Maps> {
        self.finish_with(options, None)
    }

    /// Computes the features with the components and ranges of `basis`, if given, so that a
    /// colour has the same meaning as in the run of the basis.
    ///
    /// # Errors
    /// Returns an error if there is no image, the decomposition fails, or the basis has other
    /// channels.
    pub fn finish_with(self, options: MapOptions, basis: Option<Basis>) -> Result<Maps> {
        let pca = self.pca.unwrap_or_else(|| PcaAccumulator::new(0));
        let is_given = basis.is_some();
        let (mut basis, variance_ratio) = match basis {
            Some(basis) => {
                let ratio = pca.variance_along(&basis.axes)?;
                (basis, ratio)
            }
            None => {
                let pca = pca.finish()?;
                (Basis::without_ranges(pca.axes), pca.variance_ratio)
            }
        };

        let mut features = scores(&basis.axes, self.excitation)?;
        if !is_given {
            let signs = svd_flip(&features);
            features *= signs.reshape([1, -1, 1, 1]);
            basis.axes.flip_signs(&signs);
            basis.features = norm_of(&features);
            basis.shown = basis.features;
        }

        let mut shown = features.shallow_clone();
        let (mut shared, mut any) = (ColourSet::ALL, ColourSet::NONE);
        if let Some(filter) = options.keep {
            let quantised = quantise(&basis.features.apply(&features));
            let sets = colours(&quantised)?;
            (shared, any) = (ColourSet::shared(&sets), ColourSet::any(&sets));
            shown = select(&quantised, shared, filter);
            if !is_given {
                basis.shown = norm_of(&shown);
            }
        }
        if let Some(Extrapolation::Regression { .. }) = options.extrapolation {
            // Clipped before the regression: a few extreme pixels would dominate the fit.
            shown = basis.shown.apply(&shown);
        }

        let mut maps = Maps {
            features,
            shown,
            shared,
            any,
            variance_ratio,
            basis,
            logits: Tensor::f_cat(&self.logits, 0)?,
            saliency: match self.saliency.as_slice() {
                [] => None,
                parts => Some(Tensor::f_cat(parts, 0)?),
            },
            guides: self.guides,
            fitted: Sequence::default(),
            options,
        };
        // With a given basis as well: each output would compute the regression again.
        let is_regression = matches!(
            options.extrapolation,
            Some(Extrapolation::Regression { .. })
        );
        if !is_given || is_regression {
            let norm = maps.find_norm(&self.spool)?;
            if !is_given {
                maps.basis.maps = norm;
            }
        }
        ensure!(maps.basis.maps.is_finite(), NOT_FINITE);
        Ok(maps)
    }
}

/// The scores of all excitations along `axes`, `[N,3,h,w]` float32.
fn scores(axes: &Axes, excitation: Sequence) -> Result<Tensor> {
    let (count, shape) = (excitation.len() as i64, excitation.shape());
    // Allocated at once: small tensors between large temporary ones would fragment the heap, by
    // two gigabytes for 5,000 images.
    let size = [count, COMPONENTS, shape[1], shape[2]];
    let features = Tensor::f_zeros(size, (Kind::Float, Device::Cpu))?;
    for images in chunks(excitation.len()) {
        let (start, length) = (images.start as i64, images.len() as i64);
        let scores = axes.project(&excitation.get(images)?);
        features.narrow(0, start, length).copy_(&scores);
    }
    Ok(features)
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
    /// The range of the input of a regression: of the features, or of the selected colours.
    pub shown: Norm,
    /// The range of the maps.
    pub maps: Norm,
}

impl Basis {
    /// A basis whose ranges are still to be computed.
    fn without_ranges(axes: Axes) -> Basis {
        let unknown = NormAccumulator::default().finish();
        Basis {
            axes,
            features: unknown,
            shown: unknown,
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
    /// Class scores, before a softmax or sigmoid that ends the network, `[N,K]` float32.
    pub logits: Tensor,
    /// Saliency of a class, `[N,1,h',w']` float32, not negative, at the resolution of the hooked
    /// layer.
    pub saliency: Option<Tensor>,
    /// The basis with which a later run has the same colours.
    pub basis: Basis,
    /// The input of the extrapolation: the features, or their selected colours.
    shown: Tensor,
    /// The quantised colours in every image, if there is a filter.
    shared: ColourSet,
    /// The quantised colours in at least one image, if there is a filter.
    any: ColourSet,
    guides: Vec<Sequence>,
    /// The results of the regression so far, `[n,3,H,W]`.
    fitted: Sequence,
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
        match (self.options.extrapolation, self.guides.first()) {
            (Some(Extrapolation::Regression { size }), _) => size,
            (Some(Extrapolation::Product), Some(guide)) => {
                Size::new(guide.shape()[1], guide.shape()[2])
            }
            _ => Size::of(&self.features),
        }
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
            FeatureFilter::Shared if none_shared => {
                Some("no colour is common to all images, so the map of the common ones is black")
            }
            FeatureFilter::Shared if all_shared => {
                Some("every colour is common to all images, so none was left out")
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
        colours(&quantise(&self.basis.features.apply(&self.features)))
    }

    /// The number of images whose saliency is zero everywhere, so that their maps are white.
    pub fn not_salient(&self) -> usize {
        self.saliency.as_ref().map_or(0, |saliency| {
            let largest = saliency.amax([1i64, 2, 3].as_slice(), false);
            self.len() - largest.count_nonzero(0).int64_value(&[]) as usize
        })
    }

    /// The maps of some images, `[n,3,H,W]` float32 in [0, 1]: red, green and blue. With a
    /// saliency `[n,4,H,W]`; the last channel is alpha.
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
        let colours = self.basis.maps.apply(&self.extrapolated(images.clone())?);
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

    /// The normalisation range over all maps. Regressed maps are expensive to compute but
    /// small, so they are stored and their guides are freed.
    fn find_norm(&mut self, spool: &Spool) -> Result<Norm> {
        let mut norm = NormAccumulator::default();
        for images in self.chunks() {
            let upsampled = self.extrapolated(images.clone())?;
            norm.add(&upsampled);
            if let Some(Extrapolation::Regression { .. }) = self.options.extrapolation {
                for guide in &mut self.guides {
                    guide.forget_before(images.end);
                }
                self.fitted.push(spool, &upsampled)?;
            }
        }
        Ok(norm.finish())
    }

    /// The maps before the norm: `[n,3,H,W]`.
    fn extrapolated(&self, images: Range<usize>) -> Result<Tensor> {
        if images.end <= self.fitted.len() {
            return self.fitted.get(images);
        }
        let count = (images.end - images.start) as i64;
        let features = self.shown.narrow(0, images.start as i64, count);
        let guides = || {
            let guides = self.guides.iter();
            let guides = guides.map(|guide| guide.get(images.clone()));
            guides.collect::<Result<Vec<_>>>()
        };
        match self.options.extrapolation {
            None => Ok(features),
            Some(Extrapolation::Product) => Ok(gradual_extrapolation(&features, &guides()?)),
            Some(Extrapolation::Regression { .. }) => {
                regression(&features, &guides()?, self.size())
            }
        }
    }
}

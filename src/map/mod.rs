//! From excitations to colours: the mathematics of PRISM.
//!
//! A [`Collector`] takes the excitations of a batch chunk by chunk; what it
//! knows of the whole batch are accumulators, so that the map does not depend on
//! the chunks. [`Maps`] then makes the map of any of the images.

mod extrapolation;
mod normalise;
mod pca;
mod quantise;

use std::ops::Range;

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

pub use extrapolation::{gradual_extrapolation, regression, resize};
pub use normalise::{Norm, NormAccumulator};
pub use pca::{Axes, COMPONENTS, Pca, PcaAccumulator, signs};
pub use quantise::{COLOURS, ColourAccumulator, ColourSet, Keep, colours, quantise, select};

pub use crate::convert::to_picture;
use crate::hooks::{Excitations, Extrapolation};
use crate::saliency;
use crate::spool::{Sequence, Spool};

/// Images whose maps are made at once where all of them are gone through.
const CHUNK: usize = 8;

const NOT_FINITE: &str =
    "the network's activations are not finite (NaN or infinity); are its weights?";

/// Refuses NaN and infinities: one sum finds every one.
fn ensure_finite(tensor: &Tensor) -> Result<()> {
    let sum = tensor.sum(Kind::Double).double_value(&[]);
    ensure!(sum.is_finite(), NOT_FINITE);
    Ok(())
}

/// How excitations become maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapOptions {
    /// Quantise the features, and keep some of their colours.
    pub keep: Option<Keep>,
    /// How the guides bring the features up; where they do not, the map keeps
    /// the features' resolution.
    pub extrapolation: Option<Extrapolation>,
}

/// Takes the excitations of a batch, in order.
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
    /// Keeps what it has to in `spool` (by default in memory).
    pub fn new(spool: &Spool) -> Collector {
        Collector {
            spool: spool.clone(),
            ..Collector::default()
        }
    }

    /// Adds the excitations of the next images.
    ///
    /// # Errors
    /// Where they do not fit those before, are not finite, or cannot be kept.
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
        for (kept, guide) in self.guides.iter_mut().zip(&guides) {
            kept.push(&self.spool, guide)?;
        }
        self.logits.push(logits);
        self.saliency.extend(saliency);
        Ok(())
    }

    /// Fits the components to all images and makes the features.
    ///
    /// # Errors
    /// Where there is no image, or the decomposition fails.
    pub fn finish(self, options: MapOptions) -> Result<Maps> {
        self.finish_with(options, None)
    }

    /// Makes the features by the components of `basis`, where there is one, so that
    /// a colour means what it means in the run that made it.
    ///
    /// # Errors
    /// Where there is no image, the decomposition fails, or the basis is of other
    /// channels.
    pub fn finish_with(self, options: MapOptions, basis: Option<Basis>) -> Result<Maps> {
        let pca = self.pca.unwrap_or_else(|| PcaAccumulator::new(0));
        let fixed = basis
            .as_ref()
            .map(|basis| (basis.features, basis.shown, basis.maps));
        let (mut axes, variance_ratio) = match basis {
            Some(Basis { axes, .. }) => {
                let shares = pca.variance_along(&axes)?;
                (axes, shares)
            }
            None => {
                let pca = pca.finish()?;
                (pca.axes, pca.variance_ratio)
            }
        };
        // In one piece from the start: small tensors kept between large ones that come and go
        // would leave gaps in memory, two gigabytes of them for 5,000 images.
        let (count, shape) = (self.excitation.len() as i64, self.excitation.shape());
        let size = [count, COMPONENTS, shape[1], shape[2]];
        let mut features = Tensor::f_zeros(size, (Kind::Float, Device::Cpu))?;
        for images in chunks(self.excitation.len()) {
            let (start, length) = (images.start as i64, images.len() as i64);
            let scores = axes.project(&self.excitation.get(images)?);
            features.narrow(0, start, length).copy_(&scores);
        }
        drop(self.excitation);
        let feature_norm = match fixed {
            Some((feature_norm, _, _)) => feature_norm,
            None => {
                let signs = signs(&features);
                features *= signs.reshape([1, -1, 1, 1]);
                axes.turn(&signs);
                norm_of(&features)
            }
        };
        let (shown, colours) = match options.keep {
            Some(keep) => {
                let (kept, colours) = kept_colours(&feature_norm.apply(&features), keep)?;
                (kept, Some(colours))
            }
            None => (features.shallow_clone(), None),
        };
        let shown_norm = match (fixed, options.keep) {
            (Some((_, shown_norm, _)), _) => shown_norm,
            (None, Some(_)) => norm_of(&shown),
            (None, None) => feature_norm,
        };
        // Cut before it is brought up: a few extreme pixels would lead the fit.
        let shown = match options.extrapolation {
            Some(Extrapolation::Regression { .. }) => shown_norm.apply(&shown),
            _ => shown,
        };
        let mut maps = Maps {
            features,
            shown,
            colours,
            variance_ratio,
            axes,
            feature_norm,
            shown_norm,
            logits: Tensor::f_cat(&self.logits, 0)?,
            saliency: match self.saliency.as_slice() {
                [] => None,
                parts => Some(Tensor::f_cat(parts, 0)?),
            },
            guides: self.guides,
            fitted: Sequence::default(),
            options,
            norm: NormAccumulator::default().finish(),
        };
        maps.norm = match fixed {
            Some((_, _, norm)) => norm,
            None => maps.find_norm(&self.spool)?,
        };
        ensure!(maps.norm.is_finite(), NOT_FINITE);
        Ok(maps)
    }
}

/// The images in runs that fit in memory together.
fn chunks(images: usize) -> impl Iterator<Item = Range<usize>> {
    (0..images)
        .step_by(CHUNK)
        .map(move |start| start..(start + CHUNK).min(images))
}

/// Features in [0, 1], quantised, of which only the colours that `keep` names are
/// left, and the colours that there were.
fn kept_colours(features: &Tensor, keep: Keep) -> Result<(Tensor, ColourAccumulator)> {
    let quantised = quantise(features);
    let mut colours = ColourAccumulator::default();
    colours.add(&quantised)?;
    Ok((select(&quantised, colours.common, keep), colours))
}

fn norm_of(features: &Tensor) -> Norm {
    let mut norm = NormAccumulator::default();
    norm.add(features);
    norm.finish()
}

/// What makes colours mean the same in several runs: the components with their
/// signs, and the ranges that are stretched to [0, 1].
#[derive(Debug)]
pub struct Basis {
    /// The components.
    pub axes: Axes,
    /// The range of the features.
    pub features: Norm,
    /// The range of what a regression brings up: the features', or that of the colours
    /// that are kept.
    pub shown: Norm,
    /// The range of the maps.
    pub maps: Norm,
}

/// The maps of a batch, made when they are asked for.
#[derive(Debug)]
pub struct Maps {
    /// Scores of the first three components, `[N,3,h,w]` float32, signs fixed.
    pub features: Tensor,
    /// Share of the variance of every component, `[min(Nhw, C)]`, falling; with a given
    /// basis of its three alone, in that basis's order.
    pub variance_ratio: Vec<f64>,
    /// Class scores before softmax, `[N,K]` float32.
    pub logits: Tensor,
    /// Where a class was seen, `[N,1,h',w']` float32, not negative, at the resolution of
    /// the layer where that was hooked.
    pub saliency: Option<Tensor>,
    axes: Axes,
    /// The norm of the features, before they are quantised or brought up.
    feature_norm: Norm,
    /// The norm of what a regression brings up.
    shown_norm: Norm,
    /// What is extrapolated: the features, or their quantised colours.
    shown: Tensor,
    /// The quantised colours of the images, where they were asked for.
    colours: Option<ColourAccumulator>,
    guides: Vec<Sequence>,
    /// What a regression made of the guides, `[N,3,H,W]`, for as many images as are there.
    fitted: Sequence,
    options: MapOptions,
    norm: Norm,
}

impl Maps {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.features.size()[0] as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Height and width of the maps.
    pub fn size(&self) -> (i64, i64) {
        let features = self.features.size();
        let shape = match (self.options.extrapolation, self.guides.first()) {
            (Some(Extrapolation::Regression { size }), _) => return size,
            (Some(Extrapolation::Product), Some(guide)) => guide.shape(),
            _ => &features[1..],
        };
        (shape[1], shape[2])
    }

    /// Whether the features are the same everywhere, so that the maps are
    /// black.
    pub fn is_constant(&self) -> bool {
        self.norm.is_constant()
    }

    /// What a person should know of the choice of colours, where it left
    /// nothing or everything.
    pub fn note(&self) -> Option<&'static str> {
        let colours = self.colours?;
        let all_common = colours.common.contains_all(colours.any);
        match self.options.keep? {
            Keep::Common if colours.common.is_empty() => {
                Some("no colour is common to all images, so the map of the common ones is black")
            }
            Keep::Common if all_common => {
                Some("every colour is common to all images, so none was left out")
            }
            Keep::Unique if all_common => {
                Some("every colour is common to all images, so the map of the unique ones is black")
            }
            Keep::Unique if colours.common.is_empty() => {
                Some("no colour is common to all images, so none was left out")
            }
            _ => None,
        }
    }

    /// What a later run needs for the same colours.
    pub fn basis(&self) -> Basis {
        Basis {
            axes: Axes {
                mean: self.axes.mean.shallow_clone(),
                components: self.axes.components.shallow_clone(),
            },
            features: self.feature_norm,
            shown: self.shown_norm,
            maps: self.norm,
        }
    }

    /// The channels of a map: red, green and blue, and with a saliency alpha.
    pub fn channels(&self) -> usize {
        3 + usize::from(self.saliency.is_some())
    }

    /// The quantised colours that each image has, whichever are kept.
    ///
    /// # Errors
    /// Where libtorch fails.
    pub fn colours(&self) -> Result<Vec<ColourSet>> {
        colours(&quantise(&self.feature_norm.apply(&self.features)))
    }

    /// The number of images in which the class was seen nowhere: their saliency is
    /// zero, their maps are white.
    pub fn not_salient(&self) -> usize {
        self.saliency.as_ref().map_or(0, |saliency| {
            let seen = saliency
                .amax([1i64, 2, 3].as_slice(), false)
                .count_nonzero(0);
            self.len() - seen.int64_value(&[]) as usize
        })
    }

    /// The maps of some images, `[n,3,H,W]` float32 in [0, 1]: red, green and
    /// blue; with a saliency `[n,4,H,W]`, the last channel being alpha.
    ///
    /// # Errors
    /// Where there are not as many images.
    pub fn map(&self, images: Range<usize>) -> Result<Tensor> {
        ensure!(
            images.start <= images.end && images.end <= self.len(),
            "there are {} images, not {}",
            self.len(),
            images.end
        );
        let colours = self.norm.apply(&self.extrapolated(images.clone())?);
        let Some(saliency) = &self.saliency else {
            return Ok(colours);
        };
        let saliency = saliency.narrow(0, images.start as i64, images.len() as i64);
        let alpha = resize(&saliency::stretched(&saliency), self.size());
        Ok(Tensor::cat(&[colours, alpha], 1))
    }

    /// The images in runs that fit in memory together.
    pub fn chunks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        chunks(self.len())
    }

    /// The range of all maps. Of a regression, which is dearer than what it makes is large,
    /// that is kept in the place of its guides.
    fn find_norm(&mut self, spool: &Spool) -> Result<Norm> {
        let mut norm = NormAccumulator::default();
        for images in self.chunks() {
            let brought_up = self.extrapolated(images.clone())?;
            norm.add(&brought_up);
            if let Some(Extrapolation::Regression { .. }) = self.options.extrapolation {
                for guide in &mut self.guides {
                    guide.forget_before(images.end);
                }
                self.fitted.push(spool, &brought_up)?;
            }
        }
        Ok(norm.finish())
    }

    /// Before the norm: `[n,3,H,W]`.
    fn extrapolated(&self, images: Range<usize>) -> Result<Tensor> {
        if images.end <= self.fitted.len() {
            return self.fitted.get(images);
        }
        let count = (images.end - images.start) as i64;
        let features = self.shown.narrow(0, images.start as i64, count);
        let guides = || {
            let of_images = |guide: &Sequence| guide.get(images.clone());
            self.guides
                .iter()
                .map(of_images)
                .collect::<Result<Vec<_>>>()
        };
        match self.options.extrapolation {
            None => Ok(features),
            Some(Extrapolation::Product) => Ok(gradual_extrapolation(&features, &guides()?)),
            Some(Extrapolation::Regression { size }) => regression(&features, &guides()?, size),
        }
    }
}

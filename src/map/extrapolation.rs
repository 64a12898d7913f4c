//! Upsampling features to the image, level by level, with earlier activations as guides.
//!
//! [`gradual_extrapolation`] multiplies features by the guides (Szandała, IEEE Access 2021). It
//! suits networks whose activations are large on the object. [`regression`] fits the features of
//! each image by its guides, so sign and scale of a guide do not matter.

use std::collections::BTreeMap;

use anyhow::Result;
use tch::{Kind, Tensor};

use crate::size::Size;

/// Ridge, in units of the variance of a standardised guide (1): it keeps a regression on few
/// pixels from fitting noise.
const RIDGE: f64 = 0.1;
/// A guide is constant except for rounding if its deviation is at most this share of its
/// largest magnitude.
const FLAT: f64 = 1e-6;

/// Resizes `[n,c,h,w]` to `size`, bilinearly and with pixel areas instead of corners aligned
/// (`align_corners=False`).
pub fn resize(features: &Tensor, size: Size) -> Tensor {
    if Size::of(features) == size {
        return features.shallow_clone();
    }
    features.upsample_bilinear2d([size.height, size.width], false, None, None)
}

/// Gradual extrapolation, for each guide from the deepest to the shallowest:
/// `f = resize(f, size of the guide) * channel mean of the guide`.
///
/// `features` is `[n,3,h,w]`; `guides` are channel means `[n,1,h_i,w_i]`, the shallowest first.
/// The result has the resolution of the shallowest guide.
pub fn gradual_extrapolation(features: &Tensor, guides: &[Tensor]) -> Tensor {
    guides
        .iter()
        .rev()
        .fold(features.shallow_clone(), |features, guide| {
            resize(&features, Size::of(guide)) * guide
        })
}

/// Upsamples colours to `size` by regression on `guides`, for each image separately.
///
/// At each resolution, from the coarsest to the finest, the colours become the mean of their
/// bilinear upsampling and a ridge regression of it on all guides of that resolution. This
/// shrinks colours towards their mean, so finally every component of every image gets back
/// its mean and deviation.
///
/// `colours` is `[n,3,h,w]`; `guides` are `[n,k_i,h_i,w_i]`. Returns `[n,3,H,W]` float32.
///
/// # Errors
/// Returns an error if libtorch cannot solve the regression, for example because values are not
/// finite.
pub fn regression(colours: &Tensor, guides: &[Tensor], size: Size) -> Result<Tensor> {
    let mut levels: BTreeMap<(i64, Size), Vec<&Tensor>> = BTreeMap::new();
    for guide in guides {
        let size = Size::of(guide);
        levels.entry((size.pixels(), size)).or_default().push(guide);
    }
    let start = colours.to_kind(Kind::Double);
    let mut colours = start.shallow_clone();
    for ((_, size), guides) in levels {
        let enlarged = resize(&colours, size);
        let fitted = fitted(&enlarged, &Tensor::f_cat(&guides, 1)?)?;
        colours = (enlarged + fitted) * 0.5;
    }
    let restored = restored(&resize(&colours, size), &resize(&start, size));
    Ok(restored.to_kind(Kind::Float))
}

/// Ridge regression of each image's colours `[n,3,h,w]` float64 on its standardised guides
/// `[n,k,h,w]`. Constant guides are ignored.
fn fitted(colours: &Tensor, guides: &Tensor) -> Result<Tensor> {
    let mean = |tensor: &Tensor| tensor.mean_dim([-1i64].as_slice(), true, Kind::Double);
    let guides = guides.to_kind(Kind::Double).flatten(2, 3);
    let pixels = guides.size()[2] as f64;
    let largest = guides.abs().amax([-1i64].as_slice(), true);
    let guides = &guides - mean(&guides);
    let flat = colours.flatten(2, 3);
    let centre = mean(&flat);
    let covariance = guides.f_bmm(&guides.transpose(1, 2))? / pixels;
    let deviation = covariance.diagonal(0, 1, 2).unsqueeze(-1).sqrt();
    let varies = deviation.gt_tensor(&(largest * FLAT));
    let reciprocal = deviation.reciprocal();
    let scale = reciprocal.where_self(&varies, &reciprocal.zeros_like());
    let cross = guides.f_bmm(&(&flat - &centre).transpose(1, 2))? / pixels;
    let ridge = Tensor::eye(scale.size()[1], (Kind::Double, scale.device())) * RIDGE;
    let scatter = covariance * &scale * scale.transpose(1, 2) + ridge;
    let weights = Tensor::f_linalg_solve(&scatter, &(cross * &scale), true)? * scale;
    let fitted = weights.transpose(1, 2).f_bmm(&guides)? + centre;
    Ok(fitted.f_view_as(colours)?)
}

/// Gives each component of each image the mean and the deviation of that component in
/// `reference`.
fn restored(colours: &Tensor, reference: &Tensor) -> Tensor {
    let mean = |tensor: &Tensor| tensor.mean_dim([2i64, 3].as_slice(), true, Kind::Double);
    // libtorch's own deviation is ten times slower over two dimensions.
    let deviation = |centred: &Tensor| mean(&centred.square()).sqrt();
    let centre = mean(reference);
    let centred = colours - mean(colours);
    let (own, wanted) = (deviation(&centred), deviation(&(reference - &centre)));
    let gain = (wanted / &own).where_self(&own.gt(0.0), &own.zeros_like());
    centred * gain + centre
}

//! Features brought up to the image level by level, by what the network saw there.
//!
//! [`gradual_extrapolation`] multiplies (Szandała, IEEE Access 2021); that is for
//! networks whose activations are large where the object is. [`regression`] asks
//! instead what the activations of an image tell of its colours, which their sign
//! and scale do not matter to.

use std::collections::BTreeMap;

use anyhow::Result;
use tch::{Kind, Tensor};

/// Of the variance of the standardised guides, 1: what keeps a regression on
/// few pixels from following noise.
const RIDGE: f64 = 0.1;
/// A guide whose deviation is at most this share of its largest magnitude is
/// constant but for rounding.
const FLAT: f64 = 1e-6;

/// Resizes `[n,c,h,w]` to `size` (height, width), bilinearly, with pixel areas
/// rather than corners aligned (`align_corners=False`).
pub fn resize(features: &Tensor, size: (i64, i64)) -> Tensor {
    if features.size()[2..] == [size.0, size.1] {
        return features.shallow_clone();
    }
    features.upsample_bilinear2d([size.0, size.1], false, None, None)
}

/// For each guide from the deepest to the shallowest:
/// `f = resize(f, size of the guide) * channel mean of the guide`.
///
/// `features` is `[n,3,h,w]`; `guides` are channel means `[n,1,h_i,w_i]`, the
/// shallowest first. The result has the shallowest guide's resolution.
pub fn gradual_extrapolation(features: &Tensor, guides: &[Tensor]) -> Tensor {
    guides
        .iter()
        .rev()
        .fold(features.shallow_clone(), |features, guide| {
            let size = guide.size();
            resize(&features, (size[2], size[3])) * guide
        })
}

/// Brings colours up to `size` (height, width) by what `guides` tell of them, for
/// each image by itself.
///
/// At each resolution, from the coarsest to the finest, the colours become half
/// their bilinear enlargement and half what a ridge regression on all guides of
/// that resolution makes of it. As that shrinks them towards their mean, every
/// component of every image is given back the mean and the deviation that it had.
///
/// `colours` is `[n,3,h,w]`; `guides` are `[n,k_i,h_i,w_i]`. Gives `[n,3,H,W]`
/// float32.
///
/// # Errors
/// Where libtorch cannot solve the regression, as of values that are not finite.
pub fn regression(colours: &Tensor, guides: &[Tensor], size: (i64, i64)) -> Result<Tensor> {
    let mut levels: BTreeMap<(i64, i64, i64), Vec<&Tensor>> = BTreeMap::new();
    for guide in guides {
        let (height, width) = (guide.size()[2], guide.size()[3]);
        let level = levels.entry((height * width, height, width)).or_default();
        level.push(guide);
    }
    let start = colours.to_kind(Kind::Double);
    let mut colours = start.shallow_clone();
    for ((_, height, width), guides) in levels {
        let enlarged = resize(&colours, (height, width));
        let fitted = fitted(&enlarged, &Tensor::f_cat(&guides, 1)?)?;
        colours = (enlarged + fitted) * 0.5;
    }
    let restored = restored(&resize(&colours, size), &resize(&start, size));
    Ok(restored.to_kind(Kind::Float))
}

/// The ridge regression of each image's colours `[n,3,h,w]` float64 on its guides
/// `[n,k,h,w]`, standardised; one that is constant tells nothing.
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
    let tells = deviation.gt_tensor(&(largest * FLAT));
    let reciprocal = deviation.reciprocal();
    let scale = reciprocal.where_self(&tells, &reciprocal.zeros_like());
    let cross = guides.f_bmm(&(&flat - &centre).transpose(1, 2))? / pixels;
    let ridge = Tensor::eye(scale.size()[1], (Kind::Double, scale.device())) * RIDGE;
    let scatter = covariance * &scale * scale.transpose(1, 2) + ridge;
    let weights = Tensor::f_linalg_solve(&scatter, &(cross * &scale), true)? * scale;
    let fitted = weights.transpose(1, 2).f_bmm(&guides)? + centre;
    Ok(fitted.f_view_as(colours)?)
}

/// Gives each component of each image the mean and the deviation that it has in
/// `reference`.
fn restored(colours: &Tensor, reference: &Tensor) -> Tensor {
    let mean = |tensor: &Tensor| tensor.mean_dim([2i64, 3].as_slice(), true, Kind::Double);
    // Not libtorch's own deviation, which is ten times slower over two dimensions.
    let deviation = |centred: &Tensor| mean(&centred.square()).sqrt();
    let centre = mean(reference);
    let centred = colours - mean(colours);
    let (own, wanted) = (deviation(&centred), deviation(&(reference - &centre)));
    let gain = (wanted / &own).where_self(&own.gt(0.0), &own.zeros_like());
    centred * gain + centre
}

//! Gradual extrapolation (Szandała, IEEE Access 2021): features are multiplied by earlier
//! activations, level by level. It suits networks whose activations are large on the object.

use tch::Tensor;

use crate::size::Size;

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

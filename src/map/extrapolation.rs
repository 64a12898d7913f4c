//! Gradual extrapolation (Szandała, IEEE Access 2021): features brought up to
//! the image level by level, each level weighted by what the network saw there.

use tch::Tensor;

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

//! Saliency: the evidence for a class at each place of an image.

use tch::{Kind, Tensor};

/// How the saliency of a class is computed at a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The channels of the activation, weighted by the mean gradient of the class score
    /// (Selvaraju et al., "Grad-CAM", ICCV 2017).
    GradCam,
    /// Excitation backpropagation (Zhang et al., "Top-down neural attention by excitation
    /// backprop", ECCV 2016).
    ExcitationBackprop,
    /// Contrastive excitation backpropagation (Zhang et al.): less the winning probability
    /// of the opposite of the class, so that evidence for all classes cancels.
    ContrastiveExcitationBackprop,
}

impl Method {
    /// The usual name of the method.
    pub fn title(self) -> &'static str {
        match self {
            Method::GradCam => "Grad-CAM",
            Method::ExcitationBackprop | Method::ContrastiveExcitationBackprop => {
                "excitation backprop"
            }
        }
    }

    /// Whether the opposite of the class is subtracted.
    pub fn is_contrastive(self) -> bool {
        self == Method::ContrastiveExcitationBackprop
    }

    /// The saliency `[N,1,h,w]` of an activation `[N,C,h,w]`.
    ///
    /// `gradient` is the gradient of the class score at the activation, or the winning
    /// probability. The saliency is never negative.
    pub fn saliency(self, activation: &Tensor, gradient: &Tensor) -> Tensor {
        let channels = match self {
            Method::GradCam => {
                activation * gradient.mean_dim([2i64, 3].as_slice(), true, Kind::Float)
            }
            Method::ExcitationBackprop | Method::ContrastiveExcitationBackprop => {
                gradient.shallow_clone()
            }
        };
        channels
            .sum_dim_intlist([1i64].as_slice(), true, Kind::Float)
            .relu()
    }
}

/// Saliency `[n,1,h,w]` with the range of each image stretched to [0, 1]. A constant image becomes
/// zero.
pub fn stretched(saliency: &Tensor) -> Tensor {
    let plane = [2i64, 3];
    let low = saliency.amin(plane.as_slice(), true);
    let range = saliency.amax(plane.as_slice(), true) - &low;
    let divisor = range.where_self(&range.gt(0.0), &range.ones_like());
    (saliency - low) / divisor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.contiguous().view([-1])).unwrap()
    }

    #[test]
    fn grad_cam_weights_channels_with_their_mean_gradient() {
        let activation = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 1.0, 0.0, 2.0]);
        let gradient = Tensor::from_slice(&[4.0f32, 0.0, 0.0, 0.0, -1.0, -1.0, 0.0, 2.0 - 4.0]);
        let of = |tensor: Tensor| tensor.reshape([1, 2, 2, 2]);
        let saliency = Method::GradCam.saliency(&of(activation), &of(gradient));
        // mean gradients 1 and -1: relu([1,2,3,4] - [5,1,0,2])
        assert_eq!(saliency.size(), [1, 1, 2, 2]);
        assert_eq!(values(&saliency), [0.0, 1.0, 3.0, 2.0]);
    }

    #[test]
    fn winning_probability_is_summed_over_channels() {
        let p = Tensor::from_slice(&[0.5f32, -0.25, 0.25, 0.0, -0.75, 0.5, 0.0, 0.0]);
        let saliency = Method::ContrastiveExcitationBackprop
            .saliency(&p.zeros_like(), &p.reshape([1, 2, 2, 2]));
        assert_eq!(values(&saliency), [0.0, 0.25, 0.25, 0.0]);
    }

    #[test]
    fn each_image_is_stretched_to_its_own_range() {
        let saliency = Tensor::from_slice(&[
            1.0f32, 2.0, 3.0, 5.0, 7.0, 7.0, 7.0, 7.0, 0.0, 0.0, 0.0, 0.0,
        ])
        .reshape([3, 1, 2, 2]);
        assert_eq!(
            values(&stretched(&saliency)),
            [0.0, 0.25, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
        );
    }
}

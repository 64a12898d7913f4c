//! The first step of torchvision's googlenet and inception_v3: their weights were trained
//! elsewhere, on images scaled to [-1, 1].

use tch::Tensor;

/// ImageNet's mean and standard deviation per channel, with which the input was normalised.
const CHANNELS: [(f64, f64); 3] = [(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)];

/// Converts `[N, 3, H, W]` from ImageNet's normalisation to mean 0.5 and standard deviation 0.5.
pub fn transform_input(xs: &Tensor) -> Tensor {
    let channels: Vec<Tensor> = (0..)
        .zip(CHANNELS)
        .map(|(channel, (mean, std))| {
            xs.select(1, channel).unsqueeze(1) * (std / 0.5) + (mean - 0.5) / 0.5
        })
        .collect();
    Tensor::cat(&channels, 1)
}

//! EfficientNet-Lite: EfficientNet (Tan and Le, 2019) without squeeze-and-excitation and with
//! ReLU6, in the form and with the names of the Python package `efficientnet_lite_pytorch`.

use super::layers::{batch_norm, conv_unbiased, conv1x1, linear};
use tch::nn::{self, ModuleT};

/// Epsilon of the batch norms (TensorFlow's).
const EPS: f64 = 1e-3;
/// Channels of the first and the last convolution, at every scale.
const STEM: i64 = 32;
const HEAD: i64 = 1280;

/// Channels, repeats, kernel, stride and expansion of the seven stages, before scaling.
const STAGES: [(i64, u32, i64, i64, i64); 7] = [
    (16, 1, 3, 1, 1),
    (24, 2, 3, 2, 6),
    (40, 2, 5, 2, 6),
    (80, 3, 3, 2, 6),
    (112, 3, 5, 1, 6),
    (192, 4, 5, 2, 6),
    (320, 1, 3, 1, 6),
];

/// Channels times the width factor, rounded to a multiple of 8 that is at least 90 % of it.
fn scale_channels(channels: i64, width: f64) -> i64 {
    let scaled = channels as f64 * width;
    let rounded = (((scaled + 4.0) as i64) / 8 * 8).max(8);
    if (rounded as f64) < 0.9 * scaled {
        rounded + 8
    } else {
        rounded
    }
}

/// A convolution without a bias, with TensorFlow's `SAME` padding for an input of `size` pixels
/// per side. As in the package, the padding follows from the network's own input size, so it
/// is a constant of the graph, even for other input sizes.
fn conv_same(
    p: nn::Path,
    (input, output): (i64, i64),
    kernel: i64,
    stride: i64,
    groups: i64,
    size: i64,
) -> impl ModuleT + use<> {
    let total = ((out_size(size, stride) - 1) * stride + kernel - size).max(0);
    let before = total / 2;
    let after = total - before;
    let conv = |padding| conv_unbiased(p, (input, output), kernel, stride, padding, groups);
    if before == after {
        return nn::seq_t().add(conv(before));
    }
    nn::seq_t()
        .add_fn(move |xs| xs.constant_pad_nd([before, after, before, after]))
        .add(conv(0))
}

fn out_size(size: i64, stride: i64) -> i64 {
    (size + stride - 1) / stride
}

/// An inverted residual block for an input of `size` pixels per side.
fn block(
    p: nn::Path,
    (input, output): (i64, i64),
    kernel: i64,
    stride: i64,
    expansion: i64,
    size: i64,
) -> impl ModuleT + use<> {
    let hidden = input * expansion;
    let mut layers = nn::seq_t();
    if expansion != 1 {
        layers = layers
            .add(conv1x1(&p / "_expand_conv", input, hidden))
            .add(batch_norm(&p / "_bn0", hidden, EPS))
            .add_fn(|xs| xs.relu6());
    }
    let depthwise = &p / "_depthwise_conv";
    layers = layers
        .add(conv_same(
            depthwise,
            (hidden, hidden),
            kernel,
            stride,
            hidden,
            size,
        ))
        .add(batch_norm(&p / "_bn1", hidden, EPS))
        .add_fn(|xs| xs.relu6())
        .add(conv1x1(&p / "_project_conv", hidden, output))
        .add(batch_norm(&p / "_bn2", output, EPS));
    let residual = stride == 1 && input == output;
    nn::func_t(move |xs, train| {
        let ys = xs.apply_t(&layers, train);
        if residual { ys + xs } else { ys }
    })
}

/// EfficientNet-Lite for images of `size` pixels per side, with the number of channels and of
/// layers scaled by `width` and `depth`: `[N, 3, H, W]` to scores `[N, classes]`.
pub fn lite(p: &nn::Path, width: f64, depth: f64, size: i64, classes: i64) -> Box<dyn ModuleT> {
    let mut layers = nn::seq_t()
        .add(conv_same(p / "_conv_stem", (3, STEM), 3, 2, 1, size))
        .add(batch_norm(p / "_bn0", STEM, EPS))
        .add_fn(|xs| xs.relu6());
    let mut size = out_size(size, 2);
    let mut input = STEM;
    let mut index = 0;
    for (stage, (channels, repeats, kernel, stride, expansion)) in STAGES.into_iter().enumerate() {
        let output = scale_channels(channels, width);
        // The first and the last stage keep their depth at every scale.
        let repeats = if stage == 0 || stage == STAGES.len() - 1 {
            repeats
        } else {
            (f64::from(repeats) * depth).ceil() as u32
        };
        for repeat in 0..repeats {
            let stride = if repeat == 0 { stride } else { 1 };
            let b = p / "_blocks" / index;
            layers = layers.add(block(b, (input, output), kernel, stride, expansion, size));
            size = out_size(size, stride);
            input = output;
            index += 1;
        }
    }
    Box::new(
        layers
            .add(conv1x1(p / "_conv_head", input, HEAD))
            .add(batch_norm(p / "_bn1", HEAD, EPS))
            .add_fn(|xs| xs.relu6().adaptive_avg_pool2d([1, 1]).flatten(1, -1))
            .add(linear(p / "_fc", HEAD, classes)),
    )
}

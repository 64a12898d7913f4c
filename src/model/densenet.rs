//! DenseNet-BC: Huang et al., "Densely connected convolutional networks" (2017), with
//! torchvision's names.
//!
//! Unlike `tch::vision::densenet` it ends in a global pool, as torchvision's does, and so
//! accepts images of any size from 29x29.

use super::layers::{EPS, batch_norm, conv_unbiased, conv1x1, linear};
use tch::Tensor;
use tch::nn::{self, ModuleT};

/// Width of the 1x1 bottleneck in units of the growth rate.
const BOTTLENECK: i64 = 4;

/// One dense layer: its input with `growth` new channels appended.
fn dense_layer(p: nn::Path, input: i64, growth: i64) -> impl ModuleT + use<> {
    let hidden = BOTTLENECK * growth;
    let norm1 = batch_norm(&p / "norm1", input, EPS);
    let conv1 = conv1x1(&p / "conv1", input, hidden);
    let norm2 = batch_norm(&p / "norm2", hidden, EPS);
    let conv2 = conv_unbiased(&p / "conv2", (hidden, growth), 3, 1, 1, 1);
    nn::func_t(move |xs, train| {
        let new = xs.apply_t(&norm1, train).relu().apply(&conv1);
        let new = new.apply_t(&norm2, train).relu().apply(&conv2);
        Tensor::cat(&[xs, &new], 1)
    })
}

/// The transition between two dense blocks: half the channels and half the resolution.
fn transition(p: nn::Path, input: i64) -> impl ModuleT + use<> {
    nn::seq_t()
        .add(batch_norm(&p / "norm", input, EPS))
        .add_fn(|xs| xs.relu())
        .add(conv1x1(&p / "conv", input, input / 2))
        .add_fn(|xs| xs.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None))
}

/// DenseNet with this growth rate, number of layers per block and number of channels of the
/// first convolution: `[N, 3, H, W]` to scores `[N, classes]`.
pub fn densenet(
    p: &nn::Path,
    growth: i64,
    blocks: [i64; 4],
    first: i64,
    classes: i64,
) -> Box<dyn ModuleT> {
    let f = p / "features";
    let mut layers = nn::seq_t()
        .add(conv_unbiased(&f / "conv0", (3, first), 7, 2, 3, 1))
        .add(batch_norm(&f / "norm0", first, EPS))
        .add_fn(|xs| xs.relu())
        .add_fn(|xs| xs.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false));
    let mut channels = first;
    for (block, count) in (1..).zip(blocks) {
        let b = &f / format!("denseblock{block}");
        for layer in 1..=count {
            let p = &b / format!("denselayer{layer}");
            layers = layers.add(dense_layer(p, channels, growth));
            channels += growth;
        }
        if block < blocks.len() {
            layers = layers.add(transition(&f / format!("transition{block}"), channels));
            channels /= 2;
        }
    }
    Box::new(
        layers
            .add(batch_norm(&f / "norm5", channels, EPS))
            .add_fn(|xs| xs.relu().adaptive_avg_pool2d([1, 1]).flatten(1, -1))
            .add(linear(p / "classifier", channels, classes)),
    )
}

//! DenseNet-BC: Huang et al., "Densely connected convolutional networks" (2017), with
//! torchvision's names.

use super::layers::{EPS, batch_norm, conv_unbiased, linear};
use tch::Tensor;
use tch::nn::{self, ModuleT};

/// Width of the 1x1 bottleneck in units of the growth rate.
const BOTTLENECK: i64 = 4;

/// One dense layer: its input with `growth` new channels appended.
fn dense_layer(p: nn::Path, input: i64, growth: i64) -> impl ModuleT + use<> {
    let norm1 = batch_norm(&p / "norm1", input, EPS);
    let conv1 = conv_unbiased(&p / "conv1", input, BOTTLENECK * growth, 1, 1, 0, 1);
    let norm2 = batch_norm(&p / "norm2", BOTTLENECK * growth, EPS);
    let conv2 = conv_unbiased(&p / "conv2", BOTTLENECK * growth, growth, 3, 1, 1, 1);
    nn::func_t(move |xs, train| {
        let new = xs.apply_t(&norm1, train).relu().apply(&conv1);
        let new = new.apply_t(&norm2, train).relu().apply(&conv2);
        Tensor::cat(&[xs, &new], 1)
    })
}

/// Half the channels and half the resolution, between two dense blocks.
fn transition(p: nn::Path, input: i64) -> impl ModuleT + use<> {
    nn::seq_t()
        .add(batch_norm(&p / "norm", input, EPS))
        .add_fn(|xs| xs.relu())
        .add(conv_unbiased(&p / "conv", input, input / 2, 1, 1, 0, 1))
        .add_fn(|xs| xs.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None))
}

fn densenet(
    p: &nn::Path,
    growth: i64,
    blocks: [i64; 4],
    first: i64,
    classes: i64,
) -> Box<dyn ModuleT> {
    let f = p / "features";
    let mut layers = nn::seq_t()
        .add(conv_unbiased(&f / "conv0", 3, first, 7, 2, 3, 1))
        .add(batch_norm(&f / "norm0", first, EPS))
        .add_fn(|xs| xs.relu())
        .add_fn(|xs| xs.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false));
    let mut channels = first;
    for (block, count) in (1..).zip(blocks) {
        let b = &f / format!("denseblock{block}");
        for layer in 1..=count {
            layers = layers.add(dense_layer(
                &b / format!("denselayer{layer}"),
                channels,
                growth,
            ));
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

/// DenseNet of 121 layers; as all of them `[N, 3, H, W]`, at least 29x29, to scores `[N, classes]`.
pub fn densenet121(p: &nn::Path, classes: i64) -> Box<dyn ModuleT> {
    densenet(p, 32, [6, 12, 24, 16], 64, classes)
}

/// DenseNet of 161 layers: growth rate 48 instead of 32.
pub fn densenet161(p: &nn::Path, classes: i64) -> Box<dyn ModuleT> {
    densenet(p, 48, [6, 12, 36, 24], 96, classes)
}

/// DenseNet of 169 layers.
pub fn densenet169(p: &nn::Path, classes: i64) -> Box<dyn ModuleT> {
    densenet(p, 32, [6, 12, 32, 32], 64, classes)
}

/// DenseNet of 201 layers.
pub fn densenet201(p: &nn::Path, classes: i64) -> Box<dyn ModuleT> {
    densenet(p, 32, [6, 12, 48, 32], 64, classes)
}

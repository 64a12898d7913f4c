//! VGG: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image
//! recognition" (2015), with torchvision's names and its pooling to 7x7 before the classifier.

use super::layers::{EPS, batch_norm, conv, linear};
use tch::nn::{self, ModuleT};

/// Channels of the 3x3 convolutions in each of the five stages; a max-pool ends each stage.
type Stages = [&'static [i64]; 5];

/// Configurations A, B, D and E of the paper's table 1.
const A: Stages = [&[64], &[128], &[256; 2], &[512; 2], &[512; 2]];
const B: Stages = [&[64; 2], &[128; 2], &[256; 2], &[512; 2], &[512; 2]];
const D: Stages = [&[64; 2], &[128; 2], &[256; 3], &[512; 3], &[512; 3]];
const E: Stages = [&[64; 2], &[128; 2], &[256; 4], &[512; 4], &[512; 4]];

fn vgg(p: &nn::Path, stages: Stages, norm: bool, classes: i64) -> Box<dyn ModuleT> {
    let f = p / "features";
    let c = p / "classifier";
    let mut layers = nn::seq_t();
    let mut input = 3;
    // torchvision counts every layer, the nameless ReLUs and pools too.
    let mut index = 0;
    for stage in stages {
        for &output in stage {
            layers = layers.add(conv(&f / index, input, output, 3, 1, 1));
            index += 1;
            if norm {
                layers = layers.add(batch_norm(&f / index, output, EPS));
                index += 1;
            }
            layers = layers.add_fn(|xs| xs.relu());
            index += 1;
            input = output;
        }
        layers = layers.add_fn(|xs| xs.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false));
        index += 1;
    }
    Box::new(
        layers
            .add_fn(|xs| xs.adaptive_avg_pool2d([7, 7]).flatten(1, -1))
            .add(linear(&c / 0, 512 * 7 * 7, 4096))
            .add_fn(|xs| xs.relu())
            .add(linear(&c / 3, 4096, 4096))
            .add_fn(|xs| xs.relu())
            .add(linear(&c / 6, 4096, classes)),
    )
}

/// VGG of 11 layers; as all of them `[N, 3, H, W]`, at least 32x32, to scores `[N, classes]`.
pub fn vgg11(p: &nn::Path, classes: i64) -> Box<dyn ModuleT> {
    vgg(p, A, false, classes)
}

/// VGG of 11 layers with batch-norm.
pub fn vgg11_bn(p: &nn::Path, classes: i64) -> Box<dyn ModuleT> {
    vgg(p, A, true, classes)
}

/// VGG of 13 layers.
pub fn vgg13(p: &nn::Path, classes: i64) -> Box<dyn ModuleT> {
    vgg(p, B, false, classes)
}

/// VGG of 13 layers with batch-norm.
pub fn vgg13_bn(p: &nn::Path, classes: i64) -> Box<dyn ModuleT> {
    vgg(p, B, true, classes)
}

/// VGG of 16 layers.
pub fn vgg16(p: &nn::Path, classes: i64) -> Box<dyn ModuleT> {
    vgg(p, D, false, classes)
}

/// VGG of 16 layers with batch-norm.
pub fn vgg16_bn(p: &nn::Path, classes: i64) -> Box<dyn ModuleT> {
    vgg(p, D, true, classes)
}

/// VGG of 19 layers.
pub fn vgg19(p: &nn::Path, classes: i64) -> Box<dyn ModuleT> {
    vgg(p, E, false, classes)
}

/// VGG of 19 layers with batch-norm.
pub fn vgg19_bn(p: &nn::Path, classes: i64) -> Box<dyn ModuleT> {
    vgg(p, E, true, classes)
}

//! VGG: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image
//! recognition" (2015), with torchvision's names.
//!
//! Unlike `tch::vision::vgg` it pools to 7x7 before the classifier, as torchvision's does, and
//! so accepts images of any size from 32x32.

use super::layers::{EPS, batch_norm, conv, linear};
use tch::nn::{self, ModuleT};

/// Channels of the 3x3 convolutions in each of the five stages; a max pool ends each stage.
pub type Stages = [&'static [i64]; 5];

/// Configuration A of the paper's table 1, with 11 layers.
pub const A: Stages = [&[64], &[128], &[256; 2], &[512; 2], &[512; 2]];
/// Configuration B, with 13 layers.
pub const B: Stages = [&[64; 2], &[128; 2], &[256; 2], &[512; 2], &[512; 2]];
/// Configuration D, with 16 layers.
pub const D: Stages = [&[64; 2], &[128; 2], &[256; 3], &[512; 3], &[512; 3]];
/// Configuration E, with 19 layers.
pub const E: Stages = [&[64; 2], &[128; 2], &[256; 4], &[512; 4], &[512; 4]];

/// VGG with or without batch norm: `[N, 3, H, W]` to scores `[N, classes]`.
pub fn vgg(p: &nn::Path, stages: Stages, norm: bool, classes: i64) -> Box<dyn ModuleT> {
    let f = p / "features";
    let c = p / "classifier";
    let mut layers = nn::seq_t();
    let mut input = 3;
    // torchvision numbers every layer, including ReLUs and pools, which have no parameters.
    let mut index = 0;
    for stage in stages {
        for &output in stage {
            layers = layers.add(conv(&f / index, (input, output), 3, 1, 1));
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

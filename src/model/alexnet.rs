//! AlexNet in the one-column form of Krizhevsky, "One weird trick for parallelizing
//! convolutional neural networks" (2014), with torchvision's names.
//!
//! The second convolution of `tch::vision::alexnet` has stride 2 and padding 1, torchvision's
//! has stride 1 and padding 2.

use super::layers::{conv, linear};
use tch::nn::{self, ModuleT};

/// AlexNet: `[N, 3, H, W]`, at least 63x63, to scores `[N, classes]`.
pub fn alexnet(p: &nn::Path, classes: i64) -> impl ModuleT + use<> {
    let f = p / "features";
    let c = p / "classifier";
    let pool = |xs: &tch::Tensor| xs.max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], false);
    nn::seq_t()
        .add(conv(&f / 0, (3, 64), 11, 4, 2))
        .add_fn(|xs| xs.relu())
        .add_fn(pool)
        .add(conv(&f / 3, (64, 192), 5, 1, 2))
        .add_fn(|xs| xs.relu())
        .add_fn(pool)
        .add(conv(&f / 6, (192, 384), 3, 1, 1))
        .add_fn(|xs| xs.relu())
        .add(conv(&f / 8, (384, 256), 3, 1, 1))
        .add_fn(|xs| xs.relu())
        .add(conv(&f / 10, (256, 256), 3, 1, 1))
        .add_fn(|xs| xs.relu())
        .add_fn(pool)
        .add_fn(|xs| xs.adaptive_avg_pool2d([6, 6]).flatten(1, -1))
        .add(linear(&c / 1, 256 * 6 * 6, 4096))
        .add_fn(|xs| xs.relu())
        .add(linear(&c / 4, 4096, 4096))
        .add_fn(|xs| xs.relu())
        .add(linear(&c / 6, 4096, classes))
}

//! GoogLeNet: Szegedy et al., "Going deeper with convolutions" (2015), in torchvision's form:
//! batch-norm after every convolution, 3x3 where the paper has 5x5, no auxiliary classifiers.

use super::layers::{batch_norm, conv_unbiased, linear};
use super::transform_input::transform_input;
use tch::Tensor;
use tch::nn::{self, ModuleT};

/// Epsilon of its batch-norms.
const EPS: f64 = 1e-3;

fn basic_conv(
    p: nn::Path,
    input: i64,
    output: i64,
    kernel: i64,
    stride: i64,
) -> impl ModuleT + use<> {
    let padding = kernel / 2;
    nn::seq_t()
        .add(conv_unbiased(
            &p / "conv",
            input,
            output,
            kernel,
            stride,
            padding,
            1,
        ))
        .add(batch_norm(&p / "bn", output, EPS))
        .add_fn(|xs| xs.relu())
}

/// Max-pool whose output counts a last, incomplete window too.
fn pool(kernel: i64, stride: i64, padding: i64) -> impl ModuleT {
    nn::func_t(move |xs, _| {
        let (k, s, p) = ([kernel; 2], [stride; 2], [padding; 2]);
        xs.max_pool2d(k, s, p, [1, 1], true)
    })
}

/// Channels of one inception module: the input, the 1x1 branch, the two reductions and what they
/// feed, and the projection after the pool.
struct Inception {
    name: &'static str,
    input: i64,
    branch1: i64,
    branch2: (i64, i64),
    branch3: (i64, i64),
    branch4: i64,
}

const fn inception(
    name: &'static str,
    input: i64,
    branch1: i64,
    branch2: (i64, i64),
    branch3: (i64, i64),
    branch4: i64,
) -> Inception {
    Inception {
        name,
        input,
        branch1,
        branch2,
        branch3,
        branch4,
    }
}

impl Inception {
    fn build(&self, p: &nn::Path) -> impl ModuleT + use<> {
        let p = p / self.name;
        let pair = |p: nn::Path, (reduced, output)| {
            nn::seq_t()
                .add(basic_conv(&p / 0, self.input, reduced, 1, 1))
                .add(basic_conv(&p / 1, reduced, output, 3, 1))
        };
        let branch1 = basic_conv(&p / "branch1", self.input, self.branch1, 1, 1);
        let branch2 = pair(&p / "branch2", self.branch2);
        // The paper has 5x5 here; the weights are for torchvision's 3x3.
        let branch3 = pair(&p / "branch3", self.branch3);
        let branch4 = nn::seq_t().add(pool(3, 1, 1)).add(basic_conv(
            &p / "branch4" / 1,
            self.input,
            self.branch4,
            1,
            1,
        ));
        nn::func_t(move |xs, train| {
            let branches = [
                xs.apply_t(&branch1, train),
                xs.apply_t(&branch2, train),
                xs.apply_t(&branch3, train),
                xs.apply_t(&branch4, train),
            ];
            Tensor::cat(&branches, 1)
        })
    }
}

/// Table 1 of the paper.
const INCEPTION3: [Inception; 2] = [
    inception("inception3a", 192, 64, (96, 128), (16, 32), 32),
    inception("inception3b", 256, 128, (128, 192), (32, 96), 64),
];
const INCEPTION4: [Inception; 5] = [
    inception("inception4a", 480, 192, (96, 208), (16, 48), 64),
    inception("inception4b", 512, 160, (112, 224), (24, 64), 64),
    inception("inception4c", 512, 128, (128, 256), (24, 64), 64),
    inception("inception4d", 512, 112, (144, 288), (32, 64), 64),
    inception("inception4e", 528, 256, (160, 320), (32, 128), 128),
];
const INCEPTION5: [Inception; 2] = [
    inception("inception5a", 832, 256, (160, 320), (32, 128), 128),
    inception("inception5b", 832, 384, (192, 384), (48, 128), 128),
];

/// `[N, 3, H, W]`, at least 15x15, to scores `[N, classes]`.
pub fn googlenet(p: &nn::Path, classes: i64) -> impl ModuleT + use<> {
    let mut layers = nn::seq_t()
        .add_fn(transform_input)
        .add(basic_conv(p / "conv1", 3, 64, 7, 2))
        .add(pool(3, 2, 0))
        .add(basic_conv(p / "conv2", 64, 64, 1, 1))
        .add(basic_conv(p / "conv3", 64, 192, 3, 1))
        .add(pool(3, 2, 0));
    for module in &INCEPTION3 {
        layers = layers.add(module.build(p));
    }
    layers = layers.add(pool(3, 2, 0));
    for module in &INCEPTION4 {
        layers = layers.add(module.build(p));
    }
    layers = layers.add(pool(2, 2, 0));
    for module in &INCEPTION5 {
        layers = layers.add(module.build(p));
    }
    layers
        .add_fn(|xs| xs.adaptive_avg_pool2d([1, 1]).flatten(1, -1))
        .add(linear(p / "fc", 1024, classes))
}

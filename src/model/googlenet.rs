//! GoogLeNet: Szegedy et al., "Going deeper with convolutions" (2015), in torchvision's form:
//! batch norm after every convolution, 3x3 instead of the paper's 5x5 convolutions, no auxiliary
//! classifiers.

use super::layers::{batch_norm, conv_unbiased, linear};
use super::transform_input::transform_input;
use tch::Tensor;
use tch::nn::{self, ModuleT};

/// Epsilon of the batch norms.
const EPS: f64 = 1e-3;

fn basic_conv(
    p: nn::Path,
    input: i64,
    output: i64,
    kernel: i64,
    stride: i64,
) -> impl ModuleT + use<> {
    let conv = conv_unbiased(&p / "conv", (input, output), kernel, stride, kernel / 2, 1);
    nn::seq_t()
        .add(conv)
        .add(batch_norm(&p / "bn", output, EPS))
        .add_fn(|xs| xs.relu())
}

/// Max pool that includes a last, incomplete window (`ceil_mode`).
fn pool(kernel: i64, stride: i64, padding: i64) -> impl ModuleT {
    nn::func_t(move |xs, _| {
        let (k, s, p) = ([kernel; 2], [stride; 2], [padding; 2]);
        xs.max_pool2d(k, s, p, [1, 1], true)
    })
}

/// One inception module: its name, and the channels of the input, of the 1x1 branch, of the two
/// branches with a reduction and a 3x3 convolution, and of the projection after the pool.
type Inception = (&'static str, i64, i64, (i64, i64), (i64, i64), i64);

/// Table 1 of the paper: the kernel of a max pool, and the modules after it.
#[rustfmt::skip]
const STAGES: [(i64, &[Inception]); 3] = [
    (3, &[
        ("inception3a", 192, 64, (96, 128), (16, 32), 32),
        ("inception3b", 256, 128, (128, 192), (32, 96), 64),
    ]),
    (3, &[
        ("inception4a", 480, 192, (96, 208), (16, 48), 64),
        ("inception4b", 512, 160, (112, 224), (24, 64), 64),
        ("inception4c", 512, 128, (128, 256), (24, 64), 64),
        ("inception4d", 512, 112, (144, 288), (32, 64), 64),
        ("inception4e", 528, 256, (160, 320), (32, 128), 128),
    ]),
    (2, &[
        ("inception5a", 832, 256, (160, 320), (32, 128), 128),
        ("inception5b", 832, 384, (192, 384), (48, 128), 128),
    ]),
];

fn inception(
    p: nn::Path,
    &(name, input, branch1, branch2, branch3, branch4): &Inception,
) -> impl ModuleT + use<> {
    let p = p / name;
    let reduced = |p: nn::Path, (reduced, output)| {
        nn::seq_t()
            .add(basic_conv(&p / 0, input, reduced, 1, 1))
            .add(basic_conv(&p / 1, reduced, output, 3, 1))
    };
    let branch1 = basic_conv(&p / "branch1", input, branch1, 1, 1);
    let branch2 = reduced(&p / "branch2", branch2);
    // 5x5 in the paper; the weights are for torchvision's 3x3.
    let branch3 = reduced(&p / "branch3", branch3);
    let branch4 =
        nn::seq_t()
            .add(pool(3, 1, 1))
            .add(basic_conv(&p / "branch4" / 1, input, branch4, 1, 1));
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

/// GoogLeNet: `[N, 3, H, W]`, at least 15x15, to scores `[N, classes]`.
pub fn googlenet(p: &nn::Path, classes: i64) -> impl ModuleT + use<> {
    let mut layers = nn::seq_t()
        .add_fn(transform_input)
        .add(basic_conv(p / "conv1", 3, 64, 7, 2))
        .add(pool(3, 2, 0))
        .add(basic_conv(p / "conv2", 64, 64, 1, 1))
        .add(basic_conv(p / "conv3", 64, 192, 3, 1));
    for (kernel, modules) in STAGES {
        layers = layers.add(pool(kernel, 2, 0));
        for module in modules {
            layers = layers.add(inception(p.clone(), module));
        }
    }
    layers
        .add_fn(|xs| xs.adaptive_avg_pool2d([1, 1]).flatten(1, -1))
        .add(linear(p / "fc", 1024, classes))
}

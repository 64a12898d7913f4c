//! Layers of the zoo's networks. Parameters start as constants: their values come from a file,
//! and random ones would take time.

use tch::nn::{self, Init};

/// PyTorch's default epsilon of batch norm.
pub const EPS: f64 = 1e-5;

/// A square convolution with a bias, `[N, input, H, W]` to `[N, output, H', W']`.
pub fn conv(
    p: nn::Path,
    (input, output): (i64, i64),
    kernel: i64,
    stride: i64,
    padding: i64,
) -> nn::Conv2D {
    nn::conv2d(p, input, output, kernel, config(stride, padding, 1, true))
}

/// A 1x1 convolution without a bias, `[N, input, H, W]` to `[N, output, H, W]`.
pub fn conv1x1(p: nn::Path, input: i64, output: i64) -> nn::Conv2D {
    conv_unbiased(p, (input, output), 1, 1, 0, 1)
}

/// A square convolution without a bias, for use before a batch norm: `[N, input, H, W]` to
/// `[N, output, H', W']`, in `groups` of channels.
pub fn conv_unbiased(
    p: nn::Path,
    (input, output): (i64, i64),
    kernel: i64,
    stride: i64,
    padding: i64,
    groups: i64,
) -> nn::Conv2D {
    let config = config(stride, padding, groups, false);
    nn::conv2d(p, input, output, kernel, config)
}

fn config(stride: i64, padding: i64, groups: i64, bias: bool) -> nn::ConvConfig {
    nn::ConvConfig {
        stride,
        padding,
        groups,
        bias,
        ws_init: Init::Const(0.0),
        bs_init: Init::Const(0.0),
        ..Default::default()
    }
}

/// Batch norm over `[N, channels, H, W]`.
pub fn batch_norm(p: nn::Path, channels: i64, eps: f64) -> nn::BatchNorm {
    let config = nn::BatchNormConfig {
        eps,
        ws_init: Init::Const(1.0),
        ..Default::default()
    };
    nn::batch_norm2d(p, channels, config)
}

/// A fully connected layer, `[N, input]` to `[N, output]`.
pub fn linear(p: nn::Path, input: i64, output: i64) -> nn::Linear {
    let config = nn::LinearConfig {
        ws_init: Init::Const(0.0),
        bs_init: Some(Init::Const(0.0)),
        bias: true,
    };
    nn::linear(p, input, output, config)
}

//! Convolutions, and padding.

use anyhow::{Context, Result, bail, ensure};

use super::super::node::NodeCall;
use super::super::writer::Number::{self, Known};
use super::super::writer::{Arg, Writer};
use crate::hooks::BuiltValue;

pub fn add(writer: &mut Writer, call: &NodeCall) -> Result<Option<BuiltValue>> {
    let made = match call.operator() {
        "Conv" => convolution(writer, call),
        "ConvTranspose" => transposed(writer, call),
        "Pad" => pad(writer, call),
        _ => return Ok(None),
    };
    made.map(Some)
}

/// The window of a convolution or pooling, for each dimension of space.
pub struct Window {
    pub kernel: Vec<i64>,
    pub strides: Vec<i64>,
    pub dilations: Vec<i64>,
    /// Before and after each dimension.
    pub pads: Vec<[Number; 2]>,
}

impl Window {
    /// The window of `kernel` over `x`. `is_ceil`: sizes are rounded up, which padding for the
    /// same size needs not.
    pub fn of(
        writer: &mut Writer,
        call: &NodeCall,
        x: BuiltValue,
        kernel: Vec<i64>,
    ) -> Result<Window> {
        let dimensions = kernel.len();
        ensure!(
            kernel.iter().all(|&side| side > 0),
            "has a kernel of the shape {kernel:?}"
        );
        let list = |name: &str, default: i64| -> Result<Vec<i64>> {
            let given = call.ints(name)?;
            let given = given.unwrap_or_else(|| vec![default; dimensions]);
            ensure!(
                given.len() == dimensions && given.iter().all(|&item| item > 0),
                "has {name} that do not fit its kernel"
            );
            Ok(given)
        };
        let strides = list("strides", 1)?;
        let dilations = list("dilations", 1)?;
        let given = call
            .ints("pads")?
            .unwrap_or_else(|| vec![0; 2 * dimensions]);
        ensure!(
            given.len() == 2 * dimensions,
            "has pads that do not fit its kernel"
        );
        let mut window = Window {
            kernel,
            strides,
            dilations,
            pads: (0..dimensions)
                .map(|dim| [Known(given[dim]), Known(given[dim + dimensions])])
                .collect(),
        };
        match call.text("auto_pad", "NOTSET")? {
            "NOTSET" | "" => {}
            "VALID" => window.pads = vec![[Known(0); 2]; dimensions],
            how @ ("SAME_UPPER" | "SAME_LOWER") => {
                for dim in 0..dimensions {
                    window.pads[dim] = window.same(writer, x, dim, how == "SAME_UPPER")?;
                }
            }
            other => bail!(call.unknown("auto_pad", other)),
        }
        Ok(window)
    }

    /// The values that the window spans.
    pub fn span(&self, dim: usize) -> i64 {
        (self.kernel[dim] - 1)
            .saturating_mul(self.dilations[dim])
            .saturating_add(1)
    }

    /// The padding with which a size is divided by the stride, rounded up.
    fn same(
        &self,
        writer: &mut Writer,
        x: BuiltValue,
        dim: usize,
        is_upper: bool,
    ) -> Result<[Number; 2]> {
        let (span, stride) = (self.span(dim), self.strides[dim]);
        let total = if stride == 1 {
            Known(span - 1)
        } else {
            let size = writer.size(x, dim as i64 + 2)?;
            let rounded = writer.arithmetic("add", size, Known(stride - 1))?;
            let count = writer.arithmetic("floordiv", rounded, Known(stride))?;
            let before_last = writer.arithmetic("sub", count, Known(1))?;
            let reached = writer.arithmetic("mul", before_last, Known(stride))?;
            let reached = writer.arithmetic("add", reached, Known(span))?;
            let lacking = writer.arithmetic("sub", reached, size)?;
            writer.arithmetic("max", lacking, Known(0))?
        };
        let less = writer.arithmetic("floordiv", total, Known(2))?;
        let more = writer.arithmetic("sub", total, less)?;
        Ok(if is_upper { [less, more] } else { [more, less] })
    }

    /// The padding, if it is known and the same on both sides.
    pub fn symmetric(&self) -> Option<Vec<i64>> {
        let pads = self.pads.iter();
        pads.map(|pads| match pads {
            [Known(before), Known(after)] if before == after => Some(*before),
            _ => None,
        })
        .collect()
    }

    /// The padding for libtorch's operators: the last dimension first.
    pub fn pads_from_the_end(&self) -> Vec<Number> {
        self.pads.iter().rev().flatten().copied().collect()
    }

    /// The number of windows over `size` values and `after` further ones of padding. Rounded up
    /// there is no window in that padding alone.
    pub fn made(&self, dim: usize, size: i64, after: i64, is_ceil: bool) -> Option<i64> {
        let [Known(before), _] = self.pads[dim] else {
            return None;
        };
        let stride = self.strides[dim];
        let room = size.checked_add(before)?.checked_add(after)? - self.span(dim);
        let rounded = if is_ceil {
            room.checked_add(stride - 1)?
        } else {
            room
        };
        let count = rounded.div_euclid(stride) + 1;
        let begins_behind = is_ceil && (count - 1).checked_mul(stride)? >= size + before;
        (room >= 0).then_some(count - i64::from(begins_behind))
    }
}

/// A tensor with `value` around it.
pub fn padded(
    writer: &mut Writer,
    x: BuiltValue,
    pads: Vec<Number>,
    value: f64,
) -> Result<BuiltValue> {
    if pads.iter().all(|&pad| pad == Known(0)) {
        return Ok(x);
    }
    writer.op(
        "constant_pad_nd",
        "",
        &[x.into(), Arg::Numbers(pads), Arg::Float(value)],
    )
}

/// The sides of the kernel: an attribute, or the shape of the weights.
fn kernel(writer: &mut Writer, call: &NodeCall, weight: BuiltValue) -> Result<Vec<i64>> {
    let shape = writer.shape(weight)?;
    let sizes = shape.context("has weights of an unknown shape")?.sizes;
    ensure!(
        (3..=5).contains(&sizes.len()),
        "has weights of the shape {sizes:?}"
    );
    let sides = sizes[2..].to_vec();
    let given = call.ints("kernel_shape")?.unwrap_or_else(|| sides.clone());
    ensure!(
        given == sides,
        "has a kernel of {given:?}, but weights of the shape {sizes:?}"
    );
    Ok(sides)
}

fn convolution(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let (mut x, weight) = (call.tensor(writer, 0)?, call.tensor(writer, 1)?);
    let bias = call.optional_tensor(writer, 2)?;
    let kernel = kernel(writer, call, weight)?;
    let name = ["conv1d", "conv2d", "conv3d"][kernel.len() - 1];
    let window = Window::of(writer, call, x, kernel)?;
    let padding = window
        .symmetric()
        .unwrap_or_else(|| vec![0; window.pads.len()]);
    if window.symmetric().is_none() {
        x = padded(writer, x, window.pads_from_the_end(), 0.0)?;
    }
    ensure!(padding.iter().all(|&pad| pad >= 0), "has negative pads");
    writer.op(
        name,
        "",
        &[
            x.into(),
            weight.into(),
            bias.into(),
            Arg::Ints(window.strides),
            Arg::Ints(padding),
            Arg::Ints(window.dilations),
            Arg::Int(call.int("group", 1)?),
        ],
    )
}

/// What it makes is cut by the pads.
fn transposed(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let (x, weight) = (call.tensor(writer, 0)?, call.tensor(writer, 1)?);
    let bias = call.optional_tensor(writer, 2)?;
    let kernel = kernel(writer, call, weight)?;
    let dimensions = kernel.len();
    let name = ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"][dimensions - 1];
    let overload = ["", "input", "input"][dimensions - 1];
    let how = call.text("auto_pad", "NOTSET")?;
    ensure!(
        matches!(how, "NOTSET" | "" | "VALID" | "SAME_UPPER" | "SAME_LOWER"),
        call.unknown("auto_pad", how)
    );
    // Padding for the same size means another size here.
    let given = call.ints("pads")?;
    let mut window = Window {
        strides: call.ints("strides")?.unwrap_or_else(|| vec![1; dimensions]),
        dilations: call
            .ints("dilations")?
            .unwrap_or_else(|| vec![1; dimensions]),
        pads: vec![[Known(0); 2]; dimensions],
        kernel,
    };
    let mut added = call
        .ints("output_padding")?
        .unwrap_or_else(|| vec![0; dimensions]);
    let fits = [window.strides.len(), window.dilations.len(), added.len()];
    ensure!(
        fits.iter().all(|&count| count == dimensions)
            && given
                .as_ref()
                .is_none_or(|pads| pads.len() == 2 * dimensions)
            && window
                .strides
                .iter()
                .chain(&window.dilations)
                .all(|&item| item > 0),
        "has strides, dilations or pads that do not fit its kernel"
    );
    let wanted = call.ints("output_shape")?;
    if wanted.is_some() || how.starts_with("SAME") {
        let wanted = wanted.unwrap_or_default();
        for (dim, added) in added.iter_mut().enumerate() {
            let (stride, span) = (window.strides[dim], window.span(dim));
            let rest = wanted.len().checked_sub(dimensions);
            // What is made beyond `size * stride`, or beyond the size that is wanted.
            let mut total = span.saturating_add(*added).saturating_sub(stride);
            if let Some(wanted) = rest.and_then(|rest| wanted.get(rest + dim)) {
                let Known(size) = writer.size(x, dim as i64 + 2)? else {
                    bail!("has output_shape, which needs images of a fixed size");
                };
                let natural = size.checked_mul(stride).context("has a huge stride")?;
                total = natural.saturating_sub(*wanted).saturating_add(total);
            }
            if total < 0 && !wanted.is_empty() {
                *added = added.saturating_sub(total);
                ensure!(
                    *added < stride.max(window.dilations[dim]),
                    "makes more values than its stride gives, which prism does not run"
                );
            }
            let total = total.max(0);
            let (less, more) = (Known(total / 2), Known(total - total / 2));
            window.pads[dim] = if how == "SAME_UPPER" {
                [less, more]
            } else {
                [more, less]
            };
        }
    } else if let Some(pads) = given.filter(|_| how != "VALID") {
        for dim in 0..dimensions {
            window.pads[dim] = [Known(pads[dim]), Known(pads[dim + dimensions])];
        }
    }
    let padding = window.symmetric();
    let made = writer.op(
        name,
        overload,
        &[
            x.into(),
            weight.into(),
            bias.into(),
            Arg::Ints(window.strides.clone()),
            Arg::Ints(padding.clone().unwrap_or_else(|| vec![0; dimensions])),
            Arg::Ints(added),
            Arg::Int(call.int("group", 1)?),
            Arg::Ints(window.dilations.clone()),
        ],
    )?;
    if padding.is_some() {
        return Ok(made);
    }
    let mut cut = Vec::new();
    for pad in window.pads_from_the_end() {
        cut.push(writer.arithmetic("sub", Known(0), pad)?);
    }
    padded(writer, made, cut, 0.0)
}

fn pad(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let sides = sides(writer, call, x)?;
    padded_by(writer, call, x, sides)
}

/// What a node pads before and after each dimension of `x`. The pads are attributes up to opset 10,
/// and inputs from 11 on.
pub fn sides(writer: &mut Writer, call: &NodeCall, x: BuiltValue) -> Result<Vec<[Number; 2]>> {
    let rank = writer.rank(x)?;
    let given = if call.version < 11 {
        let given = call.ints("pads")?.context("lacks its pads")?;
        given.into_iter().map(Known).collect()
    } else {
        call.numbers(writer, 1)?.items
    };
    let axes = match call.optional(3) {
        Some(axes) => {
            let axes = writer.numbers(axes)?.constants();
            axes.context("has axes that depend on the images")?
        }
        None => (0..rank).collect(),
    };
    ensure!(
        given.len() == 2 * axes.len(),
        "has pads that do not fit its input"
    );
    let mut sides = vec![[Known(0); 2]; rank as usize];
    for (at, &axis) in axes.iter().enumerate() {
        let axis = writer.axis(axis, rank)?;
        sides[axis as usize] = [given[at], given[at + axes.len()]];
    }
    Ok(sides)
}

/// A tensor with what the node puts around it.
pub fn padded_by(
    writer: &mut Writer,
    call: &NodeCall,
    x: BuiltValue,
    sides: Vec<[Number; 2]>,
) -> Result<BuiltValue> {
    let rank = sides.len();
    let mut pads: Vec<Number> = sides.into_iter().rev().flatten().collect();
    while let [.., Known(0), Known(0)] = pads.as_slice() {
        pads.truncate(pads.len() - 2);
    }
    let how = match call.text("mode", "constant")? {
        "constant" => {
            let value = match call.optional_tensor(writer, 2)? {
                Some(value) => {
                    let value = writer.known_number(value)?;
                    value.context("has a value that depends on the images")?
                }
                None => call.float("value", 0.0)?,
            };
            if writer.is_whole(x)? {
                let arguments = [x.into(), Arg::Numbers(pads), Arg::Int(value as i64)];
                return writer.op("constant_pad_nd", "", &arguments);
            }
            return padded(writer, x, pads, value);
        }
        _ if pads.is_empty() => return Ok(x),
        "reflect" => "reflect",
        "edge" => "replicate",
        "wrap" => "circular",
        other => bail!(call.unknown("mode", other)),
    };
    // libtorch pads the last dimensions, except the first two, in these ways.
    let count = rank.saturating_sub(2);
    ensure!(
        count > 0 && pads.len() <= 2 * count,
        "pads channels or images by {how}, which prism does not run"
    );
    pads.resize(2 * count, Known(0));
    writer.op("pad", "", &[x.into(), Arg::Numbers(pads), Arg::Text(how)])
}

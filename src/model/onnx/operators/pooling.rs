//! Pooling with a window, and over all of space.

use anyhow::{Context, Result, ensure};

use super::super::node::NodeCall;
use super::super::writer::Number::Known;
use super::super::writer::{Arg, Writer};
use super::layers::{Window, padded};
use crate::hooks::BuiltValue;

pub fn add(writer: &mut Writer, call: &NodeCall) -> Result<Option<BuiltValue>> {
    let made = match call.operator() {
        "MaxPool" => maximum(writer, call),
        "AveragePool" => average(writer, call),
        "LpPool" => norm(writer, call),
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => global(writer, call),
        _ => return Ok(None),
    };
    made.map(Some)
}

fn window(writer: &mut Writer, call: &NodeCall, x: BuiltValue) -> Result<Window> {
    let kernel = call.ints("kernel_shape")?;
    let kernel = kernel.context("lacks its kernel_shape")?;
    ensure!(
        (1..=3).contains(&kernel.len()),
        "has a kernel of the shape {kernel:?}"
    );
    Window::of(writer, call, x, kernel)
}

/// The name of a pooling for the dimensions of its window.
fn name(names: [&'static str; 3], window: &Window) -> &'static str {
    names[window.kernel.len() - 1]
}

/// How libtorch pads and rounds so that it makes as many values as the file asks for.
struct Fitted {
    x: BuiltValue,
    padding: Vec<i64>,
    is_ceil: bool,
}

/// libtorch pads by at most half of the window, on both sides alike. More padding at the end is
/// rounding up, if that gives as many values; else the tensor is padded with `value`.
fn fitted(
    writer: &mut Writer,
    call: &NodeCall,
    x: BuiltValue,
    window: &Window,
    value: f64,
) -> Result<Fitted> {
    let is_ceil = call.flag("ceil_mode", false)?;
    let is_narrow = |padding: &Vec<i64>| {
        let mut sides = padding.iter().zip(&window.kernel);
        sides.all(|(&pad, &side)| pad >= 0 && pad <= side / 2)
    };
    if let Some(padding) = window.symmetric().filter(is_narrow) {
        return Ok(Fitted {
            x,
            padding,
            is_ceil,
        });
    }
    let mut padding = Vec::new();
    let mut around = window.pads_from_the_end();
    let mut is_known = true;
    for dim in 0..window.kernel.len() {
        let size = writer.size(x, dim as i64 + 2)?;
        let ([Known(before), Known(after)], Known(size)) = (window.pads[dim], size) else {
            is_known = false;
            continue;
        };
        let Some(count) = window.made(dim, size, after, is_ceil) else {
            is_known = false;
            continue;
        };
        if window.made(dim, size, before, true) == Some(count) {
            padding.push(before);
        }
        let reached = (count - 1) * window.strides[dim] + window.span(dim);
        let place = 2 * (window.kernel.len() - 1 - dim);
        around[place + 1] = Known(reached - size - before);
    }
    if padding.len() == window.kernel.len() && is_narrow(&padding) {
        return Ok(Fitted {
            x,
            padding,
            is_ceil: true,
        });
    }
    let is_ceil = is_ceil && !is_known;
    if !is_known {
        around = window.pads_from_the_end();
    }
    Ok(Fitted {
        x: padded(writer, x, around, value)?,
        padding: vec![0; window.kernel.len()],
        is_ceil,
    })
}

fn maximum(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let window = window(writer, call, x)?;
    ensure!(
        window.dilations.iter().all(|&by| by == 1)
            || !call.text("auto_pad", "")?.starts_with("SAME"),
        "has dilations and auto_pad, which prism does not run; export the network with pads"
    );
    let fitted = fitted(writer, call, x, &window, f64::NEG_INFINITY)?;
    let name = name(["max_pool1d", "max_pool2d", "max_pool3d"], &window);
    let made = writer.op(
        name,
        "",
        &[
            fitted.x.into(),
            Arg::Ints(window.kernel.clone()),
            Arg::Ints(window.strides.clone()),
            Arg::Ints(fitted.padding),
            Arg::Ints(window.dilations.clone()),
            Arg::Bool(fitted.is_ceil),
        ],
    )?;
    let is_padded = fitted.x != x;
    begun(writer, x, &window, made, fitted.is_ceil && is_padded)
}

fn average_of(
    writer: &mut Writer,
    x: BuiltValue,
    window: &Window,
    padding: Vec<i64>,
    is_ceil: bool,
    counts_padding: bool,
) -> Result<BuiltValue> {
    let name = name(["avg_pool1d", "avg_pool2d", "avg_pool3d"], window);
    writer.op(
        name,
        "",
        &[
            x.into(),
            Arg::Ints(window.kernel.clone()),
            Arg::Ints(window.strides.clone()),
            Arg::Ints(padding),
            Arg::Bool(is_ceil),
            Arg::Bool(counts_padding),
        ],
    )
}

/// Padding counts or not. Where it does not, and libtorch cannot pad so, the mean with padding is
/// divided by that of ones.
fn average(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let window = window(writer, call, x)?;
    ensure!(
        window.dilations.iter().all(|&by| by == 1),
        "has dilations, which prism does not run"
    );
    let counts_padding = call.flag("count_include_pad", false)?;
    let fitted = fitted(writer, call, x, &window, 0.0)?;
    let is_symmetric = window.symmetric().is_some();
    if fitted.x == x && (is_symmetric || !counts_padding) {
        let (padding, is_ceil) = (fitted.padding, fitted.is_ceil);
        return average_of(writer, x, &window, padding, is_ceil, counts_padding);
    }
    let none = vec![0; window.kernel.len()];
    let pads = window.pads_from_the_end();
    if counts_padding {
        let around = padded(writer, x, pads, 0.0)?;
        let is_ceil = call.flag("ceil_mode", false)?;
        let made = average_of(writer, around, &window, none, is_ceil, true)?;
        return begun(writer, x, &window, made, is_ceil);
    }
    let is_ceil = fitted.is_ceil;
    let mean = average_of(writer, fitted.x, &window, none.clone(), is_ceil, false)?;
    let mut sizes = vec![Known(1), Known(1)];
    for dim in 0..window.kernel.len() {
        sizes.push(writer.size(x, dim as i64 + 2)?);
    }
    let kind = Arg::Int(super::super::writer::FLOAT);
    let arguments = [Arg::Numbers(sizes), kind, Arg::None, Arg::Device];
    let ones = writer.op("ones", "", &arguments)?;
    let ones = super::pooling::fitted(writer, call, ones, &window, 0.0)?.x;
    let share = average_of(writer, ones, &window, none, is_ceil, false)?;
    let made = writer.op("div", "Tensor", &[mean.into(), share.into()])?;
    begun(writer, x, &window, made, is_ceil)
}

/// What windows make of `x` after explicit padding: rounded up, none begins in the padding behind
/// the values.
fn begun(
    writer: &mut Writer,
    x: BuiltValue,
    window: &Window,
    mut made: BuiltValue,
    is_ceil: bool,
) -> Result<BuiltValue> {
    for dim in (0..window.kernel.len()).filter(|_| is_ceil) {
        let (axis, before) = (dim as i64 + 2, window.pads[dim][0]);
        let size = writer.size(x, axis)?;
        let last = writer.arithmetic("add", size, before)?;
        let last = writer.arithmetic("sub", last, Known(1))?;
        let last = writer.arithmetic("floordiv", last, Known(window.strides[dim]))?;
        let count = writer.arithmetic("add", last, Known(1))?;
        let part = [Arg::Int(axis), Arg::Int(0), count.into(), Arg::Int(1)];
        made = writer.op("slice", "Tensor", &[&[made.into()], &part[..]].concat())?;
    }
    Ok(made)
}

/// The p-norm of the values in each window.
fn norm(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let window = window(writer, call, x)?;
    ensure!(
        window.dilations.iter().all(|&by| by == 1) && !call.flag("ceil_mode", false)?,
        "has dilations or ceil_mode, which prism does not run"
    );
    let power = call.int("p", 2)? as f64;
    let x = padded(writer, x, window.pads_from_the_end(), 0.0)?;
    let x = writer.op("abs", "", &[x.into()])?;
    let x = writer.op("pow", "Tensor_Scalar", &[x.into(), Arg::Float(power)])?;
    let none = vec![0; window.kernel.len()];
    let mean = average_of(writer, x, &window, none, false, true)?;
    let count = window.kernel.iter().product::<i64>();
    let sum = writer.op("mul", "Scalar", &[mean.into(), Arg::Float(count as f64)])?;
    writer.op(
        "pow",
        "Tensor_Scalar",
        &[sum.into(), Arg::Float(1.0 / power)],
    )
}

fn global(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let rank = writer.rank(x)?;
    let space: Vec<i64> = (2..rank).collect();
    ensure!(!space.is_empty(), "pools a tensor of {rank} dimensions");
    let dims = Arg::Ints(space);
    match call.operator() {
        "GlobalAveragePool" if rank == 4 => writer.op(
            "adaptive_avg_pool2d",
            "",
            &[x.into(), Arg::Ints(vec![1, 1])],
        ),
        "GlobalAveragePool" => writer.op("mean", "dim", &[x.into(), dims, Arg::Bool(true)]),
        "GlobalMaxPool" if rank == 4 => {
            let sides = Arg::Ints(vec![1, 1]);
            let made = writer.ops("adaptive_max_pool2d", "", &[x.into(), sides], 2)?;
            Ok(made[0])
        }
        "GlobalMaxPool" => writer.op("amax", "", &[x.into(), dims, Arg::Bool(true)]),
        _ => {
            let order = Arg::Float(call.int("p", 2)? as f64);
            writer.op(
                "linalg_vector_norm",
                "",
                &[x.into(), order, dims, Arg::Bool(true)],
            )
        }
    }
}

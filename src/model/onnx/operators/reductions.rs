//! Sums, means and the like over dimensions; softmax; the best values.

use anyhow::{Context, Result, ensure};

use super::super::node::NodeCall;
use super::super::writer::{Arg, Writer};
use crate::hooks::BuiltValue;

pub fn add(writer: &mut Writer, call: &NodeCall) -> Result<Option<BuiltValue>> {
    let operator = call.operator();
    let made = match operator {
        "Softmax" | "LogSoftmax" | "Hardmax" => softmax(writer, call),
        "ArgMax" | "ArgMin" => best(writer, call),
        "CumSum" => cumulated(writer, call),
        "LpNormalization" => normalised(writer, call),
        name if name.starts_with("Reduce") => return reduced(writer, call),
        _ => return Ok(None),
    };
    made.map(Some)
}

/// The dimensions that are reduced, from the front; none if nothing is.
pub fn reduced_axes(writer: &mut Writer, call: &NodeCall, x: BuiltValue) -> Result<Vec<i64>> {
    let axes = call.ints_or_input(writer, "axes", 1)?.unwrap_or_default();
    let rank = writer.rank(x)?;
    if axes.is_empty() && call.flag("noop_with_empty_axes", false)? {
        return Ok(axes);
    }
    match axes.is_empty() {
        true => Ok((0..rank).collect()),
        false => axes.iter().map(|&axis| writer.axis(axis, rank)).collect(),
    }
}

fn reduced(writer: &mut Writer, call: &NodeCall) -> Result<Option<BuiltValue>> {
    let x = call.tensor(writer, 0)?;
    let axes = reduced_axes(writer, call, x)?;
    reduced_over(writer, call, x, axes)
}

/// A tensor reduced over dimensions.
pub fn reduced_over(
    writer: &mut Writer,
    call: &NodeCall,
    mut x: BuiltValue,
    axes: Vec<i64>,
) -> Result<Option<BuiltValue>> {
    let keeps = Arg::Bool(call.flag("keepdims", true)?);
    let is_nothing = axes.is_empty();
    let operator = call.operator();
    if matches!(operator, "ReduceSumSquare") {
        x = writer.op("square", "", &[x.into()])?;
    }
    if is_nothing {
        let made = match operator {
            "ReduceL1" | "ReduceL2" => writer.op("abs", "", &[x.into()]),
            "ReduceLogSum" => writer.op("log", "", &[x.into()]),
            _ => Ok(x),
        };
        return made.map(Some);
    }
    let dims = Arg::Ints(axes.clone());
    let made = match operator {
        "ReduceMean" => writer.op("mean", "dim", &[x.into(), dims, keeps]),
        "ReduceSum" | "ReduceSumSquare" => {
            writer.op("sum", "dim_IntList", &[x.into(), dims, keeps])
        }
        "ReduceMax" => writer.op("amax", "", &[x.into(), dims, keeps]),
        "ReduceMin" => writer.op("amin", "", &[x.into(), dims, keeps]),
        "ReduceL1" | "ReduceL2" => {
            let order = Arg::Float(if operator == "ReduceL1" { 1.0 } else { 2.0 });
            writer.op("linalg_vector_norm", "", &[x.into(), order, dims, keeps])
        }
        "ReduceLogSum" => {
            let sum = writer.op("sum", "dim_IntList", &[x.into(), dims, keeps])?;
            writer.op("log", "", &[sum.into()])
        }
        "ReduceLogSumExp" => writer.op("logsumexp", "", &[x.into(), dims, keeps]),
        "ReduceProd" => {
            let mut axes = axes;
            axes.sort_unstable();
            for &axis in axes.iter().rev() {
                x = writer.op(
                    "prod",
                    "dim_int",
                    &[x.into(), Arg::Int(axis), keeps.clone()],
                )?;
            }
            Ok(x)
        }
        _ => return Ok(None),
    };
    made.map(Some)
}

/// Up to opset 12 all dimensions from the axis on are one; the first one is the default.
fn softmax(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let rank = writer.rank(x)?;
    let is_flat = call.version < 13;
    let axis = writer.axis(call.int("axis", if is_flat { 1 } else { -1 })?, rank)?;
    let sizes = writer.fixed_sizes(x)?.unwrap_or_default();
    let behind = sizes.iter().skip(axis as usize + 1);
    let is_one = behind.clone().all(|&size| size == Some(1));
    if is_flat && !is_one {
        let flat = writer.op(
            "flatten",
            "using_ints",
            &[x.into(), Arg::Int(axis), Arg::Int(-1)],
        )?;
        let made = of_axis(writer, call, flat, axis)?;
        return writer.op("view_as", "", &[made.into(), x.into()]);
    }
    of_axis(writer, call, x, axis)
}

fn of_axis(writer: &mut Writer, call: &NodeCall, x: BuiltValue, axis: i64) -> Result<BuiltValue> {
    let name = match call.operator() {
        "Softmax" => "softmax",
        "LogSoftmax" => "log_softmax",
        _ => {
            let places = writer.op("argmax", "", &[x.into(), Arg::Int(axis), Arg::Bool(true)])?;
            let zeros = writer.op("zeros_like", "", &[x.into()])?;
            let arguments = [zeros.into(), Arg::Int(axis), places.into(), Arg::Float(1.0)];
            return writer.op("scatter", "value", &arguments);
        }
    };
    writer.op(name, "int", &[x.into(), Arg::Int(axis), Arg::None])
}

fn best(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    ensure!(
        !call.flag("select_last_index", false)?,
        "takes the last of equal values, which prism does not run"
    );
    let name = if call.operator() == "ArgMax" {
        "argmax"
    } else {
        "argmin"
    };
    let axis = Arg::Int(call.int("axis", 0)?);
    writer.op(
        name,
        "",
        &[x.into(), axis, Arg::Bool(call.flag("keepdims", true)?)],
    )
}

fn cumulated(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let axis = call.tensor(writer, 1)?;
    let axis = writer.known_number(axis)?;
    let axis = axis.context("has an axis that depends on the images")? as i64;
    let is_reverse = call.flag("reverse", false)?;
    let flip = |writer: &mut Writer, x: BuiltValue| match is_reverse {
        true => writer.op("flip", "", &[x.into(), Arg::Ints(vec![axis])]),
        false => Ok(x),
    };
    let turned = flip(writer, x)?;
    let mut made = writer.op("cumsum", "", &[turned.into(), Arg::Int(axis)])?;
    if call.flag("exclusive", false)? {
        made = writer.op("sub", "Tensor", &[made.into(), turned.into()])?;
    }
    flip(writer, made)
}

fn normalised(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let (axis, order) = (call.int("axis", -1)?, call.int("p", 2)?);
    let arguments = [
        x.into(),
        Arg::Float(order as f64),
        Arg::Ints(vec![axis]),
        Arg::Bool(true),
    ];
    let length = writer.op("linalg_vector_norm", "", &arguments)?;
    // Vectors of zeros stay so.
    let length = writer.op(
        "clamp_min",
        "",
        &[length.into(), Arg::Float(f64::from(f32::MIN_POSITIVE))],
    )?;
    writer.op("div", "Tensor", &[x.into(), length.into()])
}

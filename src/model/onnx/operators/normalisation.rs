//! Normalisations.

use anyhow::{Context, Result, ensure};

use super::super::node::NodeCall;
use super::super::writer::{Arg, Value, Writer};
use super::Tracked;
use crate::hooks::{BuiltValue, plain};

/// Groups of channels that an instance-norm normalised as one: exporters write group-norms so.
#[derive(Debug, Clone, Copy)]
pub struct Grouped {
    /// What was normalised, before the channels were put into groups.
    source: BuiltValue,
    /// The same as it was normalised.
    inner: BuiltValue,
    groups: i64,
    scale: BuiltValue,
    bias: BuiltValue,
    epsilon: f64,
}

pub fn add(
    writer: &mut Writer,
    tracked: &mut Tracked,
    call: &NodeCall,
) -> Result<Option<Vec<Value>>> {
    let made = match call.operator() {
        "BatchNormalization" => batch(writer, call)?,
        "InstanceNormalization" => instance(writer, tracked, call)?,
        "GroupNormalization" => group(writer, call)?,
        "LayerNormalization" => layer(writer, call)?,
        "RMSNormalization" => root_mean_square(writer, call)?,
        "LRN" => response(writer, call)?,
        "MeanVarianceNormalization" => mean_variance(writer, call)?,
        _ => return Ok(None),
    };
    call.only_results(1)?;
    Ok(Some(vec![Value::Tensor(made)]))
}

fn batch(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    // Networks normalise their weights so, which are constants.
    let trains = call.flag("training_mode", false)?;
    ensure!(
        call.flag("spatial", true)?,
        "has statistics for each pixel, which prism does not run"
    );
    let x = call.tensor(writer, 0)?;
    let [scale, bias, mean, variance] = [1, 2, 3, 4].map(|at| call.tensor(writer, at));
    let (mean, variance) = match trains {
        true => (Arg::None, Arg::None),
        false => (mean?.into(), variance?.into()),
    };
    ensure!(
        !trains || writer.known(x)?.is_some(),
        "is in training mode; export the network in evaluation mode"
    );
    writer.op(
        "batch_norm",
        "",
        &[
            x.into(),
            scale?.into(),
            bias?.into(),
            mean,
            variance,
            Arg::Bool(trains),
            Arg::Float(call.float("momentum", 0.9)?),
            Arg::Float(call.float("epsilon", 1e-5)?),
            Arg::Bool(false),
        ],
    )
}

fn instance(writer: &mut Writer, tracked: &mut Tracked, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let (scale, bias) = (call.tensor(writer, 1)?, call.tensor(writer, 2)?);
    let epsilon = call.float("epsilon", 1e-5)?;
    let made = writer.op(
        "instance_norm",
        "",
        &[
            x.into(),
            scale.into(),
            bias.into(),
            Arg::None,
            Arg::None,
            Arg::Bool(true),
            Arg::Float(0.1),
            Arg::Float(epsilon),
            Arg::Bool(false),
        ],
    )?;
    let groups = writer
        .shape(scale)?
        .and_then(|shape| shape.sizes.first().copied());
    if let (Some(&source), Some(groups)) = (tracked.reshaped.get(&x), groups) {
        let grouped = Grouped {
            source,
            inner: x,
            groups,
            scale,
            bias,
            epsilon,
        };
        tracked.grouped.insert(made, grouped);
    }
    Ok(made)
}

/// The group-norm whose result `reshaped` is, of the instance-norm `normalised`.
pub fn raised(
    writer: &mut Writer,
    tracked: &Tracked,
    normalised: BuiltValue,
    reshaped: BuiltValue,
) -> Result<Option<BuiltValue>> {
    let Some(&Grouped {
        source,
        inner,
        groups,
        scale,
        bias,
        epsilon,
    }) = tracked.grouped.get(&normalised)
    else {
        return Ok(None);
    };
    let mut channels = 0;
    for example in [0, 1] {
        let shapes = [source, inner, reshaped].map(|value| writer.builder.shape(value, example));
        let [Some(before), Some(within), Some(after)] = shapes.map(|shape| shape.ok().flatten())
        else {
            return Ok(None);
        };
        let &[images, all, _, ..] = before.sizes.as_slice() else {
            return Ok(None);
        };
        channels = all;
        let is_grouped = within.sizes.get(..2) == Some(&[images, groups]);
        if !is_grouped || before != after || groups < 1 || channels % groups != 0 {
            return Ok(None);
        }
    }
    let mut rows = Vec::new();
    for row in [scale, bias] {
        let Some(known) = writer.known(row)? else {
            return Ok(None);
        };
        let wide = known.f_repeat_interleave_self_int(channels / groups, 0, None);
        rows.push(writer.constant(&wide.map_err(plain)?)?);
    }
    Ok(Some(group_norm(writer, source, groups, &rows, epsilon)?))
}

/// In opset 18 there is a scale for each group, from 21 on for each channel.
fn group(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let groups = call.int("num_groups", 0)?;
    let channels = writer
        .fixed_sizes(x)?
        .and_then(|sizes| sizes.get(1).copied().flatten());
    let channels = channels.context("has an unknown number of channels")?;
    ensure!(
        groups > 0 && channels % groups == 0,
        "has {channels} channels in {groups} groups"
    );
    let mut rows = Vec::new();
    for at in [1, 2] {
        let row = call.tensor(writer, at)?;
        let count = writer
            .shape(row)?
            .and_then(|shape| shape.sizes.first().copied());
        rows.push(match count {
            Some(count) if count == groups && count != channels => {
                let times = Arg::Int(channels / groups);
                writer.op(
                    "repeat_interleave",
                    "self_int",
                    &[row.into(), times, Arg::Int(0)],
                )?
            }
            _ => row,
        });
    }
    let epsilon = call.float("epsilon", 1e-5)?;
    group_norm(writer, x, groups, &rows, epsilon)
}

/// With a scale and a bias for each channel in `rows`.
fn group_norm(
    writer: &mut Writer,
    x: BuiltValue,
    groups: i64,
    rows: &[BuiltValue],
    epsilon: f64,
) -> Result<BuiltValue> {
    let mut arguments = vec![x.into(), Arg::Int(groups)];
    arguments.extend(rows.iter().map(|&row| Arg::from(row)));
    arguments.push(Arg::Float(epsilon));
    writer.op("group_norm", "", &arguments)
}

/// The sizes from the axis on.
fn normalised_sizes(writer: &mut Writer, call: &NodeCall, x: BuiltValue) -> Result<Vec<i64>> {
    let rank = writer.rank(x)?;
    let axis = writer.axis(call.int("axis", -1)?, rank)?;
    let sizes = writer.fixed_sizes(x)?.unwrap_or_default();
    let sizes = sizes
        .into_iter()
        .skip(axis as usize)
        .collect::<Option<Vec<i64>>>();
    sizes.context("normalises a size that depends on the images")
}

fn layer(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let sizes = normalised_sizes(writer, call, x)?;
    let mut rows = Vec::new();
    for at in [1, 2] {
        let row = call.optional_tensor(writer, at)?;
        let shape = row.map(|row| writer.shape(row)).transpose()?.flatten();
        rows.push(match (row, shape) {
            (Some(row), Some(shape)) if shape.sizes != sizes => {
                let wide = [row.into(), Arg::Ints(sizes.clone())];
                Arg::Value(writer.op("broadcast_to", "", &wide)?)
            }
            (row, _) => row.into(),
        });
    }
    let epsilon = call.float("epsilon", 1e-5)?;
    let [scale, bias] = [rows[0].clone(), rows[1].clone()];
    writer.op(
        "layer_norm",
        "",
        &[x.into(), Arg::Ints(sizes), scale, bias, Arg::Float(epsilon)],
    )
}

fn root_mean_square(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let sizes = normalised_sizes(writer, call, x)?;
    let scale = call.tensor(writer, 1)?;
    let epsilon = Arg::Float(call.float("epsilon", 1e-5)?);
    let made = writer.op(
        "rms_norm",
        "",
        &[x.into(), Arg::Ints(sizes), Arg::None, epsilon],
    )?;
    writer.op("mul", "Tensor", &[made.into(), scale.into()])
}

/// Each value is divided by a power of the sum of squares of neighbouring channels (Krizhevsky
/// et al., 2012, section 3.3).
fn response(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let size = call.int("size", 0)?;
    let rank = writer.rank(x)?;
    ensure!(
        rank == 4 && (1..=1024).contains(&size),
        "has {size} neighbours and {rank} dimensions"
    );
    let square = writer.op("mul", "Tensor", &[x.into(), x.into()])?;
    let planes = writer.op("unsqueeze", "", &[square.into(), Arg::Int(1)])?;
    let before = (size - 1) / 2;
    let pads = Arg::Ints(vec![0, 0, 0, 0, before, size - 1 - before]);
    let planes = writer.op(
        "constant_pad_nd",
        "",
        &[planes.into(), pads, Arg::Float(0.0)],
    )?;
    let window = [
        planes.into(),
        Arg::Ints(vec![size, 1, 1]),
        Arg::Ints(vec![1, 1, 1]),
    ];
    let mean = writer.op("avg_pool3d", "", &window)?;
    let mean = writer.op("squeeze", "dim", &[mean.into(), Arg::Int(1)])?;
    let scaled = [mean.into(), Arg::Float(call.float("alpha", 1e-4)?)];
    let scaled = writer.op("mul", "Scalar", &scaled)?;
    let shifted = [scaled.into(), Arg::Float(call.float("bias", 1.0)?)];
    let shifted = writer.op("add", "Scalar", &shifted)?;
    let power = [shifted.into(), Arg::Float(call.float("beta", 0.75)?)];
    let power = writer.op("pow", "Tensor_Scalar", &power)?;
    writer.op("div", "Tensor", &[x.into(), power.into()])
}

fn mean_variance(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let axes = call.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    ensure!(
        !axes.contains(&0),
        "normalises by the statistics of the batch; export the network without that"
    );
    let (dims, keeps) = (Arg::Ints(axes), Arg::Bool(true));
    let mean = writer.op("mean", "dim", &[x.into(), dims.clone(), keeps.clone()])?;
    let centred = writer.op("sub", "Tensor", &[x.into(), mean.into()])?;
    let square = writer.op("square", "", &[centred.into()])?;
    let variance = writer.op("mean", "dim", &[square.into(), dims, keeps])?;
    let length = writer.op("sqrt", "", &[variance.into()])?;
    let length = writer.op("add", "Scalar", &[length.into(), Arg::Float(1e-9)])?;
    writer.op("div", "Tensor", &[centred.into(), length.into()])
}

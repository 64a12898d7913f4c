//! Constants, parts of tensors, and values by index.

use anyhow::{Context, Result, bail, ensure};
use tch::{Kind, Tensor};

use super::super::node::NodeCall;
use super::super::proto::Value as Stored;
use super::super::weights::Weights;
use super::super::writer::Number::Known;
use super::super::writer::{Arg, FLOAT, INT64, Value, Writer};
use super::{cast, shapes};
use crate::hooks::{BuiltValue, plain};

/// More than any size.
const LARGEST: i64 = 1 << 60;
/// The most channels that are put in another order.
const MOST_CHANNELS: i64 = 1 << 20;

pub fn add(
    writer: &mut Writer,
    weights: Option<&mut Weights>,
    call: &NodeCall,
) -> Result<Option<Vec<Value>>> {
    let several = match call.operator() {
        "Split" => Some(split(writer, call)?),
        "TopK" => Some(best(writer, call)?),
        _ => None,
    };
    if let Some(made) = several {
        return Ok(Some(made.into_iter().map(Value::Tensor).collect()));
    }
    let made = match call.operator() {
        "Constant" => constant(writer, weights, call)?,
        "ConstantOfShape" => filled(writer, weights, call)?,
        "Slice" => slice(writer, call)?,
        "Gather" => gather(writer, call)?,
        "GatherElements" => {
            let (x, places) = (call.tensor(writer, 0)?, call.tensor(writer, 1)?);
            let axis = call.int("axis", 0)?;
            let places = from_the_front(writer, x, axis, places)?;
            writer.op("gather", "", &[x.into(), Arg::Int(axis), places.into()])?
        }
        "ScatterElements" | "Scatter" => {
            let how = call.text("reduction", "none")?;
            ensure!(how == "none", call.unknown("reduction", how));
            let [x, places, values] = [0, 1, 2].map(|at| call.tensor(writer, at));
            let (x, axis) = (x?, call.int("axis", 0)?);
            let places = from_the_front(writer, x, axis, places?)?;
            let arguments = [x.into(), Arg::Int(axis), places.into(), values?.into()];
            writer.op("scatter", "src", &arguments)?
        }
        "GatherND" => gather_places(writer, call)?,
        "DepthToSpace" => depth_to_space(writer, call)?,
        "SpaceToDepth" => space_to_depth(writer, call)?,
        "Trilu" => {
            let x = call.tensor(writer, 0)?;
            let diagonal = match call.optional_tensor(writer, 1)? {
                Some(k) => {
                    let k = writer.known_number(k)?;
                    k.context("has a diagonal that depends on the images")? as i64
                }
                None => 0,
            };
            let name = if call.flag("upper", true)? {
                "triu"
            } else {
                "tril"
            };
            writer.op(name, "", &[x.into(), Arg::Int(diagonal)])?
        }
        "GridSample" => grid_sample(writer, call)?,
        _ => return Ok(None),
    };
    call.only_results(1)?;
    Ok(Some(vec![Value::Tensor(made)]))
}

fn constant(
    writer: &mut Writer,
    weights: Option<&mut Weights>,
    call: &NodeCall,
) -> Result<BuiltValue> {
    let found = call
        .attributes
        .iter()
        .map(|(name, found)| (*name, &found.value));
    let values: Vec<_> = found.filter(|(name, _)| name.contains("value")).collect();
    let [(_, value)] = values.as_slice() else {
        bail!("has {} values", values.len());
    };
    let tensor = match value {
        Stored::Tensor(stored) => weights.context("has no weights")?.tensor(stored)?,
        Stored::Integer(number) => {
            return writer.integers(&[*number], true);
        }
        Stored::Integers(numbers) => return writer.integers(numbers, false),
        Stored::Float(number) => {
            return writer.floats(&[f64::from(*number)], &[]);
        }
        Stored::Floats(numbers) => Tensor::f_from_slice(numbers).map_err(plain)?,
        _ => bail!("is a text or a sparse tensor, which prism does not read"),
    };
    writer.constant(&tensor)
}

fn filled(
    writer: &mut Writer,
    weights: Option<&mut Weights>,
    call: &NodeCall,
) -> Result<BuiltValue> {
    let (kind, value) = match call.stored("value") {
        None => (FLOAT, Arg::Float(0.0)),
        Some(Stored::Tensor(stored)) => {
            let tensor = weights.context("has no weights")?.tensor(stored)?;
            ensure!(
                tensor.numel() == 1,
                "has a value of the shape {:?}",
                tensor.size()
            );
            let number = tensor.reshape([1]);
            match tensor.kind() {
                Kind::Float => (FLOAT, Arg::Float(number.double_value(&[0]))),
                Kind::Bool => (11, Arg::Bool(number.int64_value(&[0]) != 0)),
                _ => (INT64, Arg::Int(number.int64_value(&[0]))),
            }
        }
        Some(_) => bail!("has a value that is no tensor"),
    };
    let sizes = Arg::Numbers(call.numbers(writer, 0)?.items);
    let arguments = [sizes, value, Arg::Int(kind), Arg::None, Arg::Device];
    writer.op("full", "", &arguments)
}

fn slice(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let mut x = call.tensor(writer, 0)?;
    let rank = writer.rank(x)?;
    for (place, slice) in shapes::slices(writer, call)?.into_iter().enumerate() {
        let [Some(start), Some(end), axis, step] = slice else {
            bail!("lacks its starts or ends");
        };
        let (Known(axis), Known(step)) = (
            axis.unwrap_or(Known(place as i64)),
            step.unwrap_or(Known(1)),
        ) else {
            bail!("has axes or steps that depend on the images");
        };
        let dim = writer.axis(axis, rank)?;
        let axis = Arg::Int(dim);
        ensure!(step != 0, "has a step of zero");
        if step > 0 {
            let arguments = [x.into(), axis, start.into(), end.into(), Arg::Int(step)];
            x = writer.op("slice", "Tensor", &arguments)?;
            continue;
        }
        // Backwards: the part that is taken, mirrored, each -step-th value.
        let (Known(start), Known(end)) = (start, end) else {
            bail!("has a negative step and ends that depend on the images");
        };
        let first = if end >= -1 || end < i64::from(i32::MIN) / 2 || end.checked_add(1).is_none() {
            // `end` is not taken; -1 is the last value.
            match end {
                -1 => Arg::Int(i64::MAX),
                end if end < 0 => Arg::Int(0),
                end => Arg::Int(end.saturating_add(1)),
            }
        } else {
            Arg::Int(end + 1)
        };
        let last = match start {
            -1 => Arg::Int(i64::MAX),
            0.. => Arg::Int(start.saturating_add(1)),
            // What begins before the first value begins there.
            _ => {
                let size = writer.size(x, dim)?;
                let start = Known(start.max(-LARGEST));
                let from_front = writer.arithmetic("add", size, start)?;
                let from_front = writer.arithmetic("max", from_front, Known(0))?;
                writer.arithmetic("add", from_front, Known(1))?.into()
            }
        };
        let part = [x.into(), axis, first, last, Arg::Int(1)];
        let part = writer.op("slice", "Tensor", &part)?;
        let turned = writer.op("flip", "", &[part.into(), Arg::Ints(vec![dim])])?;
        let each = [
            turned.into(),
            Arg::Int(dim),
            Arg::Int(0),
            Arg::Int(i64::MAX),
            Arg::Int(step.saturating_neg()),
        ];
        x = writer.op("slice", "Tensor", &each)?;
    }
    Ok(x)
}

/// Places counted from the end are counted from the front.
fn from_the_front(
    writer: &mut Writer,
    x: BuiltValue,
    axis: i64,
    places: BuiltValue,
) -> Result<BuiltValue> {
    let places = cast(writer, places, INT64)?;
    if let Some(known) = writer.known_floats(places)?
        && known.iter().all(|&at| at >= 0.0)
    {
        return Ok(places);
    }
    let axis = writer.axis(axis, writer.rank(x)?)?;
    let size = writer.size(x, axis)?;
    writer.op("remainder", "Scalar", &[places.into(), size.into()])
}

fn gather(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let (x, places) = (call.tensor(writer, 0)?, call.tensor(writer, 1)?);
    let axis = writer.axis(call.int("axis", 0)?, writer.rank(x)?)?;
    let rank = writer.rank(places)?;
    if rank == 0
        && let Some(at) = writer.known_number(places)?
    {
        return writer.op(
            "select",
            "int",
            &[x.into(), Arg::Int(axis), Arg::Int(at as i64)],
        );
    }
    let places = from_the_front(writer, x, axis, places)?;
    if rank == 1 {
        return writer.op(
            "index_select",
            "",
            &[x.into(), Arg::Int(axis), places.into()],
        );
    }
    let row = writer.op("reshape", "", &[places.into(), Arg::Ints(vec![-1])])?;
    let taken = writer.op("index_select", "", &[x.into(), Arg::Int(axis), row.into()])?;
    let mut sizes = Vec::new();
    for dim in 0..writer.rank(x)? {
        match dim == axis {
            false => sizes.push(writer.size(x, dim)?),
            true => {
                for dim in 0..rank {
                    sizes.push(writer.size(places, dim)?);
                }
            }
        }
    }
    writer.op("reshape", "", &[taken.into(), Arg::Numbers(sizes)])
}

/// Values at places that are given by all of their first coordinates.
fn gather_places(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    ensure!(
        call.int("batch_dims", 0)? == 0,
        "has batch_dims, which prism does not run"
    );
    let (x, places) = (call.tensor(writer, 0)?, call.tensor(writer, 1)?);
    let sizes = writer.fixed_sizes(places)?.unwrap_or_default();
    let count = sizes.last().copied().flatten();
    let count = count.context("has places of an unknown number of coordinates")?;
    ensure!(
        (1..=8).contains(&count),
        "has places of {count} coordinates"
    );
    let mut coordinates = Vec::new();
    for dim in 0..count {
        let one = writer.op(
            "select",
            "int",
            &[places.into(), Arg::Int(-1), Arg::Int(dim)],
        )?;
        coordinates.push(cast(writer, one, INT64)?);
    }
    writer.op("index", "Tensor", &[x.into(), Arg::Values(coordinates)])
}

/// The sizes of the parts are an attribute up to opset 12, an input from 13 on, and from 18 on
/// there may be their number.
fn split(writer: &mut Writer, call: &NodeCall) -> Result<Vec<BuiltValue>> {
    let x = call.tensor(writer, 0)?;
    let count = call.node.outputs.len();
    ensure!((1..=10_000).contains(&count), "makes {count} parts");
    let axis = writer.axis(call.int("axis", 0)?, writer.rank(x)?)?;
    if let Some(sizes) = call.ints_or_input(writer, "split", 1)? {
        ensure!(
            sizes.len() == count,
            "has {} sizes for {count} parts",
            sizes.len()
        );
        let arguments = [x.into(), Arg::Ints(sizes), Arg::Int(axis)];
        return writer.ops("split_with_sizes", "", &arguments, count);
    }
    let arguments = [x.into(), Arg::Int(count as i64), Arg::Int(axis)];
    writer.ops("chunk", "", &arguments, count)
}

fn best(writer: &mut Writer, call: &NodeCall) -> Result<Vec<BuiltValue>> {
    let x = call.tensor(writer, 0)?;
    let count = match call.optional(1) {
        Some(count) => writer.numbers(count)?.items.first().copied(),
        None => Some(Known(call.int("k", 1)?)),
    };
    let count = count.context("lacks its number of values")?;
    let axis = Arg::Int(call.int("axis", -1)?);
    let largest = Arg::Bool(call.flag("largest", true)?);
    let sorted = Arg::Bool(call.flag("sorted", true)?);
    writer.ops(
        "topk",
        "",
        &[x.into(), count.into(), axis, largest, sorted],
        2,
    )
}

/// The side of the blocks, and the sizes of an image.
fn blocks(writer: &mut Writer, call: &NodeCall, x: BuiltValue) -> Result<i64> {
    let side = call.int("blocksize", 0)?;
    let rank = writer.rank(x)?;
    ensure!(
        (1..=1024).contains(&side) && rank == 4,
        "has blocks of the size {side} and {rank} dimensions"
    );
    Ok(side)
}

/// libtorch's order of channels is that of the mode CRD.
fn depth_to_space(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let mut x = call.tensor(writer, 0)?;
    let side = blocks(writer, call, x)?;
    match call.text("mode", "DCR")? {
        "CRD" => {}
        "DCR" => {
            let sizes = writer.fixed_sizes(x)?.unwrap_or_default();
            let channels = sizes.get(1).copied().flatten();
            let channels = channels.context("has an unknown number of channels")?;
            ensure!(
                channels % (side * side) == 0 && channels <= MOST_CHANNELS,
                "has {channels} channels"
            );
            let kept = channels / (side * side);
            let order: Vec<i64> = (0..channels)
                .map(|to| (to % (side * side)) * kept + to / (side * side))
                .collect();
            let order = writer.integers(&order, false)?;
            x = writer.op("index_select", "", &[x.into(), Arg::Int(1), order.into()])?;
        }
        other => bail!(call.unknown("mode", other)),
    }
    writer.op("pixel_shuffle", "", &[x.into(), Arg::Int(side)])
}

fn space_to_depth(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let side = blocks(writer, call, x)?;
    let made = writer.op("pixel_unshuffle", "", &[x.into(), Arg::Int(side)])?;
    let sizes = writer.fixed_sizes(made)?.unwrap_or_default();
    let channels = sizes.get(1).copied().flatten();
    let channels = channels.context("has an unknown number of channels")?;
    ensure!(channels <= MOST_CHANNELS, "makes {channels} channels");
    let kept = channels / (side * side);
    let order: Vec<i64> = (0..channels)
        .map(|to| (to % kept) * side * side + to / kept)
        .collect();
    let order = writer.integers(&order, false)?;
    writer.op(
        "index_select",
        "",
        &[made.into(), Arg::Int(1), order.into()],
    )
}

fn grid_sample(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let (x, grid) = (call.tensor(writer, 0)?, call.tensor(writer, 1)?);
    let mode = match call.text("mode", "linear")? {
        "linear" | "bilinear" => 0,
        "nearest" => 1,
        "cubic" | "bicubic" => 2,
        other => bail!(call.unknown("mode", other)),
    };
    let around = match call.text("padding_mode", "zeros")? {
        "zeros" => 0,
        "border" => 1,
        "reflection" => 2,
        other => bail!(call.unknown("padding_mode", other)),
    };
    let corners = Arg::Bool(call.flag("align_corners", false)?);
    let arguments = [
        x.into(),
        grid.into(),
        Arg::Int(mode),
        Arg::Int(around),
        corners,
    ];
    writer.op("grid_sampler", "", &arguments)
}

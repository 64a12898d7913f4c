//! Networks that were quantised with QuantizeLinear and DequantizeLinear: weights are made
//! floating-point numbers again; activations keep the range of their integers, without the rounding.

use anyhow::{Result, bail, ensure};

use super::super::node::NodeCall;
use super::super::weights::kind_name;
use super::super::writer::{Arg, FLOAT, Value, Writer};
use super::{Tracked, cast};
use crate::hooks::BuiltValue;

pub fn add(
    writer: &mut Writer,
    tracked: &mut Tracked,
    call: &NodeCall,
) -> Result<Option<Vec<Value>>> {
    let made = match call.operator() {
        "QuantizeLinear" => quantised(writer, tracked, call)?,
        "DequantizeLinear" => dequantised(writer, tracked, call)?,
        _ => {
            if let Some(made) = moved(writer, tracked, call)? {
                return Ok(Some(vec![Value::Tensor(made)]));
            }
            let is_rounded = call.inputs.iter().flatten().any(
                |value| matches!(value, Value::Tensor(tensor) if tracked.rounded.contains_key(tensor)),
            );
            ensure!(
                !is_rounded,
                "computes with integers of a quantised network; export the network before quantisation"
            );
            return Ok(None);
        }
    };
    Ok(Some(vec![Value::Tensor(made)]))
}

/// What only moves quantised values.
fn moved(
    writer: &mut Writer,
    tracked: &mut Tracked,
    call: &NodeCall,
) -> Result<Option<BuiltValue>> {
    const MOVING: [&str; 7] = [
        "Identity",
        "MaxPool",
        "Reshape",
        "Flatten",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
    ];
    let Some(Value::Tensor(x)) = call.optional(0) else {
        return Ok(None);
    };
    let Some(&floats) = tracked.rounded.get(x) else {
        return Ok(None);
    };
    if !MOVING.contains(&call.operator()) {
        return Ok(None);
    }
    let mut inputs = call.inputs.clone();
    inputs[0] = Some(Value::Tensor(floats));
    let made = super::add_plainly(writer, tracked, None, &call.with_inputs(inputs))?;
    match made.first() {
        Some(Value::Tensor(made)) => marked(writer, tracked, *made).map(Some),
        _ => Ok(None),
    }
}

/// A name of its own for floating-point numbers that the file has as integers. Nothing computes
/// with it.
fn marked(writer: &mut Writer, tracked: &mut Tracked, floats: BuiltValue) -> Result<BuiltValue> {
    let mark = writer.op("alias", "", &[floats.into()])?;
    tracked.rounded.insert(mark, floats);
    Ok(mark)
}

/// A tensor of one scale, or of one for each index of the axis, so that it fits `x`.
fn along(
    writer: &mut Writer,
    call: &NodeCall,
    x: BuiltValue,
    row: BuiltValue,
) -> Result<BuiltValue> {
    ensure!(
        call.int("block_size", 0)? == 0,
        "has a scale for each block, which prism does not run"
    );
    let sizes = writer
        .shape(row)?
        .map(|shape| shape.sizes)
        .unwrap_or_default();
    ensure!(
        sizes.len() <= 1,
        "has a scale for each block, which prism does not run"
    );
    if sizes.iter().product::<i64>() == 1 {
        return writer.op("reshape", "", &[row.into(), Arg::Ints(vec![])]);
    }
    let rank = writer.rank(x)?;
    let axis = writer.axis(call.int("axis", 1)?, rank)?;
    let mut shape = vec![1; rank as usize];
    shape[axis as usize] = -1;
    writer.op("reshape", "", &[row.into(), Arg::Ints(shape)])
}

fn quantised(writer: &mut Writer, tracked: &mut Tracked, call: &NodeCall) -> Result<BuiltValue> {
    let (x, scale) = (call.tensor(writer, 0)?, call.tensor(writer, 1)?);
    let zero = call.optional_tensor(writer, 2)?;
    let kind = match zero {
        Some(zero) => writer.shape(zero)?.map_or(0, |shape| shape.kind),
        None => match call.int("output_dtype", 0)? {
            0 | 2 => 0,
            3 => 1,
            4 => 3,
            5 => 2,
            other => bail!("makes {}, which prism does not compute", kind_name(other)),
        },
    };
    let (least, most) = match kind {
        0 => (0.0, 255.0),
        1 => (-128.0, 127.0),
        2 => (-32_768.0, 32_767.0),
        _ => (0.0, 65_535.0), // uint16, which is stored wider
    };
    let scale = along(writer, call, x, scale)?;
    let zero = match zero {
        Some(zero) => {
            let zero = cast(writer, zero, FLOAT)?;
            along(writer, call, x, zero)?
        }
        None => writer.floats(&[0.0], &[])?,
    };
    let mut bounds = Vec::new();
    for end in [least, most] {
        let end = writer.floats(&[end], &[])?;
        let end = writer.op("sub", "Tensor", &[end.into(), zero.into()])?;
        bounds.push(writer.op("mul", "Tensor", &[end.into(), scale.into()])?);
    }
    let known = [
        writer.known_number(bounds[0])?,
        writer.known_number(bounds[1])?,
    ];
    let made = match known {
        [Some(least), Some(most)] => writer.op(
            "clamp",
            "",
            &[x.into(), Arg::Float(least), Arg::Float(most)],
        )?,
        _ => writer.op(
            "clamp",
            "Tensor",
            &[x.into(), bounds[0].into(), bounds[1].into()],
        )?,
    };
    tracked.is_quantised = true;
    marked(writer, tracked, made)
}

/// `(x - zero) * scale` of integers; what was quantised here was never made integers.
fn dequantised(writer: &mut Writer, tracked: &mut Tracked, call: &NodeCall) -> Result<BuiltValue> {
    let (x, scale) = (call.tensor(writer, 0)?, call.tensor(writer, 1)?);
    if let Some(&floats) = tracked.rounded.get(&x) {
        return Ok(floats);
    }
    let scale = along(writer, call, x, scale)?;
    let mut made = cast(writer, x, FLOAT)?;
    if let Some(zero) = call.optional_tensor(writer, 2)? {
        let zero = cast(writer, zero, FLOAT)?;
        let zero = along(writer, call, x, zero)?;
        made = writer.op("sub", "Tensor", &[made.into(), zero.into()])?;
    }
    tracked.is_quantised = true;
    writer.op("mul", "Tensor", &[made.into(), scale.into()])
}

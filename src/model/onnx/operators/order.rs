//! The order of dimensions. Files of networks for images `[N,H,W,C]` permute the dimensions around
//! each layer of space. What lies between two permutations is computed before the first one, so that
//! both become none and all layers are `[N,C,h,w]`, as libtorch computes fastest.

use anyhow::Result;

use super::super::node::NodeCall;
use super::super::writer::{Arg, Value, Writer};
use super::{Tracked, elementwise, layers, reductions};
use crate::hooks::BuiltValue;

/// Adds an operator on permuted tensors, if it can be computed before the permutation.
pub fn add(
    writer: &mut Writer,
    tracked: &mut Tracked,
    call: &NodeCall,
) -> Result<Option<Vec<Value>>> {
    let order = call.inputs.iter().flatten().find_map(|value| match value {
        Value::Tensor(tensor) => tracked.permuted.get(tensor).map(|(_, order)| order.clone()),
        Value::Numbers(_) => None,
    });
    let Some(order) = order else {
        return Ok(None);
    };
    let operator = call.operator();
    let made = match operator {
        "Concat" => concatenated(writer, tracked, call, &order)?,
        "Pad" => padded(writer, tracked, call, &order)?,
        name if name.starts_with("Reduce") => return reduced(writer, tracked, call, &order),
        name if elementwise::is_elementwise(name) => {
            let Some(inputs) = before(writer, tracked, call, &order)? else {
                return Ok(None);
            };
            elementwise::add(writer, &call.with_inputs(inputs))?
        }
        _ => None,
    };
    let Some(made) = made else {
        return Ok(None);
    };
    call.only_results(1)?;
    let made = tracked.permuted(writer, made, &order)?;
    Ok(Some(vec![Value::Tensor(made)]))
}

/// The tensor that was permuted so.
fn source(tracked: &Tracked, value: Option<&Value>, order: &[i64]) -> Option<BuiltValue> {
    let Some(Value::Tensor(tensor)) = value else {
        return None;
    };
    let (source, found) = tracked.permuted.get(tensor)?;
    (found == order).then_some(*source)
}

/// The inputs before the permutation; none if they cannot be had so.
fn before(
    writer: &mut Writer,
    tracked: &Tracked,
    call: &NodeCall,
    order: &[i64],
) -> Result<Option<Vec<Option<Value>>>> {
    let mut inputs = Vec::new();
    for input in &call.inputs {
        let Some(value) = input else {
            inputs.push(None);
            continue;
        };
        if let Some(source) = source(tracked, Some(value), order) {
            inputs.push(Some(Value::Tensor(source)));
            continue;
        }
        let Value::Tensor(tensor) = *value else {
            return Ok(None);
        };
        let (Some(known), Some(shape)) = (writer.known(tensor)?, writer.shape(tensor)?) else {
            return Ok(None);
        };
        if known.numel() == 1 && shape.sizes.len() <= 1 {
            inputs.push(Some(value.clone()));
            continue;
        }
        let Some(missing) = order.len().checked_sub(shape.sizes.len()) else {
            return Ok(None);
        };
        let sizes = [vec![1; missing], shape.sizes].concat();
        let wide = writer.op("reshape", "", &[tensor.into(), Arg::Ints(sizes)])?;
        let back = [wide.into(), Arg::Ints(inverse(order))];
        inputs.push(Some(Value::Tensor(writer.op("permute", "", &back)?)));
    }
    Ok(Some(inputs))
}

/// The order that undoes another one.
fn inverse(order: &[i64]) -> Vec<i64> {
    let mut inverse = vec![0; order.len()];
    for (to, &from) in order.iter().enumerate() {
        inverse[from as usize] = to as i64;
    }
    inverse
}

fn concatenated(
    writer: &mut Writer,
    tracked: &Tracked,
    call: &NodeCall,
    order: &[i64],
) -> Result<Option<BuiltValue>> {
    let sources = call.inputs.iter();
    let sources: Option<Vec<BuiltValue>> = sources
        .map(|input| source(tracked, input.as_ref(), order))
        .collect();
    let axis = writer.axis(call.int("axis", 1)?, order.len() as i64)?;
    let axis = Arg::Int(order[axis as usize]);
    let made = sources.map(|sources| writer.op("cat", "", &[Arg::Values(sources), axis]));
    made.transpose()
}

fn padded(
    writer: &mut Writer,
    tracked: &Tracked,
    call: &NodeCall,
    order: &[i64],
) -> Result<Option<BuiltValue>> {
    let Some(source) = source(tracked, call.optional(0), order) else {
        return Ok(None);
    };
    let permuted = call.tensor(writer, 0)?;
    let mut sides = layers::sides(writer, call, permuted)?;
    for (from, side) in order.iter().zip(sides.clone()) {
        sides[*from as usize] = side;
    }
    layers::padded_by(writer, call, source, sides).map(Some)
}

fn reduced(
    writer: &mut Writer,
    tracked: &mut Tracked,
    call: &NodeCall,
    order: &[i64],
) -> Result<Option<Vec<Value>>> {
    let Some(x) = source(tracked, call.optional(0), order) else {
        return Ok(None);
    };
    let permuted = call.tensor(writer, 0)?;
    let axes = reductions::reduced_axes(writer, call, permuted)?;
    if axes.is_empty() {
        return Ok(None);
    }
    let keeps = call.flag("keepdims", true)?;
    let rest = (0..order.len() as i64).filter(|axis| !axes.contains(axis));
    let rest: Vec<i64> = rest.map(|axis| order[axis as usize]).collect();
    if !keeps && !rest.is_sorted() {
        return Ok(None);
    }
    let before = axes.iter().map(|&axis| order[axis as usize]).collect();
    let Some(made) = reductions::reduced_over(writer, call, x, before)? else {
        return Ok(None);
    };
    let made = match keeps {
        true => tracked.permuted(writer, made, order)?,
        false => made,
    };
    Ok(Some(vec![Value::Tensor(made)]))
}

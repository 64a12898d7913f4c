//! Products of matrices.

use std::collections::HashMap;

use anyhow::{Result, ensure};

use super::super::node::NodeCall;
use super::super::writer::{Arg, Writer};
use crate::hooks::BuiltValue;

/// The most numbers of a tensor with all indices of an einsum of constants.
const MOST_OF_EINSUM: i64 = 1 << 28;

pub fn add(writer: &mut Writer, call: &NodeCall) -> Result<Option<BuiltValue>> {
    let made = match call.operator() {
        "Gemm" => gemm(writer, call),
        "MatMul" => matmul(writer, call),
        "Einsum" => einsum(writer, call),
        _ => return Ok(None),
    };
    made.map(Some)
}

fn transposed(writer: &mut Writer, x: BuiltValue) -> Result<BuiltValue> {
    writer.op("t", "", &[x.into()])
}

fn scaled(writer: &mut Writer, x: BuiltValue, by: f64) -> Result<BuiltValue> {
    match by == 1.0 {
        true => Ok(x),
        false => writer.op("mul", "Scalar", &[x.into(), Arg::Float(by)]),
    }
}

/// `alpha * A * B + beta * C`, which is a fully connected layer if C is a row.
fn gemm(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let (mut a, b) = (call.tensor(writer, 0)?, call.tensor(writer, 1)?);
    let c = call.optional_tensor(writer, 2)?;
    if call.flag("transA", false)? {
        a = transposed(writer, a)?;
    }
    let weight = match call.flag("transB", false)? {
        true => b,
        false => transposed(writer, b)?,
    };
    let weight = scaled(writer, weight, call.float("alpha", 1.0)?)?;
    let c = c.map(|c| scaled(writer, c, call.float("beta", 1.0)?));
    let c = c.transpose()?;
    let Some(c) = c else {
        return writer.op("linear", "", &[a.into(), weight.into(), Arg::None]);
    };
    let columns = writer
        .shape(weight)?
        .and_then(|shape| shape.sizes.first().copied());
    let sizes = writer
        .shape(c)?
        .map(|shape| shape.sizes)
        .unwrap_or_default();
    let is_row = !sizes.is_empty()
        && sizes.last().copied() == columns
        && sizes.iter().rev().skip(1).all(|&size| size == 1)
        && writer.known(c)?.is_some();
    if is_row {
        let bias = writer.op("reshape", "", &[c.into(), Arg::Ints(vec![-1])])?;
        return writer.op("linear", "", &[a.into(), weight.into(), bias.into()]);
    }
    let product = writer.op("linear", "", &[a.into(), weight.into(), Arg::None])?;
    writer.op("add", "Tensor", &[product.into(), c.into()])
}

/// A product with a constant matrix is a fully connected layer.
fn matmul(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let (a, b) = (call.tensor(writer, 0)?, call.tensor(writer, 1)?);
    let rank = |value| -> Result<Option<usize>> {
        Ok(writer.shape(value)?.map(|shape| shape.sizes.len()))
    };
    let is_layer = rank(b)? == Some(2)
        && rank(a)?.is_some_and(|rank| rank >= 2)
        && writer.known(b)?.is_some()
        && writer.known(a)?.is_none();
    if is_layer {
        let weight = transposed(writer, b)?;
        return writer.op("linear", "", &[a.into(), weight.into(), Arg::None]);
    }
    writer.op("matmul", "", &[a.into(), b.into()])
}

fn einsum(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let equation = call.text("equation", "")?;
    let is_plain = |letter: char| letter.is_ascii_alphabetic() || ",.-> ".contains(letter);
    ensure!(
        !equation.is_empty() && equation.len() <= 200 && equation.chars().all(is_plain),
        call.unknown("equation", equation)
    );
    let tensors = (0..call.inputs.len()).map(|at| call.tensor(writer, at));
    let tensors = tensors.collect::<Result<Vec<_>>>()?;
    ensure!(
        !is_huge(writer, equation, &tensors)?,
        "makes constants that take far more memory than the file"
    );
    writer.op("einsum", "", &[Arg::Text(equation), Arg::Values(tensors)])
}

/// Whether an einsum of constants, which is computed at load, may make huge tensors in between: one
/// with all of its indices.
fn is_huge(writer: &Writer, equation: &str, tensors: &[BuiltValue]) -> Result<bool> {
    let mut sizes = HashMap::new();
    let terms = equation.split("->").next().unwrap_or_default().split(',');
    for (term, &tensor) in terms.zip(tensors) {
        let Some(known) = writer.known(tensor)? else {
            return Ok(false);
        };
        if term.contains('.') {
            // It has dimensions without letters.
            let others = sizes.entry('.').or_insert(1_i64);
            *others = others.saturating_mul(known.numel() as i64);
        } else {
            let letters = term.chars().filter(char::is_ascii_alphabetic);
            sizes.extend(letters.zip(known.size()));
        }
    }
    let all = sizes.into_values().fold(1, i64::saturating_mul);
    Ok(all > MOST_OF_EINSUM)
}

//! Operators on each value by itself: activations, arithmetic, comparisons.

use anyhow::{Result, bail, ensure};

use super::super::node::NodeCall;
use super::super::writer::{Arg, Writer};
use super::{cast, libtorch_kind};
use crate::hooks::BuiltValue;

/// Functions of one tensor: ONNX's name, and libtorch's.
const UNARY: [(&str, &str); 32] = [
    ("Relu", "relu"),
    ("Sigmoid", "sigmoid"),
    ("Tanh", "tanh"),
    ("HardSwish", "hardswish"),
    ("Mish", "mish"),
    ("Softplus", "softplus"),
    ("Exp", "exp"),
    ("Log", "log"),
    ("Sqrt", "sqrt"),
    ("Abs", "abs"),
    ("Neg", "neg"),
    ("Floor", "floor"),
    ("Ceil", "ceil"),
    ("Round", "round"),
    ("Sign", "sign"),
    ("Reciprocal", "reciprocal"),
    ("Erf", "erf"),
    ("Sin", "sin"),
    ("Cos", "cos"),
    ("Tan", "tan"),
    ("Asin", "asin"),
    ("Acos", "acos"),
    ("Atan", "atan"),
    ("Sinh", "sinh"),
    ("Cosh", "cosh"),
    ("Asinh", "asinh"),
    ("Acosh", "acosh"),
    ("Atanh", "atanh"),
    ("Not", "logical_not"),
    ("IsNaN", "isnan"),
    ("BitwiseNot", "bitwise_not"),
    ("Selu", "selu"),
];

/// Functions of two tensors, with the overload.
const BINARY: [(&str, &str, &str); 14] = [
    ("Add", "add", "Tensor"),
    ("Sub", "sub", "Tensor"),
    ("Mul", "mul", "Tensor"),
    ("And", "logical_and", ""),
    ("Or", "logical_or", ""),
    ("Xor", "logical_xor", ""),
    ("Equal", "eq", "Tensor"),
    ("Greater", "gt", "Tensor"),
    ("Less", "lt", "Tensor"),
    ("GreaterOrEqual", "ge", "Tensor"),
    ("LessOrEqual", "le", "Tensor"),
    ("BitwiseAnd", "bitwise_and", "Tensor"),
    ("BitwiseOr", "bitwise_or", "Tensor"),
    ("BitwiseXor", "bitwise_xor", "Tensor"),
];

/// Whether an operator computes each value by itself, of one tensor or of several that fit.
pub fn is_elementwise(operator: &str) -> bool {
    const OTHERS: [&str; 23] = [
        "Dropout",
        "Div",
        "Pow",
        "Mod",
        "Max",
        "Min",
        "Sum",
        "Mean",
        "Where",
        "Clip",
        "LeakyRelu",
        "Elu",
        "Celu",
        "HardSigmoid",
        "ThresholdedRelu",
        "Gelu",
        "Swish",
        "Softsign",
        "PRelu",
        "Shrink",
        "Cast",
        "CastLike",
        "IsInf",
    ];
    UNARY.iter().any(|(name, _)| *name == operator)
        || BINARY.iter().any(|(name, ..)| *name == operator)
        || OTHERS.contains(&operator)
}

pub fn add(writer: &mut Writer, call: &NodeCall) -> Result<Option<BuiltValue>> {
    let operator = call.operator();
    if operator == "Selu" && (call.has("alpha") || call.has("gamma")) {
        return selu(writer, call).map(Some);
    }
    if let Some((_, function)) = UNARY.iter().find(|(name, _)| *name == operator) {
        let x = call.tensor(writer, 0)?;
        let made = match *function {
            "softplus" => writer.op("softplus", "", &[x.into()]),
            function => writer.op(function, "", &[x.into()]),
        };
        return made.map(Some);
    }
    if let Some((_, function, overload)) = BINARY.iter().find(|(name, ..)| *name == operator) {
        let (a, b) = (call.tensor(writer, 0)?, call.tensor(writer, 1)?);
        return writer
            .op(function, overload, &[a.into(), b.into()])
            .map(Some);
    }
    let made = match operator {
        "Identity" => call.tensor(writer, 0),
        "Dropout" => dropout(writer, call),
        "Div" => div(writer, call),
        "Pow" => pow(writer, call),
        "Mod" => remainder(writer, call),
        "Max" | "Min" | "Sum" | "Mean" => variadic(writer, call),
        "Where" => {
            let [condition, a, b] = [0, 1, 2].map(|at| call.tensor(writer, at));
            writer.op("where", "self", &[condition?.into(), a?.into(), b?.into()])
        }
        "Clip" => clip(writer, call),
        "LeakyRelu" => {
            let x = call.tensor(writer, 0)?;
            let slope = call.float("alpha", 0.01)?;
            writer.op("leaky_relu", "", &[x.into(), Arg::Float(slope)])
        }
        "Elu" | "Celu" => {
            let x = call.tensor(writer, 0)?;
            let alpha = call.float("alpha", 1.0)?;
            let name = if operator == "Elu" { "elu" } else { "celu" };
            writer.op(name, "", &[x.into(), Arg::Float(alpha)])
        }
        "HardSigmoid" => hard_sigmoid(writer, call),
        "ThresholdedRelu" => {
            let x = call.tensor(writer, 0)?;
            let alpha = call.float("alpha", 1.0)?;
            writer.op(
                "threshold",
                "",
                &[x.into(), Arg::Float(alpha), Arg::Float(0.0)],
            )
        }
        "Gelu" => {
            let x = call.tensor(writer, 0)?;
            let how = call.text("approximate", "none")?;
            ensure!(
                matches!(how, "none" | "tanh"),
                call.unknown("approximate", how)
            );
            writer.op("gelu", "", &[x.into(), Arg::Text(how)])
        }
        "Swish" => {
            let x = call.tensor(writer, 0)?;
            match call.float("alpha", 1.0)? {
                1.0 => writer.op("silu", "", &[x.into()]),
                alpha => {
                    let scaled = writer.op("mul", "Scalar", &[x.into(), Arg::Float(alpha)])?;
                    let gate = writer.op("sigmoid", "", &[scaled.into()])?;
                    writer.op("mul", "Tensor", &[x.into(), gate.into()])
                }
            }
        }
        "Softsign" => {
            let x = call.tensor(writer, 0)?;
            let size = writer.op("abs", "", &[x.into()])?;
            let size = writer.op("add", "Scalar", &[size.into(), Arg::Int(1)])?;
            writer.op("div", "Tensor", &[x.into(), size.into()])
        }
        "PRelu" => prelu(writer, call),
        "Shrink" => shrink(writer, call),
        "Cast" => {
            let x = call.tensor(writer, 0)?;
            let kind = libtorch_kind(call.int("to", 0)?)?;
            cast(writer, x, kind)
        }
        "CastLike" => {
            let (x, like) = (call.tensor(writer, 0)?, call.tensor(writer, 1)?);
            writer.op("type_as", "", &[x.into(), like.into()])
        }
        "IsInf" => {
            let x = call.tensor(writer, 0)?;
            let signs = ["detect_positive", "detect_negative"];
            let [positive, negative] = signs.map(|name| call.flag(name, true));
            let name = match (positive?, negative?) {
                (true, true) => "isinf",
                (true, false) => "isposinf",
                (false, true) => "isneginf",
                (false, false) => bail!("detects nothing"),
            };
            writer.op(name, "", &[x.into()])
        }
        _ => return Ok(None),
    };
    made.map(Some)
}

/// In inference mode it changes nothing.
fn dropout(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    if let Some(training) = call.optional_tensor(writer, 2)? {
        let training = writer.known_number(training)?;
        ensure!(
            training == Some(0.0),
            "is in training mode; export the network in evaluation mode"
        );
    }
    call.tensor(writer, 0)
}

/// Integers are divided without a remainder, towards zero.
fn div(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let (a, b) = (call.tensor(writer, 0)?, call.tensor(writer, 1)?);
    match writer.is_whole(a)? && writer.is_whole(b)? {
        true => writer.op(
            "div",
            "Tensor_mode",
            &[a.into(), b.into(), Arg::Text("trunc")],
        ),
        false => writer.op("div", "Tensor", &[a.into(), b.into()]),
    }
}

/// A power has the type of its base.
fn pow(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let (base, exponent) = (call.tensor(writer, 0)?, call.tensor(writer, 1)?);
    let is_whole = writer.is_whole(base)?;
    let made = match writer.known_number(exponent)? {
        Some(exponent) if !is_whole => {
            writer.op("pow", "Tensor_Scalar", &[base.into(), Arg::Float(exponent)])?
        }
        _ => writer.op("pow", "Tensor_Tensor", &[base.into(), exponent.into()])?,
    };
    match writer.shape(base)? {
        Some(shape) if is_whole => cast(writer, made, shape.kind),
        _ => Ok(made),
    }
}

fn remainder(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let (a, b) = (call.tensor(writer, 0)?, call.tensor(writer, 1)?);
    let name = if call.flag("fmod", false)? {
        "fmod"
    } else {
        "remainder"
    };
    writer.op(name, "Tensor", &[a.into(), b.into()])
}

fn variadic(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let (name, overload) = match call.operator() {
        "Max" => ("maximum", ""),
        "Min" => ("minimum", ""),
        _ => ("add", "Tensor"),
    };
    let mut made = call.tensor(writer, 0)?;
    for at in 1..call.inputs.len() {
        let next = call.tensor(writer, at)?;
        made = writer.op(name, overload, &[made.into(), next.into()])?;
    }
    match call.operator() {
        "Mean" => {
            let count = call.inputs.len() as f64;
            writer.op("div", "Scalar", &[made.into(), Arg::Float(count)])
        }
        _ => Ok(made),
    }
}

/// The bounds are attributes up to opset 10, and inputs from 11 on.
fn clip(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    if call.version < 11 {
        let (least, most) = (f64::from(f32::MIN), f64::from(f32::MAX));
        let bounds = [call.float("min", least)?, call.float("max", most)?];
        return clamp(
            writer,
            x,
            bounds.map(|bound| Some(bound).filter(|bound| bound.abs() < most)),
        );
    }
    let bounds = [
        call.optional_tensor(writer, 1)?,
        call.optional_tensor(writer, 2)?,
    ];
    let mut known = [None, None];
    for (bound, known) in bounds.iter().zip(&mut known) {
        if let Some(bound) = bound {
            *known = writer.known_number(*bound)?;
            if known.is_none() {
                return writer.op(
                    "clamp",
                    "Tensor",
                    &[x.into(), bounds[0].into(), bounds[1].into()],
                );
            }
        }
    }
    if writer.is_whole(x)? {
        return writer.op(
            "clamp",
            "Tensor",
            &[x.into(), bounds[0].into(), bounds[1].into()],
        );
    }
    clamp(writer, x, known)
}

/// A tensor within bounds.
fn clamp(writer: &mut Writer, x: BuiltValue, bounds: [Option<f64>; 2]) -> Result<BuiltValue> {
    match bounds {
        [None, None] => Ok(x),
        [Some(least), None] => writer.op("clamp_min", "", &[x.into(), Arg::Float(least)]),
        [None, Some(most)] => writer.op("clamp_max", "", &[x.into(), Arg::Float(most)]),
        // Where the bounds are in the wrong order, both libraries give the upper one.
        [Some(least), Some(most)] => {
            let bounds = [x.into(), Arg::Float(least), Arg::Float(most)];
            let name = if least <= most { "hardtanh" } else { "clamp" };
            writer.op(name, "", &bounds)
        }
    }
}

fn hard_sigmoid(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let (alpha, beta) = (call.float("alpha", 0.2)?, call.float("beta", 0.5)?);
    if (alpha - 1.0 / 6.0).abs() < 1e-6 && beta == 0.5 {
        return writer.op("hardsigmoid", "", &[x.into()]);
    }
    let made = writer.op("mul", "Scalar", &[x.into(), Arg::Float(alpha)])?;
    let made = writer.op("add", "Scalar", &[made.into(), Arg::Float(beta)])?;
    clamp(writer, made, [Some(0.0), Some(1.0)])
}

fn selu(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let alpha = call.float("alpha", 1.673_263_192_176_818_8)?;
    let gamma = call.float("gamma", 1.050_701_022_148_132_3)?;
    writer.op("elu", "", &[x.into(), Arg::Float(alpha), Arg::Float(gamma)])
}

/// A slope for each channel, for all values, or in any other shape.
fn prelu(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let (x, slope) = (call.tensor(writer, 0)?, call.tensor(writer, 1)?);
    let sizes = writer.fixed_sizes(x)?.unwrap_or_default();
    let slopes = writer
        .shape(slope)?
        .map(|shape| shape.sizes)
        .unwrap_or_default();
    let slopes = match slopes.as_slice() {
        [1, rest @ ..] if slopes.len() == sizes.len() => rest.to_vec(),
        _ => slopes,
    };
    let channels = sizes.get(1).copied().flatten();
    let after_channels = sizes.len().saturating_sub(1);
    let is_of_channels = slopes.len() == after_channels
        && slopes.first().copied() == channels
        && slopes.iter().skip(1).all(|&size| size == 1);
    if is_of_channels || slopes.iter().product::<i64>() == 1 {
        let row = writer.op("reshape", "", &[slope.into(), Arg::Ints(vec![-1])])?;
        return writer.op("prelu", "", &[x.into(), row.into()]);
    }
    let zero = Arg::Int(0);
    let positive = writer.op("clamp_min", "", &[x.into(), zero.clone()])?;
    let negative = writer.op("clamp_max", "", &[x.into(), zero])?;
    let negative = writer.op("mul", "Tensor", &[negative.into(), slope.into()])?;
    writer.op("add", "Tensor", &[positive.into(), negative.into()])
}

/// `x + bias` below `-lambd`, `x - bias` above `lambd`, else zero.
fn shrink(writer: &mut Writer, call: &NodeCall) -> Result<BuiltValue> {
    let x = call.tensor(writer, 0)?;
    let (bias, limit) = (call.float("bias", 0.0)?, call.float("lambd", 0.5)?);
    let above = writer.op("gt", "Scalar", &[x.into(), Arg::Float(limit)])?;
    let below = writer.op("lt", "Scalar", &[x.into(), Arg::Float(-limit)])?;
    let less = writer.op("sub", "Scalar", &[x.into(), Arg::Float(bias)])?;
    let more = writer.op("add", "Scalar", &[x.into(), Arg::Float(bias)])?;
    let less = writer.op("mul", "Tensor", &[less.into(), above.into()])?;
    let more = writer.op("mul", "Tensor", &[more.into(), below.into()])?;
    writer.op("add", "Tensor", &[less.into(), more.into()])
}

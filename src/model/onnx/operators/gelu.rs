//! GELU, which exporters write as `0.5 * x * (1 + erf(x / sqrt(2)))` in several orders.

use std::collections::HashMap;
use std::f64::consts::SQRT_2;

use anyhow::Result;

use super::super::node::NodeCall;
use super::super::writer::{Arg, Value, Writer};
use crate::hooks::BuiltValue;

/// A part of the formula.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// `x / sqrt(2)`
    Scaled,
    /// `erf(x / sqrt(2))`
    Erf,
    /// `1 + erf(x / sqrt(2))`
    Gate,
    /// `0.5 * (1 + erf(x / sqrt(2)))`
    HalfGate,
    /// `0.5 * x`
    Half,
    /// `x * (1 + erf(x / sqrt(2)))`
    Twice,
}

/// The parts so far, each with its `x`.
#[derive(Debug, Default)]
pub struct Parts(HashMap<BuiltValue, (Part, BuiltValue)>);

impl Parts {
    /// Looks at what a node made of its inputs. Its result, or the GELU if it completes one.
    pub fn raised(
        &mut self,
        writer: &mut Writer,
        call: &NodeCall,
        made: BuiltValue,
    ) -> Result<BuiltValue> {
        let operator = call.operator();
        if !matches!(operator, "Mul" | "Div" | "Add" | "Erf") {
            return Ok(made);
        }
        let mut inputs = Vec::new();
        for input in call.inputs.iter().flatten() {
            let Value::Tensor(tensor) = input else {
                return Ok(made);
            };
            inputs.push((*tensor, writer.known_number(*tensor)?));
        }
        let (part, x) = match (operator, inputs.as_slice()) {
            ("Erf", &[(a, _)]) => match self.0.get(&a) {
                Some(&(Part::Scaled, x)) => (Part::Erf, x),
                _ => return Ok(made),
            },
            ("Div", &[(x, None), (_, Some(by))]) if is(by, SQRT_2) => (Part::Scaled, x),
            ("Add", &[(a, None), (_, Some(by))] | &[(_, Some(by)), (a, None)]) if by == 1.0 => {
                match self.0.get(&a) {
                    Some(&(Part::Erf, x)) => (Part::Gate, x),
                    _ => return Ok(made),
                }
            }
            ("Mul", &[(a, None), (_, Some(by))] | &[(_, Some(by)), (a, None)]) => {
                match self.0.get(&a) {
                    Some(&(Part::Twice, x)) if by == 0.5 => return gelu(writer, x),
                    Some(&(Part::Gate, x)) if by == 0.5 => (Part::HalfGate, x),
                    _ if by == 0.5 => (Part::Half, a),
                    _ if is(by, 1.0 / SQRT_2) => (Part::Scaled, a),
                    _ => return Ok(made),
                }
            }
            ("Mul", &[(a, None), (b, None)]) => match (self.0.get(&a), self.0.get(&b)) {
                (Some(&(Part::Half, x)), Some(&(Part::Gate, y)))
                | (Some(&(Part::Gate, y)), Some(&(Part::Half, x)))
                    if x == y =>
                {
                    return gelu(writer, x);
                }
                (_, Some(&(Part::HalfGate, x))) if x == a => return gelu(writer, x),
                (Some(&(Part::HalfGate, x)), _) if x == b => return gelu(writer, x),
                (_, Some(&(Part::Gate, x))) if x == a => (Part::Twice, x),
                (Some(&(Part::Gate, x)), _) if x == b => (Part::Twice, x),
                _ => return Ok(made),
            },
            _ => return Ok(made),
        };
        self.0.insert(made, (part, x));
        Ok(made)
    }
}

fn is(number: f64, wanted: f64) -> bool {
    (number - wanted).abs() < 1e-6
}

fn gelu(writer: &mut Writer, x: BuiltValue) -> Result<BuiltValue> {
    writer.op("gelu", "", &[x.into(), Arg::Text("none")])
}

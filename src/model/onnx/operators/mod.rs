//! The operators of ONNX as operators of libtorch. Each module has those of one kind.

mod elementwise;
mod gelu;
mod layers;
mod normalisation;
mod order;
mod parts;
mod pooling;
mod products;
mod quantised;
mod reductions;
mod resize;
mod shapes;

use std::collections::{HashMap, HashSet};

use anyhow::{Result, bail};

use super::node::NodeCall;
use super::proto::{Dimension, Node};
use super::weights::Weights;
use super::writer::{Arg, Value, Writer};
use crate::hooks::BuiltValue;

/// What is remembered of the operators before.
#[derive(Default)]
pub struct Tracked {
    /// The input of the network, and the number of its images if that is fixed.
    pub images: Option<(BuiltValue, Dimension)>,
    /// What the network returns.
    pub returned: HashSet<String>,
    /// Whether rounding to integers was left out.
    pub is_quantised: bool,
    /// Permuted tensors, with what they are of and how.
    permuted: HashMap<BuiltValue, (BuiltValue, Vec<i64>)>,
    /// Tensors in another shape, and of what.
    reshaped: HashMap<BuiltValue, BuiltValue>,
    /// Groups of channels that were normalised.
    grouped: HashMap<BuiltValue, normalisation::Grouped>,
    /// Parts of GELUs.
    gelus: gelu::Parts,
    /// Names of tensors that the file has as integers, and those floating-point numbers themselves.
    rounded: HashMap<BuiltValue, BuiltValue>,
}

impl Tracked {
    /// A tensor with its dimensions in another order. Two permutations in a row become one, or
    /// none: files of networks for `[N,H,W,C]` have a permutation on both sides of each layer.
    pub fn permuted(
        &mut self,
        writer: &mut Writer,
        value: BuiltValue,
        order: &[i64],
    ) -> Result<BuiltValue> {
        let (source, order) = match self.permuted.get(&value) {
            Some((source, before)) if before.len() == order.len() => {
                let of = |&dim: &i64| before[dim as usize];
                (*source, order.iter().map(of).collect())
            }
            _ => (value, order.to_vec()),
        };
        if order.iter().enumerate().all(|(at, &dim)| at as i64 == dim) {
            return Ok(source);
        }
        let made = writer.op("permute", "", &[source.into(), Arg::Ints(order.clone())])?;
        self.permuted.insert(made, (source, order));
        Ok(made)
    }
}

/// Refuses what is no operator that could be run.
pub fn refuse(node: &Node) -> Result<()> {
    let is_own = matches!(node.domain.as_str(), "" | "ai.onnx");
    match node.operator.as_str() {
        "If" | "Loop" | "Scan" if is_own => bail!(
            "branches or loops on values, which prism does not run; export the network without it"
        ),
        name if name.starts_with("QLinear")
            || name.ends_with("Integer") && is_own
            || name == "DynamicQuantizeLinear"
            || name == "QGemm" =>
        {
            bail!(
                "computes with integers of a quantised network; export the network before quantisation"
            )
        }
        _ if is_own => Ok(()),
        _ => bail!(
            "belongs to another set of operators than ONNX's own, which prism does not run; export the network without it"
        ),
    }
}

/// Adds a node and returns its results.
///
/// # Errors
/// Returns an error, to be put behind the name of the node, if prism does not run it.
pub fn add(
    writer: &mut Writer,
    weights: &mut Weights,
    tracked: &mut Tracked,
    call: &NodeCall,
) -> Result<Vec<Value>> {
    if let Some(found) = quantised::add(writer, tracked, call)? {
        return Ok(found);
    }
    if let Some(found) = order::add(writer, tracked, call)? {
        return Ok(found);
    }
    add_plainly(writer, tracked, Some(weights), call)
}

/// Adds a node whose inputs are as the file has them. `weights` are for constants.
fn add_plainly(
    writer: &mut Writer,
    tracked: &mut Tracked,
    weights: Option<&mut Weights>,
    call: &NodeCall,
) -> Result<Vec<Value>> {
    if let Some(found) = shapes::add(writer, tracked, call)? {
        return Ok(found);
    }
    if let Some(found) = parts::add(writer, weights, call)? {
        return Ok(found);
    }
    if let Some(made) = elementwise::add(writer, call)? {
        call.only_results(1)?;
        let made = tracked.gelus.raised(writer, call, made)?;
        return Ok(vec![Value::Tensor(made)]);
    }
    let add = [layers::add, pooling::add, products::add, reductions::add];
    for add in add {
        if let Some(value) = add(writer, call)? {
            call.only_results(1)?;
            return Ok(vec![Value::Tensor(value)]);
        }
    }
    if let Some(value) = resize::add(writer, tracked, call)? {
        return Ok(vec![Value::Tensor(value)]);
    }
    if let Some(found) = normalisation::add(writer, tracked, call)? {
        return Ok(found);
    }
    bail!(
        "is none that prism runs; export the network with other operators, or as TorchScript or .pt2"
    )
}

/// The numbers that a type of ONNX has in libtorch.
fn libtorch_kind(kind: i64) -> Result<i64> {
    use tch::Kind;
    // Unsigned ones are read as wider integers, which do not wrap around.
    let known = super::weights::kind_of(kind).filter(|_| kind != 4);
    Ok(match known {
        Some(Kind::Float) => 6,
        Some(Kind::Uint8) => 0,
        Some(Kind::Int8) => 1,
        Some(Kind::Int16) => 2,
        Some(Kind::Int) => 3,
        Some(Kind::Int64) => 4,
        Some(Kind::Bool) => 11,
        _ => bail!(
            "makes {}, which prism does not compute",
            super::weights::kind_name(kind)
        ),
    })
}

/// A tensor as another type.
fn cast(writer: &mut Writer, value: BuiltValue, kind: i64) -> Result<BuiltValue> {
    // Keras casts what has the type already; rules look for the operators around.
    if writer.shape(value)?.is_some_and(|shape| shape.kind == kind) {
        return Ok(value);
    }
    let off = Arg::Bool(false);
    let arguments = [value.into(), Arg::Int(kind), off.clone(), off, Arg::None];
    writer.op("to", "dtype", &arguments)
}

//! From an exported program to a graph of libtorch, operator by operator.

use std::collections::HashMap;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use super::raise::Raised;
use super::schema::{
    Argument, Node, Program, Signature, memory_format, name, number_format, union,
};
use super::shown;
use super::weights::Weights;
use crate::hooks::{Builder, BuiltValue, Call, Constant};

/// The most operators that are read; the largest network seen has 3,000.
const MOST_NODES: usize = 200_000;

/// Operators that check sizes or kinds and compute nothing.
const CHECKS: [&str; 6] = [
    "_assert_tensor_metadata",
    "_assert_scalar",
    "_assert_async",
    "sym_constrain_range",
    "sym_constrain_range_for_size",
    "_functional_assert_scalar",
];

/// The values of a graph so far, by their names in the file.
struct Translation<'a> {
    builder: &'a mut Builder,
    values: HashMap<String, BuiltValue>,
    /// What matrices are the transposed ones of.
    transposed: HashMap<String, BuiltValue>,
}

/// Builds the graph of `program` and returns its outputs.
///
/// # Errors
/// Returns one line if the program has an operator that prism does not run, or damage.
pub fn translate(
    program: &Program,
    weights: &mut Weights,
    builder: &mut Builder,
) -> Result<Vec<BuiltValue>> {
    let (signature, nodes) = (
        &program.graph_module.signature,
        &program.graph_module.graph.nodes,
    );
    ensure!(
        nodes.len() <= MOST_NODES,
        "it has {} operators; prism reads networks of up to {MOST_NODES}",
        nodes.len()
    );
    let mut translation = Translation {
        builder,
        values: HashMap::new(),
        transposed: HashMap::new(),
    };
    translation.add_inputs(signature, weights)?;
    for node in nodes {
        translation.add(node)?;
    }
    translation.outputs(signature)
}

/// The first part of a target such as `torch.ops.aten.add.Tensor`, its operator and overload.
fn parts(target: &str) -> Option<(&str, &str, &str)> {
    if let Some(operator) = target.strip_prefix("_operator.") {
        return Some(("_operator", operator, ""));
    }
    let (space, rest) = target.strip_prefix("torch.ops.")?.split_once('.')?;
    let (operator, overload) = rest.split_once('.').unwrap_or((rest, ""));
    let overload = if overload == "default" { "" } else { overload };
    Some((space, operator, overload))
}

/// How Python's arithmetic of sizes is named in libtorch.
fn of_python(operator: &str) -> Option<&str> {
    match operator {
        "add" | "sub" | "mul" | "floordiv" | "neg" => Some(operator),
        _ => None,
    }
}

impl Translation<'_> {
    fn add_inputs(&mut self, signature: &Signature, weights: &mut Weights) -> Result<()> {
        let mut images = None;
        for spec in &signature.input_specs {
            let (kind, inner) = union(spec).context("its list of inputs is damaged")?;
            let arg = inner.get("arg");
            let field = match kind {
                "parameter" => "parameter_name",
                "buffer" => "buffer_name",
                "tensor_constant" => "tensor_constant_name",
                "user_input" => {
                    let tensor = arg.and_then(|arg| arg.get("as_tensor")).and_then(name);
                    let tensor = tensor.context(
                        "it takes an input that is no tensor; prism gives it one batch of images [N,C,H,W]",
                    )?;
                    ensure!(
                        images.is_none(),
                        "it takes more than one input; prism gives it one batch of images [N,C,H,W]"
                    );
                    images = Some(self.builder.input()?);
                    self.values
                        .extend(images.map(|value| (tensor.to_string(), value)));
                    continue;
                }
                kind => bail!("it takes an input of the kind '{}'", shown(kind)),
            };
            let stored = inner.get(field).and_then(Value::as_str);
            let (Some(graph_name), Some(stored)) = (arg.and_then(name), stored) else {
                bail!("its list of inputs is damaged");
            };
            let tensor = weights.tensor(stored)?;
            let value = self.builder.constant(&Constant::Tensor(&tensor))?;
            self.values.insert(graph_name.to_string(), value);
        }
        images.context("it takes no input; prism gives it one batch of images [N,C,H,W]")?;
        Ok(())
    }

    fn add(&mut self, node: &Node) -> Result<()> {
        let Some((space, operator, overload)) = parts(&node.target) else {
            bail!("prism does not run its operator {}", shown(&node.target));
        };
        let (operator, overload) = match (space, operator) {
            ("aten", operator) if CHECKS.contains(&operator) => return Ok(()),
            ("aten", "sym_size") => ("size", overload),
            ("aten", "sym_numel") => ("numel", overload),
            ("aten", operator) => (operator, overload),
            ("_operator", operator) => match of_python(operator) {
                Some(operator) => (operator, "int"),
                None => bail!("prism does not run its operator {}", shown(&node.target)),
            },
            ("higher_order", "cond" | "while_loop" | "map_impl" | "scan") => bail!(
                "this network branches or loops on its values (torch.{}), which prism does not run; export it without",
                shown(operator)
            ),
            _ => bail!(
                "its operator {} is none of libtorch's own, and prism does not run others",
                shown(&node.target)
            ),
        };
        if self.add_linear(operator, node)? {
            return Ok(());
        }
        let by_position = space == "_operator";
        let raised = Raised::of(operator, node);
        let taken = |argument: &&Argument| raised.is_none_or(|raised| raised.takes(argument));
        let mut arguments = Vec::with_capacity(node.inputs.len());
        for argument in node.inputs.iter().filter(taken) {
            let value = self.argument(&argument.arg);
            let value = value.with_context(|| {
                format!(
                    "its operator {}: '{}'",
                    shown(&node.target),
                    shown(&argument.name)
                )
            })?;
            arguments.push(((!by_position).then_some(argument.name.as_str()), value));
        }
        let mut names = results(node)?;
        let (mut operator, mut overload) = (operator, overload);
        if let Some(raised) = raised {
            (operator, overload) = (raised.operator, raised.overload);
            let off = self.builder.constant(&Constant::Bool(false))?;
            arguments.extend(raised.off.iter().map(|&switch| (Some(switch), off)));
            names.truncate(1);
        }
        self.call(node, operator, overload, &arguments, names)
    }

    fn call(
        &mut self,
        node: &Node,
        operator: &str,
        overload: &str,
        arguments: &[(Option<&str>, BuiltValue)],
        names: Vec<&str>,
    ) -> Result<()> {
        let made = self.builder.call(&Call {
            operator,
            overload,
            path: node.path(),
            arguments,
            results: names.len(),
        })?;
        let named = names.into_iter().zip(made);
        self.values
            .extend(named.map(|(name, value)| (name.to_string(), value)));
        Ok(())
    }

    /// Core ATen writes a fully connected layer as the product with transposed weights. Remembers
    /// the transposed ones, and adds the layer if `node` is its product.
    fn add_linear(&mut self, operator: &str, node: &Node) -> Result<bool> {
        let tensor = |argument: &str| name(node.argument(argument)?.get("as_tensor")?);
        let swaps = || {
            let dims = node.argument("dims")?.get("as_ints")?.as_array()?;
            Some(matches!(&dims[..], [a, b] if a.as_i64() == Some(1) && b.as_i64() == Some(0)))
        };
        if operator == "t" || operator == "permute" && swaps() == Some(true) {
            if let (Some(weights), [made]) = (tensor("self"), &results(node)?[..]) {
                let weights = self.known(weights)?;
                self.transposed.insert((*made).to_string(), weights);
            }
            return Ok(false);
        }
        let is_scaled = ["alpha", "beta"]
            .iter()
            .any(|&by| node.argument(by).is_some());
        let factors = (tensor("self"), tensor("mat1"), tensor("mat2"));
        let (Some(bias), Some(rows), Some(weights)) = factors else {
            return Ok(false);
        };
        let Some(&weights) = self.transposed.get(weights) else {
            return Ok(false);
        };
        if operator != "addmm" || is_scaled {
            return Ok(false);
        }
        let arguments = [
            (Some("input"), self.known(rows)?),
            (Some("weight"), weights),
            (Some("bias"), self.known(bias)?),
        ];
        self.call(node, "linear", "", &arguments, results(node)?)?;
        Ok(true)
    }

    /// A value that was made before.
    fn known(&self, name: &str) -> Result<BuiltValue> {
        let value = self.values.get(name).copied();
        value.ok_or_else(|| anyhow!("it reads '{}', which nothing before makes", shown(name)))
    }

    fn argument(&mut self, arg: &Value) -> Result<BuiltValue> {
        let (kind, value) = union(arg).context("is damaged")?;
        let constant = match kind {
            "as_tensor" => return self.known(name(value).context("is damaged")?),
            "as_sym_int" => return self.symbolic(value),
            "as_tensors"
            | "as_optional_tensors"
            | "as_sym_ints"
            | "as_ints"
            | "as_floats"
            | "as_bools" => return self.list(kind, value),
            "as_none" => Some(Constant::None),
            "as_bool" => value.as_bool().map(Constant::Bool),
            "as_int" => value.as_i64().map(Constant::Integer),
            "as_float" => float(value).map(Constant::Float),
            "as_string" => value.as_str().map(Constant::Text),
            "as_scalar_type" => number_of(value, number_format),
            "as_memory_format" => number_of(value, memory_format),
            "as_layout" => number_of(value, |layout| (layout == 7).then_some(0)), // strided
            "as_device" => Some(Constant::Device),
            _ => bail!(
                "is of the kind '{}', which prism does not read",
                shown(kind)
            ),
        };
        self.builder.constant(&constant.context("is damaged")?)
    }

    fn list(&mut self, kind: &str, value: &Value) -> Result<BuiltValue> {
        let items = value.as_array().context("is damaged")?;
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            values.push(match kind {
                "as_tensors" => self.known(name(item).context("is damaged")?)?,
                "as_sym_ints" => self.symbolic(item)?,
                "as_optional_tensors" => self.argument(item)?,
                _ => {
                    let constant = match kind {
                        "as_ints" => item.as_i64().map(Constant::Integer),
                        "as_floats" => float(item).map(Constant::Float),
                        _ => item.as_bool().map(Constant::Bool),
                    };
                    self.builder.constant(&constant.context("is damaged")?)?
                }
            });
        }
        self.builder.list(&values)
    }

    /// A size: a number, or a value that an operator made.
    fn symbolic(&mut self, value: &Value) -> Result<BuiltValue> {
        match union(value) {
            Some(("as_name", name)) => self.known(name.as_str().context("is damaged")?),
            Some(("as_int", number)) => {
                let number = number.as_i64().context("is damaged")?;
                self.builder.constant(&Constant::Integer(number))
            }
            _ => bail!("is damaged"),
        }
    }

    fn outputs(&self, signature: &Signature) -> Result<Vec<BuiltValue>> {
        let mut outputs = Vec::new();
        for spec in &signature.output_specs {
            match union(spec).context("its list of outputs is damaged")? {
                ("user_output", inner) => {
                    let tensor = inner.get("arg").and_then(|arg| arg.get("as_tensor"));
                    if let Some(tensor) = tensor.and_then(name) {
                        outputs.push(self.known(tensor)?);
                    }
                }
                ("buffer_mutation", _) => bail!(
                    "it changes its own buffers, as a network in training mode does; export it after model.eval()"
                ),
                (kind, _) => bail!("it has an output of the kind '{}'", shown(kind)),
            }
        }
        Ok(outputs)
    }
}

/// The names of what an operator makes.
fn results(node: &Node) -> Result<Vec<&str>> {
    let damaged = || format!("its operator {} has damaged results", shown(&node.target));
    let mut names = Vec::new();
    for output in &node.outputs {
        match union(output).with_context(damaged)? {
            ("as_tensor", tensor) => names.push(name(tensor).with_context(damaged)?),
            ("as_tensors", tensors) => {
                for tensor in tensors.as_array().with_context(damaged)? {
                    names.push(name(tensor).with_context(damaged)?);
                }
            }
            ("as_sym_int", size) => {
                let made = size.get("as_name").and_then(Value::as_str);
                names.push(made.with_context(damaged)?);
            }
            ("as_none", _) => {}
            (kind, _) => bail!(
                "its operator {} makes a result of the kind '{}'",
                shown(&node.target),
                shown(kind)
            ),
        }
    }
    Ok(names)
}

fn number_of(value: &Value, number: impl Fn(i64) -> Option<i64>) -> Option<Constant<'static>> {
    value.as_i64().and_then(number).map(Constant::Integer)
}

/// A floating-point number; those that JSON lacks are words.
fn float(value: &Value) -> Option<f64> {
    match value.as_str() {
        None => value.as_f64(),
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        Some("NaN") => Some(f64::NAN),
        Some(_) => None,
    }
}

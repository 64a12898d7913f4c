//! From an exported program to a graph of libtorch, operator by operator.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::input::size_of_images;
use super::outputs;
use super::raise::{Raised, Tracked};
use super::schema::{
    Argument, Graph, Node, Program, memory_format, name, names_within, number_format, union,
};
use super::shown;
use super::targets::Target;
use super::weights::Weights;
use crate::hooks::{Builder, BuiltValue, Call, Constant, OF_NUMBERS};
use crate::remarks::Remark;
use crate::size::Size;

/// The most operators that are read, before any are simplified; the largest network seen has 3,000.
const MOST_NODES: usize = 20_000;

/// The most graphs within each other.
const DEEPEST: usize = 8;

/// What a program takes and returns.
pub struct Translated {
    /// The size of its images, if it is fixed.
    pub size: Option<Size>,
    /// What it returns, with their names.
    pub outputs: Vec<(String, BuiltValue)>,
    /// What is computed in another way than in PyTorch.
    pub remarks: Vec<Remark>,
}

/// What is known of a graph so far, by names in the file. An inner graph has names of its own.
#[derive(Default)]
struct Scope<'a> {
    values: HashMap<String, BuiltValue>,
    /// What operators make in another shape than in the file.
    wide: HashMap<String, BuiltValue>,
    tracked: Tracked<'a>,
}

/// A program that is being translated.
struct Translation<'a> {
    builder: &'a mut Builder,
    scope: Scope<'a>,
    /// The names that something reads.
    read: HashSet<&'a str>,
    depth: usize,
    /// Whether a part asks for arithmetic of another precision.
    is_cast: bool,
}

/// Builds the graph of `program`.
///
/// # Errors
/// Returns one line if the program has an operator that prism does not run, or damage.
pub fn translate(
    program: &Program,
    weights: &mut Weights,
    builder: &mut Builder,
) -> Result<Translated> {
    let graph = &program.graph_module.graph;
    ensure!(
        graph.nodes.len() <= MOST_NODES,
        "it has {} operators; prism reads networks of up to {MOST_NODES}",
        graph.nodes.len()
    );
    let mut translation = Translation {
        builder,
        scope: Scope {
            tracked: Tracked::of(program),
            ..Scope::default()
        },
        read: names_within(graph, &program.graph_module.signature),
        depth: 0,
        is_cast: false,
    };
    let size = translation.add_inputs(program, weights)?;
    for node in &graph.nodes {
        translation.add(node)?;
    }
    let outputs = translation.outputs(program)?;
    let cast = "a part of the network is under torch.autocast; it is computed in float32 as well";
    Ok(Translated {
        size,
        outputs,
        remarks: translation
            .is_cast
            .then(|| Remark::note(cast))
            .into_iter()
            .collect(),
    })
}

impl<'a> Translation<'a> {
    fn add_inputs(&mut self, program: &Program, weights: &mut Weights) -> Result<Option<Size>> {
        let module = &program.graph_module;
        let mut images = None;
        for spec in &module.signature.input_specs {
            let damaged = "its list of inputs is damaged";
            let (kind, inner) = union(spec).context(damaged)?;
            let field = match kind {
                "parameter" => "parameter_name",
                "buffer" => "buffer_name",
                "tensor_constant" => "tensor_constant_name",
                "constant_input" => continue, // its value is in the graph
                "user_input" => {
                    ensure!(
                        images.is_none(),
                        "it takes more than one input; prism gives it one batch of images [N,C,H,W]"
                    );
                    let tensor = inner.get("arg").and_then(|arg| arg.get("as_tensor"));
                    let tensor = tensor.and_then(name).context(
                        "it takes an input that is no tensor; prism gives it one batch of images [N,C,H,W]",
                    )?;
                    let stated = module.graph.tensor_values.get(tensor);
                    images = Some(size_of_images(stated)?);
                    let value = self.builder.input()?;
                    self.scope.values.insert(tensor.to_string(), value);
                    continue;
                }
                kind => bail!(
                    "it takes an input of the kind '{}', which prism does not read",
                    shown(kind)
                ),
            };
            let graph_name = inner.get("arg").and_then(name).context(damaged)?;
            let stored = inner.get(field).and_then(Value::as_str).context(damaged)?;
            let tensor = weights.tensor(stored)?;
            let value = self.builder.constant(&Constant::Tensor(&tensor))?;
            self.scope.values.insert(graph_name.to_string(), value);
        }
        images.context("it takes no input; prism gives it one batch of images [N,C,H,W]")
    }

    fn add(&mut self, node: &Node) -> Result<()> {
        match Target::parse(&node.target)? {
            Target::Check => Ok(()),
            Target::Graph => self.add_graph(node),
            Target::Arithmetic(operator) => {
                let mut arguments = Vec::with_capacity(node.inputs.len());
                for argument in &node.inputs {
                    arguments.push((None, self.argument(node, argument)?));
                }
                self.call(node, operator, OF_NUMBERS, &arguments, results(node)?)
            }
            Target::Aten(operator, overload) => self.add_operator(node, operator, overload),
        }
    }

    fn add_operator(&mut self, node: &Node, operator: &str, overload: &str) -> Result<()> {
        let mut names = results(node)?;
        let others = names.get(1..).unwrap_or_default();
        let is_first_enough = !others.iter().any(|name| self.read.contains(name));
        let made = names.first().copied().unwrap_or("");
        if let Some(source) = self.scope.tracked.restored(operator, node, made) {
            let value = self.scope.wide.get(source).copied();
            self.scope
                .values
                .extend(value.map(|value| (made.to_string(), value)));
            return Ok(());
        }
        let raised = Raised::of(operator, node, made, &self.scope.tracked, is_first_enough)?;
        let Some(raised) = raised else {
            let arguments = self.arguments(node, Some)?;
            self.scope.tracked.add(operator, node, &names);
            return self.call(node, operator, overload, &arguments, names);
        };
        let mut arguments = self.arguments(node, |name| raised.argument(name))?;
        for (name, constant) in &raised.added {
            let value = self.add_constant(constant)?;
            arguments.push((Some(name), value));
        }
        for (name, tensor) in &raised.tensors {
            let value = self.known(tensor)?;
            arguments.push((Some(name), value));
        }
        names.truncate(1);
        self.call(node, raised.operator, raised.overload, &arguments, names)?;
        match raised.wide {
            Some(wide) => self.reshape(node, made, wide),
            None => Ok(()),
        }
    }

    /// Gives `made`, whose sizes are `wide`, the shape that it has in the file.
    fn reshape(&mut self, node: &Node, made: &str, wide: Vec<String>) -> Result<()> {
        let value = self.known(made)?;
        let shape = self
            .scope
            .tracked
            .shape(made)
            .context("its list of tensors is damaged")?;
        let sizes = shape
            .into_iter()
            .map(|size| self.add_constant(&Constant::Integer(size)));
        let sizes = sizes.collect::<Result<Vec<_>>>()?;
        let shape = self.builder.list(&sizes)?;
        self.scope.wide.insert(made.to_string(), value);
        self.scope.tracked.reshape(made, wide);
        let arguments = [(Some("self"), value), (Some("shape"), shape)];
        self.call(node, "reshape", "", &arguments, vec![made])
    }

    /// Runs the graph that a node holds with the arguments behind it.
    fn add_graph(&mut self, node: &Node) -> Result<()> {
        let operator = || shown(&node.target);
        let damaged = || format!("its operator {} is damaged", operator());
        ensure!(
            self.depth < DEEPEST,
            "it has graphs within more than {DEEPEST} others"
        );
        let before_graph = |input: &&Argument| input.arg.get("as_graph").is_none();
        let switches: Vec<&Argument> = node.inputs.iter().take_while(before_graph).collect();
        // wrap_with_autocast: device, number format, whether it is on, whether weights are cached
        let is_on = switches
            .get(2)
            .and_then(|on| on.arg.get("as_bool")?.as_bool());
        self.is_cast |= node.target.ends_with("autocast") && is_on != Some(false);
        let mut behind = node.inputs.iter().skip(switches.len());
        let graph = behind
            .next()
            .and_then(|input| input.arg.get("as_graph")?.get("graph"));
        let graph = Graph::deserialize(graph.with_context(damaged)?).with_context(damaged)?;
        let is_given =
            |input: &&Argument| !input.is_by_keyword() && input.arg.get("as_string").is_none();
        let mut inner = HashMap::new();
        for (input, given) in graph.inputs.iter().zip(behind.filter(is_given)) {
            let value = self.argument(node, given)?;
            inner.insert(value_name(input).with_context(damaged)?.to_string(), value);
        }
        let inner = Scope {
            values: inner,
            ..Scope::default()
        };
        let outer = std::mem::replace(&mut self.scope, inner);
        self.depth += 1;
        for inner in &graph.nodes {
            self.add(inner)?;
        }
        self.depth -= 1;
        let made = graph
            .outputs
            .iter()
            .map(|output| self.known(value_name(output).with_context(damaged)?));
        let made: Vec<BuiltValue> = made.collect::<Result<_>>()?;
        self.scope = outer;
        let names = results(node)?;
        ensure!(names.len() <= made.len(), damaged());
        let named = names.into_iter().map(String::from).zip(made);
        self.scope.values.extend(named);
        Ok(())
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
        let named = names.into_iter().map(String::from).zip(made);
        self.scope.values.extend(named);
        Ok(())
    }

    /// The arguments of an operator, by the names that `renamed` gives them; those without are
    /// left out.
    fn arguments<'n>(
        &mut self,
        node: &'n Node,
        renamed: impl Fn(&'n str) -> Option<&'n str>,
    ) -> Result<Vec<(Option<&'n str>, BuiltValue)>> {
        let mut arguments = Vec::with_capacity(node.inputs.len());
        for argument in &node.inputs {
            if let Some(name) = renamed(&argument.name) {
                arguments.push((Some(name), self.argument(node, argument)?));
            }
        }
        Ok(arguments)
    }

    /// A value that was made before.
    fn known(&self, name: &str) -> Result<BuiltValue> {
        let value = self.scope.values.get(name).copied();
        value.ok_or_else(|| anyhow!("it reads '{}', which nothing before makes", shown(name)))
    }

    fn argument(&mut self, node: &Node, argument: &Argument) -> Result<BuiltValue> {
        let value = self.value(&argument.arg);
        value.with_context(|| {
            let (operator, name) = (shown(&node.target), shown(&argument.name));
            format!("its operator {operator}, argument '{name}'")
        })
    }

    fn value(&mut self, arg: &Value) -> Result<BuiltValue> {
        let (kind, value) = union(arg).context("is damaged")?;
        match kind {
            "as_tensor" => self.known(name(value).context("is damaged")?),
            "as_sym_int" | "as_sym_bool" | "as_sym_float" => self.symbolic(value),
            "as_optional_tensor" => self.value(value),
            "as_tensors"
            | "as_optional_tensors"
            | "as_sym_ints"
            | "as_sym_floats"
            | "as_sym_bools"
            | "as_ints"
            | "as_floats"
            | "as_bools" => self.list(kind, value),
            _ => {
                let constant = constant(kind, value)?;
                self.add_constant(&constant)
            }
        }
    }

    fn list(&mut self, kind: &str, value: &Value) -> Result<BuiltValue> {
        let items = value.as_array().context("is damaged")?;
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            values.push(match kind {
                "as_tensors" => self.known(name(item).context("is damaged")?)?,
                "as_optional_tensors" => self.value(item)?,
                "as_ints" => self.add_constant(&constant("as_int", item)?)?,
                "as_floats" => self.add_constant(&constant("as_float", item)?)?,
                "as_bools" => self.add_constant(&constant("as_bool", item)?)?,
                _ => self.symbolic(item)?,
            });
        }
        self.builder.list(&values)
    }

    /// A size or another number: a constant, or a value that an operator made.
    fn symbolic(&mut self, value: &Value) -> Result<BuiltValue> {
        match union(value).context("is damaged")? {
            ("as_name", name) => self.known(name.as_str().context("is damaged")?),
            (kind @ ("as_int" | "as_float" | "as_bool"), number) => {
                self.add_constant(&constant(kind, number)?)
            }
            _ => bail!("is damaged"),
        }
    }

    fn add_constant(&mut self, constant: &Constant) -> Result<BuiltValue> {
        self.builder.constant(constant)
    }

    fn outputs(&self, program: &Program) -> Result<Vec<(String, BuiltValue)>> {
        let module = &program.graph_module;
        let names = outputs::names(module).unwrap_or_default();
        let mut names = names.into_iter();
        let mut found = Vec::new();
        for spec in &module.signature.output_specs {
            match union(spec).context("its list of outputs is damaged")? {
                ("user_output", inner) => {
                    let named = names.next().unwrap_or_default();
                    let tensor = inner.get("arg").and_then(|arg| arg.get("as_tensor"));
                    if let Some(tensor) = tensor.and_then(name) {
                        found.push((named, self.known(tensor)?));
                    }
                }
                // What it leaves in its buffers after a run is not read by the next one.
                ("buffer_mutation" | "user_input_mutation" | "token", _) => {}
                (kind, _) => bail!(
                    "it has an output of the kind '{}', which prism does not read",
                    shown(kind)
                ),
            }
        }
        Ok(found)
    }
}

/// The names of what an operator makes.
fn results(node: &Node) -> Result<Vec<&str>> {
    let damaged = || format!("its operator {} has damaged results", shown(&node.target));
    let mut names = Vec::new();
    for output in &node.outputs {
        match union(output).with_context(damaged)? {
            ("as_tensors", tensors) => {
                for tensor in tensors.as_array().with_context(damaged)? {
                    names.push(name(tensor).with_context(damaged)?);
                }
            }
            ("as_none", _) => {}
            ("as_tensor" | "as_sym_int" | "as_sym_float" | "as_sym_bool", _) => {
                names.push(value_name(output).with_context(damaged)?);
            }
            (kind, _) => bail!(
                "its operator {} makes a result of the kind '{}'",
                shown(&node.target),
                shown(kind)
            ),
        }
    }
    Ok(names)
}

/// The name of a tensor, `{"as_tensor": {"name": "x"}}`, or of a size.
fn value_name(value: &Value) -> Option<&str> {
    let (_, inner) = union(value)?;
    name(inner).or_else(|| inner.get("as_name")?.as_str())
}

fn constant<'v>(kind: &str, value: &'v Value) -> Result<Constant<'v>> {
    let numbered = |number: fn(i64) -> Option<i64>| value.as_i64().and_then(number);
    let constant = match kind {
        "as_none" => Some(Constant::None),
        "as_bool" => value.as_bool().map(Constant::Bool),
        "as_int" => value.as_i64().map(Constant::Integer),
        "as_float" => float(value).map(Constant::Float),
        "as_string" => value.as_str().map(Constant::Text),
        "as_scalar_type" => numbered(number_format).map(Constant::Integer),
        "as_memory_format" => numbered(memory_format).map(Constant::Integer),
        "as_layout" => numbered(|layout| (layout == 7).then_some(0)).map(Constant::Integer), // strided
        "as_device" => Some(Constant::Device),
        _ => bail!(
            "is of the kind '{}', which prism does not read",
            shown(kind)
        ),
    };
    constant.context("is damaged")
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

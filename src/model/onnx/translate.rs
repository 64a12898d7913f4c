//! From the graph of an ONNX file to a graph of libtorch, node by node.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::input::Images;
use super::node::NodeCall;
use super::operators::{self, Tracked};
use super::proto::{Attribute, Function, Graph, MOST_NODES, Model, Node, OperatorSet, Tensor};
use super::sorted::sorted;
use super::weights::Weights;
use super::writer::{Arg, NotKnown, Value, Writer};
use super::{names, shown};
use crate::error::{Hint, hinted};
use crate::hooks::{Builder, BuiltValue};
use crate::remarks::Remark;
use crate::size::Size;

/// The versions of the operators that prism reads; the last one is that of ONNX 1.23.
const FIRST_VERSION: i64 = 7;
const LAST_VERSION: i64 = 28;

/// The most functions within each other.
const DEEPEST: usize = 16;

/// The numbers that constants may make, beside those in the file.
const MOST_CONSTANTS: i64 = 1 << 28;

/// What a network takes and returns.
pub struct Translated {
    /// The size of its images, if it is fixed.
    pub size: Option<Size>,
    /// What it returns, with their names.
    pub outputs: Vec<(String, BuiltValue)>,
    /// What is computed in another way than in the file.
    pub remarks: Vec<Remark>,
}

/// What the names of a graph, or of a function, stand for.
#[derive(Default)]
struct Scope<'a> {
    values: HashMap<&'a str, Value>,
    /// Weights that nothing has read yet.
    weights: HashMap<&'a str, &'a Tensor<'a>>,
    /// Inputs of a function that its call leaves out.
    absent: HashSet<&'a str>,
    /// What something reads.
    read: HashSet<&'a str>,
    versions: &'a [OperatorSet],
    /// The attributes with which a function is called.
    attributes: HashMap<&'a str, &'a Attribute<'a>>,
}

struct Translation<'a, 'b> {
    writer: Writer<'b>,
    weights: Weights,
    functions: HashMap<(&'a str, &'a str, &'a str), &'a Function<'a>>,
    scope: Scope<'a>,
    tracked: Tracked,
    depth: usize,
    /// The nodes so far, those of functions as often as they are called.
    count: usize,
    /// The images of the first example, in words.
    example: String,
    /// Whether they may have any size.
    is_free: bool,
    /// The first node that cannot run on them, and why.
    failure: Option<String>,
}

/// Builds the graph of `model`, whose file has `length` bytes. Images of the size `wanted` are its
/// example, if it takes any size.
///
/// # Errors
/// Returns one line if the network has an operator that prism does not run, or damage.
pub fn translate(
    model: &Model,
    weights: Weights,
    length: u64,
    wanted: Option<Size>,
    builder: &mut Builder,
) -> Result<Translated> {
    let graph = model.graph.as_ref().context("it holds no network")?;
    ensure!(
        !graph.has_sparse_weights,
        "it has sparse weights, which prism does not read"
    );
    let functions = model.functions.iter().map(|function| {
        let key = (
            function.domain.as_str(),
            function.name.as_str(),
            function.overload.as_str(),
        );
        (key, function)
    });
    let mut translation = Translation {
        writer: Writer::new(builder),
        weights,
        functions: functions.collect(),
        scope: Scope {
            weights: by_name(graph),
            read: read_by(&graph.nodes)
                .chain(graph.outputs.iter().map(|output| output.name.as_str()))
                .collect(),
            versions: &model.operator_sets,
            ..Scope::default()
        },
        tracked: Tracked::default(),
        depth: 0,
        count: 0,
        example: String::new(),
        is_free: false,
        failure: None,
    };
    let size = translation.add_input(graph, length, wanted)?;
    translation.tracked.returned = graph
        .outputs
        .iter()
        .map(|output| output.name.clone())
        .collect();
    for node in sorted(&graph.nodes) {
        translation.add(node)?;
    }
    let outputs = translation.outputs(graph)?;
    let quantised =
        "the network is quantised; it is computed with floats, without rounding to 8 bits";
    Ok(Translated {
        size,
        outputs,
        remarks: translation
            .tracked
            .is_quantised
            .then(|| Remark::note(quantised))
            .into_iter()
            .collect(),
    })
}

fn by_name<'a>(graph: &'a Graph<'a>) -> HashMap<&'a str, &'a Tensor<'a>> {
    let weights = graph.weights.iter();
    weights
        .map(|tensor| (tensor.name.as_str(), tensor))
        .collect()
}

fn read_by<'a>(nodes: &'a [Node<'a>]) -> impl Iterator<Item = &'a str> {
    nodes
        .iter()
        .flat_map(|node| &node.inputs)
        .map(String::as_str)
}

impl<'a> Translation<'a, '_> {
    /// The images. Up to IR 3, weights are among the inputs, too.
    fn add_input(
        &mut self,
        graph: &'a Graph<'a>,
        length: u64,
        wanted: Option<Size>,
    ) -> Result<Option<Size>> {
        let mut inputs = graph
            .inputs
            .iter()
            .filter(|input| !self.scope.weights.contains_key(input.name.as_str()));
        let input = inputs
            .next()
            .context("it takes no input; prism gives it one batch of images [N,C,H,W]")?;
        let others = inputs.map(|input| shown(&input.name)).collect::<Vec<_>>();
        ensure!(
            others.is_empty(),
            "it takes {} inputs ({}); prism gives it one batch of images [N,C,H,W]",
            others.len() + 1,
            crate::names::first_few(&[vec![shown(&input.name)], others].concat(), 3)
        );
        let channels = first_channels(graph);
        let images = Images::of(input, is_turned(graph, &input.name), channels)?;
        let value = self.writer.builder.input()?;
        let most = MOST_CONSTANTS.saturating_add(i64::try_from(length).unwrap_or(i64::MAX));
        let examples = images.examples(channels.unwrap_or(3), wanted);
        let [count, _, height, width] = examples[0];
        let images_of = if count == 1 { "image of" } else { "images of" };
        self.example = format!("{count} {images_of} {}", Size::new(height, width));
        self.is_free = images.size.is_none();
        self.writer.builder.set_examples(examples, most)?;
        self.tracked.images = Some((value, images.count));
        let value = match images.channels_last {
            true => self
                .tracked
                .permuted(&mut self.writer, value, &[0, 2, 3, 1])?,
            false => value,
        };
        self.scope.values.insert(&input.name, Value::Tensor(value));
        Ok(images.size)
    }

    fn add(&mut self, node: &'a Node<'a>) -> Result<()> {
        self.count += 1;
        ensure!(
            self.count <= MOST_NODES,
            "it has more than {MOST_NODES} nodes with those of its functions; prism reads networks of up to {MOST_NODES}"
        );
        let key = (
            node.domain.as_str(),
            node.operator.as_str(),
            node.overload.as_str(),
        );
        if let Some(function) = self.functions.get(&key).copied() {
            return self.add_function(node, function);
        }
        let version = self.version(&node.domain);
        let about = |reason: &str| {
            let name = match (node.name.as_str(), node.outputs.first()) {
                ("", Some(output)) => format!("node that makes '{}'", shown(output)),
                (name, _) => format!("node '{}'", shown(name)),
            };
            let colon = if reason.starts_with("its ") { ":" } else { "" };
            format!(
                "its {name} ({} of opset {}){colon} {reason}",
                shown(&operator_name(node)),
                version.unwrap_or_default()
            )
        };
        let made = self.made(node, version);
        if self.failure.is_none() {
            let failure = self.writer.builder.failure();
            self.failure =
                failure.map(|reason| about(&format!("cannot run on {}: {reason}", self.example)));
        }
        let made = made.map_err(|error| match &self.failure {
            Some(failure) if error.is::<NotKnown>() && self.is_free => {
                hinted(failure.clone(), Hint::ImageSize)
            }
            Some(failure) if error.is::<NotKnown>() => anyhow!(failure.clone()),
            _ => anyhow!(about(&format!("{error:#}"))),
        })?;
        let outputs = node.outputs.iter().zip(made);
        let outputs = outputs.filter(|(name, _)| !name.is_empty());
        self.scope
            .values
            .extend(outputs.map(|(name, value)| (name.as_str(), value)));
        Ok(())
    }

    /// The version of the operators of a domain.
    fn version(&self, domain: &str) -> Option<i64> {
        let is_own = |domain: &str| matches!(domain, "" | "ai.onnx");
        let mut sets = self.scope.versions.iter();
        sets.find(|set| set.domain == domain || is_own(&set.domain) && is_own(domain))
            .map(|set| set.version)
    }

    fn made(&mut self, node: &'a Node<'a>, version: Option<i64>) -> Result<Vec<Value>> {
        operators::refuse(node)?;
        let version = version.context("is of a version that the file does not state")?;
        ensure!(
            (FIRST_VERSION..=LAST_VERSION).contains(&version),
            "is of a version that prism does not read; it reads opsets {FIRST_VERSION} to {LAST_VERSION}: export the network with another one"
        );
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            inputs.push(self.given(name)?);
        }
        let attributes =
            node.attributes
                .iter()
                .filter_map(|attribute| match attribute.of_function.as_str() {
                    "" => Some((attribute.name.as_str(), attribute)),
                    outer => Some((attribute.name.as_str(), *self.scope.attributes.get(outer)?)),
                });
        let attributes: Vec<(&str, &Attribute)> = attributes.collect();
        let call = NodeCall {
            node,
            attributes,
            version,
            inputs,
            is_read: node
                .outputs
                .iter()
                .map(|name| self.scope.read.contains(name.as_str()))
                .collect(),
        };
        if self.depth == 0 {
            self.writer.path = names::path(node);
        }
        operators::add(
            &mut self.writer,
            &mut self.weights,
            &mut self.tracked,
            &call,
        )
    }

    /// Runs the nodes of a function in its place.
    fn add_function(&mut self, node: &'a Node<'a>, function: &'a Function<'a>) -> Result<()> {
        ensure!(
            self.depth < DEEPEST,
            "it has functions within more than {DEEPEST} others"
        );
        let mut inner = Scope {
            read: read_by(&function.nodes)
                .chain(function.outputs.iter().map(String::as_str))
                .collect(),
            versions: &function.operator_sets,
            ..Scope::default()
        };
        for (at, input) in function.inputs.iter().enumerate() {
            let given = node.inputs.get(at).map_or("", String::as_str);
            if let Some(value) = self.given(given)? {
                inner.values.insert(input, value);
            } else {
                inner.absent.insert(input);
            }
        }
        let defaults = function.defaults.iter();
        let given = node.attributes.iter();
        for attribute in defaults.chain(given) {
            let value = match attribute.of_function.as_str() {
                "" => Some(attribute),
                outer => self.scope.attributes.get(outer).copied(),
            };
            if let Some(value) = value {
                inner.attributes.insert(&attribute.name, value);
            }
        }
        if self.depth == 0 {
            self.writer.path = names::path(node);
        }
        let outer = std::mem::replace(&mut self.scope, inner);
        self.depth += 1;
        for inner in &function.nodes {
            self.add(inner)?;
        }
        self.depth -= 1;
        let made = function.outputs.iter().map(|output| self.known(output));
        let made: Vec<Value> = made.collect::<Result<_>>()?;
        self.scope = outer;
        let named = node.outputs.iter().map(String::as_str).zip(made);
        self.scope.values.extend(named);
        Ok(())
    }

    /// A value that was made before, or weights; none if it is left out.
    fn given(&mut self, name: &str) -> Result<Option<Value>> {
        match name.is_empty() || self.scope.absent.contains(name) {
            true => Ok(None),
            false => self.known(name).map(Some),
        }
    }

    /// A value that was made before, or weights.
    fn known(&mut self, name: &str) -> Result<Value> {
        if let Some(value) = self.scope.values.get(name) {
            return Ok(value.clone());
        }
        let Some((&name, &stored)) = self.scope.weights.get_key_value(name) else {
            bail!("reads '{}', which nothing before makes", shown(name));
        };
        let tensor = self.weights.tensor(stored)?;
        let value = Value::Tensor(self.writer.constant(&tensor)?);
        self.scope.values.insert(name, value.clone());
        Ok(value)
    }

    fn outputs(&mut self, graph: &'a Graph<'a>) -> Result<Vec<(String, BuiltValue)>> {
        let mut outputs = Vec::new();
        for output in &graph.outputs {
            let value = self.known(&output.name);
            let value = value.map_err(|error| anyhow!("its list of outputs {error:#}"))?;
            let tensor = self.writer.tensor(&value)?;
            self.writer.path = String::new();
            outputs.push((output.name.clone(), self.flat(tensor)?));
        }
        if let [(name, _)] = outputs.as_mut_slice() {
            name.clear();
        }
        Ok(outputs)
    }

    /// Scores `[N,K,1,1]` as `[N,K]`.
    fn flat(&mut self, scores: BuiltValue) -> Result<BuiltValue> {
        let sizes = self.writer.fixed_sizes(scores)?.unwrap_or_default();
        match sizes.as_slice() {
            [_, _, rest @ ..] if !rest.is_empty() && rest.iter().all(|&size| size == Some(1)) => {
                let end = [scores.into(), Arg::Int(1), Arg::Int(-1)];
                self.writer.op("flatten", "using_ints", &end)
            }
            _ => Ok(scores),
        }
    }
}

fn operator_name(node: &Node) -> String {
    match node.domain.as_str() {
        "" | "ai.onnx" => node.operator.clone(),
        domain => format!("{domain}::{}", node.operator),
    }
}

/// Whether the first node that reads the images takes them from `[N,H,W,C]` to `[N,C,H,W]`.
fn is_turned(graph: &Graph, images: &str) -> bool {
    let reads = |node: &&Node| node.inputs.iter().any(|input| input == images);
    let Some(first) = graph.nodes.iter().find(reads) else {
        return false;
    };
    let order = first.attributes.iter().find(|one| one.name == "perm");
    let order = order.map(|order| &order.value);
    first.operator == "Transpose"
        && matches!(order, Some(super::proto::Value::Integers(order)) if *order == [0, 3, 1, 2])
}

/// The channels that the first convolution of the images takes.
fn first_channels(graph: &Graph) -> Option<i64> {
    let weights = by_name(graph);
    let mut convolutions = graph.nodes.iter().filter(|node| node.operator == "Conv");
    let first = convolutions.next()?;
    let stored = weights.get(first.inputs.get(1)?.as_str())?;
    let group = first.attributes.iter().find(|one| one.name == "group");
    let group = match group.map(|group| &group.value) {
        Some(super::proto::Value::Integer(group)) => *group,
        _ => 1,
    };
    let channels = stored.sizes.get(1)?.checked_mul(group)?;
    (1..=64).contains(&channels).then_some(channels)
}

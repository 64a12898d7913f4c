//! The forward graph as data: operators in execution order, and the sizes of the values between
//! them.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::naming;
use super::operators::{Kind, Operator, Property, short_name};

/// The number of a value in the graph.
pub type ValueId = usize;

/// One operator of the network.
#[derive(Debug, Clone, Deserialize)]
pub struct Node {
    /// TorchScript's name: `aten::conv2d`.
    #[serde(rename = "operator")]
    pub full_name: String,
    /// Path of the module whose code contains it (`features.0`); may be empty.
    pub path: String,
    /// Tensors and other values that it reads, in order.
    pub inputs: Vec<ValueId>,
    /// Values that it returns, in order.
    pub outputs: Vec<ValueId>,
    /// The operators in the branches or the body of a conditional or loop.
    within: Vec<String>,
    /// Addresses of the constant tensors among its inputs.
    pub parameters: Vec<usize>,
    /// The sizes of its second input if that is a constant tensor: the weights
    /// `[out, in, h, w]` of a convolution.
    weight: Option<Vec<i64>>,
    /// Its integer arguments by name: `stride`, `padding`, ...
    arguments: BTreeMap<String, Vec<i64>>,
    /// Its row in the table of operators.
    #[serde(skip)]
    pub operator: Operator,
    /// Unique within the graph; empty if it makes no tensor.
    #[serde(skip)]
    pub name: String,
}

impl Node {
    /// Its operator without namespace and in-place mark: `conv2d`, `relu`.
    pub fn short_name(&self) -> &str {
        short_name(&self.full_name)
    }

    pub fn kind(&self) -> Kind {
        self.operator.kind
    }

    pub fn has(&self, property: Property) -> bool {
        self.operator.has(property)
    }

    /// Whether it is a 2-d convolution, not a transposed one.
    pub fn is_conv2d(&self) -> bool {
        self.kind() == Kind::Conv2d && self.argument("transposed") != Some(&[1][..])
    }

    /// Whether it is a 2-d convolution without padding or stride. If it also preserves the size,
    /// it maps each pixel to one pixel.
    pub fn is_pointwise_convolution(&self) -> bool {
        let padding = self.argument("padding");
        let unpadded = padding.is_some_and(|padding| padding.iter().all(|&side| side == 0));
        self.is_conv2d() && self.stride() == 1 && unpadded
    }

    /// Whether it is attention as one operator, or contains such an operator.
    pub fn is_attention(&self) -> bool {
        let is_attention = |name: &String| Operator::of(name).kind == Kind::Attention;
        self.kind() == Kind::Attention || self.within.iter().any(is_attention)
    }

    /// Whether it changes its first input in place.
    pub fn works_in_place(&self) -> bool {
        // `__getitem__` and similar names end with an underscore, too.
        self.full_name
            .strip_prefix("aten::")
            .is_some_and(|name| name.ends_with('_') && !name.starts_with("__"))
    }

    /// Whether it is a 2-d convolution or 2-d pooling with a given window.
    pub fn has_window(&self) -> bool {
        self.has(Property::Window) && (self.kind() != Kind::Conv2d || self.is_conv2d())
    }

    /// The largest stride, or 1 if it has none. The default stride of pooling is its window.
    pub fn stride(&self) -> i64 {
        let largest = |name| self.argument(name).and_then(|s| s.iter().max().copied());
        let pools = self.has(Property::Window) && self.kind() != Kind::Conv2d;
        largest("stride")
            .or_else(|| largest("kernel_size").filter(|_| pools))
            .unwrap_or(1)
    }

    /// Whether it turns `[N,C,h,w]` into `[N,h,w,C]`, which is not an activation.
    pub fn puts_channels_last(&self) -> bool {
        self.kind() == Kind::Permute && self.argument("dims") == Some(&[0, 2, 3, 1][..])
    }

    /// The container that it puts a value into, if it does.
    pub fn filled_container(&self) -> Option<ValueId> {
        let first = self.inputs.first().copied();
        first.filter(|_| self.kind() == Kind::FillContainer)
    }

    /// The sizes of its second input if that is a constant tensor.
    pub fn weight(&self) -> Option<&[i64]> {
        self.weight.as_deref()
    }

    pub fn argument(&self, name: &str) -> Option<&[i64]> {
        self.arguments.get(name).map(Vec::as_slice)
    }
}

/// The forward graph of a network for one input size.
#[derive(Debug, Deserialize)]
pub struct Graph {
    /// Operators in execution order.
    pub nodes: Vec<Node>,
    /// The image batch.
    pub input: ValueId,
    /// The tensors that the network returns, in order.
    pub outputs: Vec<ValueId>,
    sizes: Vec<Option<Vec<i64>>>,
    #[serde(skip)]
    maker: Vec<Option<usize>>,
    #[serde(skip)]
    users: Vec<Vec<usize>>,
    /// For each list or dictionary, the operators that put something into it.
    #[serde(skip)]
    fillers: Vec<Vec<usize>>,
    /// Whether a value still has the image's pixels: a tensor `[N,1,1,C]` after global pooling
    /// is not an activation.
    #[serde(skip)]
    spatial: Vec<bool>,
}

impl Graph {
    /// Reads the shim's description.
    ///
    /// `parameter_names` maps the address of a parameter's data to its name
    /// (`features.0.weight`). Networks traced in memory have no modules, so their operators are
    /// named after the parameters that they read.
    ///
    /// # Errors
    /// Returns an error if the text is not such a description.
    pub fn parse(json: &str, parameter_names: &HashMap<usize, String>) -> Result<Graph> {
        let mut graph: Graph =
            serde_json::from_str(json).context("the description of the network's graph")?;
        let count = graph.sizes.len();
        graph.maker = vec![None; count];
        graph.users = vec![Vec::new(); count];
        graph.fillers = vec![Vec::new(); count];
        graph.spatial = vec![false; count];
        for (index, node) in graph.nodes.iter_mut().enumerate() {
            node.operator = Operator::of(&node.full_name);
            for &output in &node.outputs {
                graph.maker[output] = Some(index);
            }
            for &input in &node.inputs {
                graph.users[input].push(index);
            }
            if let Some(container) = node.filled_container() {
                graph.fillers[container].push(index);
            }
        }
        graph.find_spatial();
        if !parameter_names.is_empty() {
            let paths = naming::module_paths(&graph, parameter_names);
            for (node, path) in graph.nodes.iter_mut().zip(paths) {
                node.path = path;
            }
        }
        let names = naming::unique_names(&graph);
        for (node, name) in graph.nodes.iter_mut().zip(names) {
            node.name = name;
        }
        Ok(graph)
    }

    /// The sizes of a value if it is a tensor.
    pub fn sizes(&self, value: ValueId) -> Option<&[i64]> {
        self.sizes[value].as_deref()
    }

    /// The number of elements of the largest tensor.
    pub fn largest_tensor(&self) -> i64 {
        let sizes = self.sizes.iter().flatten();
        sizes.map(|sizes| sizes.iter().product()).max().unwrap_or(0)
    }

    /// `(C, h, w)` of an activation: a 4-d tensor of more than one pixel.
    pub fn activation(&self, value: ValueId) -> Option<(i64, i64, i64)> {
        match self.sizes(value) {
            Some(&[_, c, h, w]) if self.spatial[value] => Some((c, h, w)),
            _ => None,
        }
    }

    /// The first output of an operator if it is an activation.
    pub fn layer_output(&self, node: &Node) -> Option<ValueId> {
        let output = node.outputs.first().copied();
        output.filter(|&value| self.activation(value).is_some())
    }

    fn find_spatial(&mut self) {
        self.spatial[self.input] = self.has_pixels(self.input);
        let from_image = self.descendants(self.input);
        for node in &self.nodes {
            // A convolution restores the pixels of an image that was cut into patches.
            let convolves = || node.is_conv2d() && from_image.contains(&node.inputs[0]);
            let reads_pixels = node.inputs.iter().any(|&input| self.spatial[input]) || convolves();
            if node.kind() == Kind::Size || !reads_pixels {
                continue;
            }
            if let Some(container) = node.filled_container() {
                self.spatial[container] = true;
            }
            for &output in &node.outputs {
                // A list has pixels if one of its tensors has.
                self.spatial[output] = self.sizes[output].is_none() || self.has_pixels(output);
            }
        }
    }

    fn has_pixels(&self, value: ValueId) -> bool {
        // Channel shuffles have five dimensions on their way.
        matches!(self.sizes(value), Some(&[_, _, h, w] | &[_, _, _, h, w]) if h * w > 1)
    }

    /// Whether an operator gathers over space: a convolution or pooling whose window is larger
    /// than a pixel in some direction.
    pub fn is_spatial(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        let window = if node.is_conv2d() {
            let computed = || node.inputs.get(1).and_then(|&weight| self.sizes(weight));
            let weight = node.weight.as_deref().or_else(computed);
            weight.and_then(|sizes| sizes.get(2..))
        } else {
            node.argument("kernel_size").filter(|_| node.has_window())
        };
        window.is_some_and(|window| window.iter().any(|&side| side > 1))
    }

    /// The index of the operator that makes a value; none for the input.
    pub fn maker(&self, value: ValueId) -> Option<usize> {
        self.maker[value]
    }

    /// The operator that makes a value; none for the input.
    pub fn made_by(&self, value: ValueId) -> Option<&Node> {
        self.maker[value].map(|node| &self.nodes[node])
    }

    /// The operators that read a value.
    pub fn users(&self, value: ValueId) -> impl Iterator<Item = &Node> {
        self.users[value].iter().map(|&user| &self.nodes[user])
    }

    /// The name of the operator that makes a value; `image` for the input.
    pub fn name(&self, value: ValueId) -> &str {
        self.made_by(value).map_or("image", |node| &node.name)
    }

    /// The indices of the operators that a value depends on.
    pub fn ancestors(&self, value: ValueId) -> HashSet<usize> {
        let mut found = HashSet::new();
        let mut open = vec![value];
        while let Some(value) = open.pop() {
            for &node in self.maker[value].iter().chain(&self.fillers[value]) {
                if found.insert(node) {
                    open.extend(&self.nodes[node].inputs);
                }
            }
        }
        found
    }

    /// A value and all values that depend on it.
    pub fn descendants(&self, value: ValueId) -> HashSet<ValueId> {
        let mut found = HashSet::from([value]);
        for node in &self.nodes {
            if node.inputs.iter().any(|input| found.contains(input)) {
                found.extend(&node.outputs);
                found.extend(node.filled_container());
            }
        }
        found
    }

    /// Whether a convolution is among the operators that a value depends on.
    pub fn follows_convolution(&self, value: ValueId) -> bool {
        let mut ancestors = self.ancestors(value).into_iter();
        ancestors.any(|node| self.nodes[node].is_conv2d())
    }
}

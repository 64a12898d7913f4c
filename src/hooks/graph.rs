//! The forward graph as data: operators in execution order, and the sizes of the values between
//! them.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::axes::{Axis, Dimensions, Layout, Place, dimensions};
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
    /// Its constant integer arguments by name: `stride`, `padding`, ...
    arguments: BTreeMap<String, Vec<i64>>,
    /// All its integer arguments by name, as they are for this size of the images.
    #[serde(default)]
    evaluated: BTreeMap<String, Vec<i64>>,
    /// Its constant numbers by name; none for those that are not finite.
    #[serde(default)]
    scalars: BTreeMap<String, Option<f64>>,
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

    /// Whether it is a branch or a loop.
    pub fn is_block(&self) -> bool {
        !self.within.is_empty()
    }

    /// Whether such an operator is inside a branch or loop.
    pub fn holds(&self, kind: Kind) -> bool {
        self.within
            .iter()
            .any(|name| Operator::of(name).kind == kind)
    }

    /// Whether it is attention as one operator, or contains such an operator.
    pub fn is_attention(&self) -> bool {
        self.kind() == Kind::Attention || self.holds(Kind::Attention)
    }

    /// Whether it changes its first input in place.
    pub fn works_in_place(&self) -> bool {
        is_in_place(&self.full_name)
    }

    /// Whether an operator inside a branch or loop changes a tensor in place.
    fn writes_inside(&self) -> bool {
        self.within.iter().any(|name| is_in_place(name))
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

    /// The container that it puts a value into, if it does.
    pub fn filled_container(&self) -> Option<ValueId> {
        let first = self.inputs.first().copied();
        first.filter(|_| self.kind() == Kind::FillContainer)
    }

    /// An integer argument, as it is for this size of the images.
    pub fn evaluated(&self, name: &str) -> Option<&[i64]> {
        self.evaluated.get(name).map(Vec::as_slice)
    }

    /// A constant number among its arguments.
    pub fn scalar(&self, name: &str) -> Option<f64> {
        self.scalars.get(name).copied().flatten()
    }

    /// Whether it is an operator of another library than libtorch.
    pub fn is_foreign(&self) -> bool {
        !["aten::", "prim::", "quantized::"]
            .iter()
            .any(|library| self.full_name.starts_with(library))
    }

    /// The sizes of its second input if that is a constant tensor.
    pub fn weight(&self) -> Option<&[i64]> {
        self.weight.as_deref()
    }

    pub fn argument(&self, name: &str) -> Option<&[i64]> {
        self.arguments.get(name).map(Vec::as_slice)
    }
}

fn is_in_place(operator: &str) -> bool {
    // `__getitem__` and similar names end with an underscore, too.
    let name = operator.strip_prefix("aten::");
    name.is_some_and(|name| name.ends_with('_') && !name.starts_with("__"))
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
    /// Their names, as many or none: keys of dictionaries and fields of named tuples; else empty.
    #[serde(default)]
    pub output_names: Vec<String>,
    sizes: Vec<Option<Vec<i64>>>,
    /// Operators that were in training mode, and are in inference mode now.
    #[serde(default)]
    pub put_into_inference: Vec<String>,
    /// Whether batch-norms use the statistics of the batch.
    #[serde(default, rename = "batch_statistics")]
    pub has_batch_statistics: bool,
    /// Operators whose results may differ between two passes.
    #[serde(default)]
    pub varying: Vec<String>,
    #[serde(skip)]
    maker: Vec<Option<usize>>,
    #[serde(skip)]
    users: Vec<Vec<usize>>,
    /// For each list, dictionary or written tensor, the operators that put something into it.
    #[serde(skip)]
    fillers: Vec<Vec<usize>>,
    /// The dimensions of the values that depend on the images.
    #[serde(skip)]
    dimensions: Vec<Option<Dimensions>>,
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
        for (index, node) in graph.nodes.iter_mut().enumerate() {
            node.operator = Operator::of(&node.full_name);
            for &output in &node.outputs {
                graph.maker[output] = Some(index);
            }
            for &input in &node.inputs {
                graph.users[input].push(index);
            }
        }
        for index in 0..graph.nodes.len() {
            for filled in graph.filled(&graph.nodes[index]) {
                graph.fillers[filled].push(index);
            }
        }
        graph.dimensions = dimensions(&graph);
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

    /// The first sizes of the tensors that the network returns.
    pub fn returned_rows(&self) -> Vec<i64> {
        let sizes = self.outputs.iter().filter_map(|&output| self.sizes(output));
        sizes.filter_map(|sizes| sizes.first().copied()).collect()
    }

    /// Whether a tensor that the network returns has a row for each of `images` images, or, of one
    /// image, no rows at all.
    pub fn returns_a_row_for(&self, images: i64) -> bool {
        let mut sizes = self.outputs.iter().filter_map(|&output| self.sizes(output));
        let is_flat = |sizes: &[i64]| images == 1 && sizes.len() == 1;
        sizes.any(|sizes| sizes.first() == Some(&images) || is_flat(sizes))
    }

    /// The number of images for which the sizes are.
    pub fn images(&self) -> i64 {
        self.sizes(self.input).map_or(1, |sizes| sizes[0].max(1))
    }

    /// The number of channels of the images.
    pub fn channels(&self) -> i64 {
        let sizes = self.sizes(self.input);
        sizes
            .and_then(|sizes| sizes.get(1).copied())
            .unwrap_or_default()
    }

    /// The number of elements of the largest tensor, for one image.
    pub fn largest_tensor(&self) -> i64 {
        let sizes = self.sizes.iter().flatten();
        let elements = sizes.map(|sizes| sizes.iter().product::<i64>());
        elements.max().unwrap_or(0) / self.images()
    }

    /// The number of values.
    pub fn count(&self) -> usize {
        self.sizes.len()
    }

    /// `(C, h, w)` of an activation: a tensor of channels at more than one pixel, in any layout.
    pub fn activation(&self, value: ValueId) -> Option<(i64, i64, i64)> {
        self.layout(value).map(|layout| layout.shape)
    }

    /// The layout of an activation.
    pub fn layout(&self, value: ValueId) -> Option<Layout> {
        self.dimensions[value]
            .as_ref()?
            .layout(self.sizes(value)?, self.images())
    }

    /// Whether a value depends on the images.
    pub fn depends_on_images(&self, value: ValueId) -> bool {
        self.dimensions[value].is_some()
    }

    /// Whether a dimension of a value runs over the images.
    pub fn has_batch_axis(&self, value: ValueId) -> bool {
        let known = self.dimensions[value].as_ref();
        known.is_some_and(|known| known.axes.contains(&Axis::Batch))
    }

    /// Where the pixels of a value lie in the images.
    pub fn place(&self, value: ValueId) -> Option<Place> {
        self.dimensions[value].as_ref().map(|known| known.place)
    }

    /// Whether the pixels of two values lie in the same part of the images.
    pub fn covers_the_same(&self, a: ValueId, b: ValueId) -> bool {
        let places = self.place(a).zip(self.place(b));
        places.is_none_or(|(a, b)| a.covers_the_same(&b))
    }

    /// Whether a value has more than one pixel.
    pub fn has_pixels(&self, value: ValueId) -> bool {
        let known = self.dimensions[value].as_ref().zip(self.sizes(value));
        known.is_some_and(|(known, sizes)| known.has_pixels(sizes))
    }

    /// Whether a value has pixels, but a single channel.
    pub fn is_plane(&self, value: ValueId) -> bool {
        let known = self.dimensions[value].as_ref().zip(self.sizes(value));
        known.is_some_and(|(known, sizes)| {
            let is_other = |axis| matches!(axis, Axis::Channel | Axis::Other);
            let mut axes = known.axes.iter().zip(sizes);
            known.has_pixels(sizes) && axes.all(|(&axis, &size)| size == 1 || !is_other(axis))
        })
    }

    /// The first output of an operator if it is an activation.
    pub fn layer_output(&self, node: &Node) -> Option<ValueId> {
        let output = node.outputs.first().copied();
        output.filter(|&value| self.activation(value).is_some())
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

    /// What an operator puts a value into: a list or dictionary, or a tensor of which it writes a
    /// part in place. A branch or loop may fill the lists and new tensors that it reads.
    pub fn filled(&self, node: &Node) -> Vec<ValueId> {
        if node.is_block() {
            let is_filled = |value: &ValueId| {
                let maker = self.made_by(*value).map(Node::kind);
                match maker {
                    Some(Kind::Container) => node.holds(Kind::FillContainer),
                    Some(Kind::Filled) => node.writes_inside(),
                    _ => false,
                }
            };
            return node.inputs.iter().copied().filter(is_filled).collect();
        }
        if let Some(container) = node.filled_container() {
            return vec![container];
        }
        let Some(&part) = node.inputs.first().filter(|_| node.works_in_place()) else {
            return Vec::new();
        };
        let mut whole = part;
        while let Some(maker) = self.made_by(whole)
            && maker.has(Property::View)
            && let Some(&input) = maker.inputs.first()
        {
            whole = input;
        }
        if whole == part {
            Vec::new()
        } else {
            vec![whole]
        }
    }

    /// The operators that put something into a value.
    pub fn fillers(&self, value: ValueId) -> impl Iterator<Item = &Node> {
        self.fillers[value]
            .iter()
            .map(|&filler| &self.nodes[filler])
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
                found.extend(self.filled(node));
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

//! The forward graph as data: operators in execution order, the tensors
//! between them with their sizes, and names that a person can type.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result};
use serde::Deserialize;

/// The number of a tensor in the graph.
pub type ValueId = usize;

/// One operator of the network.
#[derive(Debug, Clone, Deserialize)]
pub struct Node {
    /// As TorchScript calls it: `aten::conv2d`.
    pub operator: String,
    /// Path of the module whose code made it (`features.0`); may be empty.
    pub path: String,
    /// Tensors and other values that it reads, in order.
    pub inputs: Vec<ValueId>,
    /// Values that it makes, in order.
    pub outputs: Vec<ValueId>,
    /// The operators in the branches or the body of a conditional or loop.
    within: Vec<String>,
    /// Addresses of the constant tensors among its inputs.
    parameters: Vec<usize>,
    /// The sizes of its second input, where that is a constant tensor: a
    /// convolution's weights `[out, in, h, w]`.
    weight: Option<Vec<i64>>,
    /// Its integer arguments by name: `stride`, `padding`, ...
    pub arguments: BTreeMap<String, Vec<i64>>,
    /// Unique within the graph; made by [`Graph::parse`].
    #[serde(skip)]
    pub name: String,
}

impl Node {
    /// The operator without namespace and in-place mark: `conv2d`, `relu`.
    pub fn kind(&self) -> &str {
        let kind = self.operator.rsplit("::").next().unwrap_or(&self.operator);
        match kind.trim_matches('_') {
            // A traced convolution is written as the general one, or with its
            // padding in words.
            "convolution" | "convolution_mode" => "conv2d",
            "max_pool2d_with_indices" => "max_pool2d",
            kind => kind,
        }
    }

    /// Whether it is a 2-d convolution, not a transposed one.
    pub fn is_conv2d(&self) -> bool {
        self.kind() == "conv2d" && self.argument("transposed") != Some(&[1][..])
    }

    /// Whether it is a 2-d convolution without padding or stride: of one pixel
    /// to one, if it also keeps the size.
    pub fn is_pointwise_convolution(&self) -> bool {
        let padding = self.argument("padding");
        let unpadded = padding.is_some_and(|padding| padding.iter().all(|&side| side == 0));
        self.is_conv2d() && self.stride() == 1 && unpadded
    }

    /// Whether it is a 2-d max-pool.
    pub fn is_max_pool2d(&self) -> bool {
        self.kind() == "max_pool2d"
    }

    /// Whether it carries on a tensor elementwise through a non-linearity.
    pub fn is_nonlinearity(&self) -> bool {
        matches!(
            self.kind(),
            "relu"
                | "relu6"
                | "hardtanh"
                | "clamp"
                | "clamp_max"
                | "clamp_min"
                | "silu"
                | "gelu"
                | "hardswish"
                | "leaky_relu"
                | "elu"
                | "celu"
                | "selu"
                | "mish"
                | "sigmoid"
                | "hardsigmoid"
                | "tanh"
                | "softplus"
                | "prelu"
        )
    }

    /// Whether it is a linear map by weights, of one kind or another.
    pub fn has_weights(&self) -> bool {
        matches!(
            self.kind(),
            "conv1d"
                | "conv2d"
                | "conv3d"
                | "conv_transpose1d"
                | "conv_transpose2d"
                | "linear"
                | "addmm"
                | "matmul"
                | "mm"
                | "bmm"
                | "einsum"
        )
    }

    /// Whether it, or an operator in its branches, is attention as one operator.
    pub fn is_attention(&self) -> bool {
        [&self.operator]
            .into_iter()
            .chain(&self.within)
            .any(|operator| {
                matches!(
                    operator.as_str(),
                    "aten::scaled_dot_product_attention"
                        | "aten::_native_multi_head_attention"
                        | "aten::_transformer_encoder_layer_fwd"
                )
            })
    }

    /// Whether it changes its first input in place.
    pub fn works_in_place(&self) -> bool {
        // Not __getitem__ and its like.
        self.operator
            .strip_prefix("aten::")
            .is_some_and(|name| name.ends_with('_') && !name.starts_with("__"))
    }

    /// The largest stride, 1 where it has none. Pooling without a stride
    /// moves by its kernel.
    pub fn stride(&self) -> i64 {
        let largest = |name| self.argument(name).and_then(|s| s.iter().max().copied());
        largest("stride")
            .or_else(|| self.is_pooling().then(|| largest("kernel_size")).flatten())
            .unwrap_or(1)
    }

    /// Whether it turns `[N,C,h,w]` into `[N,h,w,C]`, which is no activation.
    pub fn puts_channels_last(&self) -> bool {
        self.kind() == "permute" && self.argument("dims") == Some(&[0, 2, 3, 1][..])
    }

    /// Whether it is pooling over space whose window is given.
    pub fn is_pooling(&self) -> bool {
        self.is_max_pool2d() || self.kind() == "avg_pool2d"
    }

    fn fills_a_container(&self) -> bool {
        matches!(self.kind(), "append" | "extend" | "insert" | "set_item")
    }

    fn argument(&self, name: &str) -> Option<&[i64]> {
        self.arguments.get(name).map(Vec::as_slice)
    }
}

#[derive(Deserialize)]
struct Description {
    input: ValueId,
    outputs: Vec<ValueId>,
    sizes: Vec<Option<Vec<i64>>>,
    nodes: Vec<Node>,
}

/// The forward graph of a network for one input size.
#[derive(Debug)]
pub struct Graph {
    /// Operators in execution order.
    pub nodes: Vec<Node>,
    /// The image batch.
    pub input: ValueId,
    /// The tensors that the network returns, in order.
    pub outputs: Vec<ValueId>,
    sizes: Vec<Option<Vec<i64>>>,
    maker: Vec<Option<usize>>,
    users: Vec<Vec<usize>>,
    /// Operators that put something into a list or dictionary.
    fillers: Vec<Vec<usize>>,
    /// Whether a value still has the image's pixels: after pooling to one, a
    /// tensor [N,1,1,C] is no activation.
    spatial: Vec<bool>,
}

impl Graph {
    /// Reads the shim's description.
    ///
    /// `parameter_names` maps the address of a parameter's data to its name
    /// (`features.0.weight`), for networks traced in memory, which have no
    /// modules: their operators are then named after the parameters they read.
    ///
    /// # Errors
    /// Where the text is not such a description.
    pub fn parse(json: &str, parameter_names: &HashMap<usize, String>) -> Result<Graph> {
        let description: Description =
            serde_json::from_str(json).context("the description of the network's graph")?;
        let count = description.sizes.len();
        let mut maker = vec![None; count];
        let mut users = vec![Vec::new(); count];
        let mut fillers = vec![Vec::new(); count];
        for (index, node) in description.nodes.iter().enumerate() {
            for &output in &node.outputs {
                maker[output] = Some(index);
            }
            for &input in &node.inputs {
                users[input].push(index);
            }
            if node.fills_a_container()
                && let Some(&container) = node.inputs.first()
            {
                fillers[container].push(index);
            }
        }
        let mut graph = Graph {
            nodes: description.nodes,
            input: description.input,
            outputs: description.outputs,
            sizes: description.sizes,
            maker,
            users,
            fillers,
            spatial: vec![false; count],
        };
        graph.find_spatial();
        if !parameter_names.is_empty() {
            graph.name_modules_after(parameter_names);
        }
        graph.name_nodes();
        Ok(graph)
    }

    /// The sizes of a value, where it is a tensor.
    pub fn sizes(&self, value: ValueId) -> Option<&[i64]> {
        self.sizes[value].as_deref()
    }

    /// The most numbers that a tensor has.
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

    fn find_spatial(&mut self) {
        self.spatial[self.input] = self.more_than_a_pixel(self.input);
        let of_image = self.descendants(self.input);
        for node in &self.nodes {
            // A convolution makes pixels of what was cut into patches and put together.
            let convolves = || node.is_conv2d() && of_image.contains(&node.inputs[0]);
            let sees_pixels = node.inputs.iter().any(|&input| self.spatial[input]) || convolves();
            if node.kind() == "size" || !sees_pixels {
                continue;
            }
            if node.fills_a_container() {
                self.spatial[node.inputs[0]] = true;
            }
            for &output in &node.outputs {
                // A list holds pixels if one of its tensors does.
                self.spatial[output] =
                    self.sizes[output].is_none() || self.more_than_a_pixel(output);
            }
        }
    }

    fn more_than_a_pixel(&self, value: ValueId) -> bool {
        // Five: a channel shuffle on its way.
        matches!(self.sizes(value), Some(&[_, _, h, w] | &[_, _, _, h, w]) if h * w > 1)
    }

    /// Whether an operator gathers over space: a convolution or pooling whose
    /// window is larger than a pixel in some direction.
    pub fn is_spatial(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        let window = if node.is_conv2d() {
            let computed = || node.inputs.get(1).and_then(|&weight| self.sizes(weight));
            let weight = node.weight.as_deref().or_else(computed);
            weight.and_then(|sizes| sizes.get(2..))
        } else if node.is_pooling() {
            node.argument("kernel_size")
        } else {
            None
        };
        window.is_some_and(|window| window.iter().any(|&side| side > 1))
    }

    /// The index of the operator that makes a value; none for the input.
    pub fn maker(&self, value: ValueId) -> Option<usize> {
        self.maker[value]
    }

    /// The indices of the operators that read a value.
    pub fn users(&self, value: ValueId) -> &[usize] {
        &self.users[value]
    }

    /// The name of the operator that makes a value; `image` for the input.
    pub fn name(&self, value: ValueId) -> &str {
        self.maker[value].map_or("image", |node| &self.nodes[node].name)
    }

    /// The operators that a value depends on.
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

    /// The values that depend on a value, it included.
    pub fn descendants(&self, value: ValueId) -> HashSet<ValueId> {
        let mut found = HashSet::from([value]);
        for (index, node) in self.nodes.iter().enumerate() {
            if node.inputs.iter().any(|input| found.contains(input)) {
                found.extend(&node.outputs);
                found.extend(self.filled_by(index));
            }
        }
        found
    }

    /// The container that an operator puts something into, where it does.
    pub fn filled_by(&self, node: usize) -> Option<&ValueId> {
        let node = &self.nodes[node];
        node.inputs.first().filter(|_| node.fills_a_container())
    }

    /// The first `[N,K]` tensor of what the network returns.
    pub fn logits(&self) -> Option<ValueId> {
        self.outputs
            .iter()
            .copied()
            .find(|&value| matches!(self.sizes(value), Some(&[_, classes]) if classes > 0))
    }

    /// Gives every operator of a traced network the path of a module.
    ///
    /// An operator with parameters takes theirs. One without stands where
    /// `nn.Sequential` would have it (the number after its input's), or belongs
    /// to the module around its latest input; a sum or concatenation to the
    /// module that holds all its inputs.
    fn name_modules_after(&mut self, parameter_names: &HashMap<usize, String>) {
        let modules: HashSet<&str> = parameter_names
            .values()
            .flat_map(|name| prefixes(parent(name)))
            .collect();
        // Modules whose children are all numbered hold no operators themselves.
        let mut children: HashMap<&str, Vec<&str>> = HashMap::new();
        for &module in &modules {
            children
                .entry(parent(module))
                .or_default()
                .push(last(module));
        }
        let is_sequential = |module: &str| {
            let numbered = |name: &&str| name.parse::<usize>().is_ok();
            children
                .get(module)
                .is_some_and(|names| names.iter().all(numbered))
        };
        let next_in_sequence = |path: &str| -> Option<String> {
            let number: usize = last(path).parse().ok()?;
            let next = join(parent(path), &(number + 1).to_string());
            (is_sequential(parent(path)) && !modules.contains(next.as_str())).then_some(next)
        };

        let mut paths: Vec<String> = Vec::with_capacity(self.nodes.len());
        for (index, node) in self.nodes.iter().enumerate() {
            let own = node.parameters.iter().find_map(|p| parameter_names.get(p));
            let mut makers: Vec<usize> = node
                .inputs
                .iter()
                .filter_map(|&input| self.maker[input])
                .filter(|&maker| maker < index)
                .collect();
            makers.sort_unstable();
            makers.dedup();
            let path = match (own, makers.as_slice()) {
                (Some(name), _) => parent(name).to_string(),
                (None, []) => String::new(),
                (None, [maker]) => {
                    let before = paths[*maker].as_str();
                    let maker = &self.nodes[*maker];
                    let composite = !modules.contains(before) || children.contains_key(before);
                    let leaf = maker
                        .parameters
                        .iter()
                        .any(|p| parameter_names.contains_key(p));
                    if node.kind().starts_with("adaptive") {
                        String::new() // the pooling between the features and the classifier
                    } else if maker.is_nonlinearity() && node.is_nonlinearity() {
                        before.to_string() // two halves of one: relu, then clamp at 6
                    } else if leaf || node.kind().contains("pool") || !composite {
                        next_in_sequence(before).unwrap_or_else(|| {
                            if leaf { parent(before) } else { before }.to_string()
                        })
                    } else if composite && !children.contains_key(before) {
                        // a numbered member of a sequence that has no parameters
                        next_in_sequence(before).unwrap_or_else(|| parent(before).to_string())
                    } else {
                        before.to_string()
                    }
                }
                // A sum or concatenation: the module that made all its inputs, but
                // for one that may have come from before it (a shortcut).
                (None, [.., latest]) => {
                    let latest = paths[*latest].as_str();
                    let own = if children.contains_key(latest) {
                        latest
                    } else {
                        parent(latest)
                    };
                    let joins = |module: &&str| {
                        let outside = |&&maker: &&usize| !is_inside(&paths[maker], module);
                        let begin = paths.iter().position(|path| is_inside(path, module));
                        let mut outsiders = makers.iter().filter(outside);
                        match (outsiders.next(), outsiders.next()) {
                            (None, _) => true,
                            (Some(maker), None) => begin.is_some_and(|begin| *maker < begin),
                            _ => false,
                        }
                    };
                    prefixes(own)
                        .filter(|module| !is_sequential(module))
                        .find(joins)
                        .unwrap_or_default()
                        .to_string()
                }
            };
            paths.push(path);
        }
        for (node, path) in self.nodes.iter_mut().zip(paths) {
            node.path = path;
        }
    }

    /// Names every operator by its module, with the operator and a count where
    /// a module has several or holds other modules.
    fn name_nodes(&mut self) {
        let holders: HashSet<String> = self
            .nodes
            .iter()
            .flat_map(|node| prefixes(parent(&node.path)))
            .map(str::to_string)
            .collect();
        let tensor_makers: Vec<usize> = (0..self.nodes.len())
            .filter(|&index| {
                self.nodes[index]
                    .outputs
                    .iter()
                    .any(|&output| self.sizes[output].is_some())
            })
            .collect();
        let mut in_module: HashMap<String, usize> = HashMap::new();
        let mut of_kind: HashMap<(String, String), usize> = HashMap::new();
        for &index in &tensor_makers {
            let node = &self.nodes[index];
            *in_module.entry(node.path.clone()).or_default() += 1;
            *of_kind
                .entry((node.path.clone(), node.kind().to_string()))
                .or_default() += 1;
        }
        let mut count: HashMap<(String, String), usize> = HashMap::new();
        let mut taken: HashSet<String> = HashSet::new();
        for &index in &tensor_makers {
            let node = &self.nodes[index];
            let key = (node.path.clone(), node.kind().to_string());
            let alone = in_module[&node.path] == 1
                && !node.path.is_empty()
                && !holders.contains(&node.path);
            let number = count.entry(key.clone()).or_default();
            *number += 1;
            let mut name = if alone {
                node.path.clone()
            } else if of_kind[&key] == 1 {
                join(&node.path, node.kind())
            } else {
                join(&node.path, &format!("{}_{number}", node.kind()))
            };
            while !taken.insert(name.clone()) {
                name.push('_');
            }
            self.nodes[index].name = name;
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}

fn last(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(_, last)| last)
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.to_string()
    } else {
        format!("{parent}.{name}")
    }
}

/// `a.b.c` -> `a.b.c`, `a.b`, `a`.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| Some(parent(path))).take_while(|p| !p.is_empty())
}

/// Whether a path is that of the module, or of something in it.
pub(super) fn is_inside(path: &str, module: &str) -> bool {
    path.strip_prefix(module)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

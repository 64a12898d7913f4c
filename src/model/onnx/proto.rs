//! The messages of an ONNX file, as far as they are read.

use anyhow::{Result, ensure};

use super::wire::{DAMAGED, Field, Fields};

/// The most nodes that are read, before any are simplified; the largest network seen has 3,000.
pub const MOST_NODES: usize = 20_000;
/// The most dimensions of a tensor.
const MOST_DIMENSIONS: usize = 16;

/// The version of a set of operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorSet {
    pub domain: String,
    pub version: i64,
}

#[derive(Debug, Default)]
pub struct Model<'a> {
    pub graph: Option<Graph<'a>>,
    pub operator_sets: Vec<OperatorSet>,
    pub functions: Vec<Function<'a>>,
    pub metadata: Vec<(String, String)>,
}

#[derive(Debug, Default)]
pub struct Graph<'a> {
    pub nodes: Vec<Node<'a>>,
    pub weights: Vec<Tensor<'a>>,
    pub has_sparse_weights: bool,
    pub inputs: Vec<ValueInfo>,
    pub outputs: Vec<ValueInfo>,
}

#[derive(Debug, Default)]
pub struct Function<'a> {
    pub name: String,
    pub domain: String,
    pub overload: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    pub nodes: Vec<Node<'a>>,
    /// Attributes with their defaults.
    pub defaults: Vec<Attribute<'a>>,
    pub operator_sets: Vec<OperatorSet>,
}

#[derive(Debug, Default)]
pub struct Node<'a> {
    pub name: String,
    pub operator: String,
    pub domain: String,
    pub overload: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    pub attributes: Vec<Attribute<'a>>,
    pub metadata: Vec<(String, String)>,
}

#[derive(Debug, Clone, Default)]
pub struct Attribute<'a> {
    pub name: String,
    pub value: Value<'a>,
    /// The attribute of the function around it that has the value.
    pub of_function: String,
}

#[derive(Debug, Clone, Default)]
pub enum Value<'a> {
    #[default]
    None,
    Float(f32),
    Integer(i64),
    Text(String),
    Tensor(Tensor<'a>),
    Floats(Vec<f32>),
    Integers(Vec<i64>),
    /// A graph, or another kind that no operator here has.
    Other,
}

#[derive(Debug, Clone, Default)]
pub struct Tensor<'a> {
    pub name: String,
    pub sizes: Vec<i64>,
    pub kind: i64,
    pub raw: Option<&'a [u8]>,
    pub floats: Vec<f32>,
    pub integers: Vec<i64>,
    pub doubles: Vec<f64>,
    /// Where its bytes are, if they are in another file.
    pub external: Option<Vec<(String, String)>>,
}

/// A dimension of an input: a number, or free.
pub type Dimension = Option<i64>;

#[derive(Debug, Clone, Default)]
pub struct ValueInfo {
    pub name: String,
    /// The type of the values of a tensor; 0 if it is not stated.
    pub kind: i64,
    pub sizes: Option<Vec<Dimension>>,
    /// Whether it is no tensor, but a sequence or the like.
    pub is_other: bool,
}

impl<'a> Model<'a> {
    /// Reads a file.
    ///
    /// # Errors
    /// Returns one line if it is damaged, or has more nodes than prism reads.
    pub fn read(bytes: &'a [u8]) -> Result<Model<'a>> {
        let mut model = Model::default();
        let mut reader = Reader { nodes: 0 };
        for field in Fields::of(bytes) {
            match field? {
                (7, field) => model.graph = Some(reader.graph(field.bytes()?)?),
                (8, field) => model.operator_sets.push(operator_set(field.bytes()?)?),
                (14, field) => model.metadata.push(entry(field.bytes()?)?),
                (25, field) => model.functions.push(reader.function(field.bytes()?)?),
                _ => {}
            }
        }
        Ok(model)
    }
}

/// Counts what it reads.
struct Reader {
    nodes: usize,
}

impl Reader {
    fn graph<'a>(&mut self, bytes: &'a [u8]) -> Result<Graph<'a>> {
        let mut graph = Graph::default();
        for field in Fields::of(bytes) {
            match field? {
                (1, field) => graph.nodes.push(self.node(field.bytes()?)?),
                (5, field) => graph.weights.push(tensor(field.bytes()?)?),
                (11, field) => graph.inputs.push(value_info(field.bytes()?)?),
                (12, field) => graph.outputs.push(value_info(field.bytes()?)?),
                (15, _) => graph.has_sparse_weights = true,
                _ => {}
            }
        }
        Ok(graph)
    }

    fn function<'a>(&mut self, bytes: &'a [u8]) -> Result<Function<'a>> {
        let mut function = Function::default();
        for field in Fields::of(bytes) {
            match field? {
                (1, field) => function.name = field.text()?,
                (4, field) => function.inputs.push(field.text()?),
                (5, field) => function.outputs.push(field.text()?),
                (7, field) => function.nodes.push(self.node(field.bytes()?)?),
                (9, field) => function.operator_sets.push(operator_set(field.bytes()?)?),
                (10, field) => function.domain = field.text()?,
                (11, field) => function.defaults.push(attribute(field.bytes()?)?),
                (13, field) => function.overload = field.text()?,
                _ => {}
            }
        }
        Ok(function)
    }

    fn node<'a>(&mut self, bytes: &'a [u8]) -> Result<Node<'a>> {
        self.nodes += 1;
        ensure!(
            self.nodes <= MOST_NODES,
            "it has more than {MOST_NODES} nodes; prism reads networks of up to {MOST_NODES}"
        );
        let mut node = Node::default();
        for field in Fields::of(bytes) {
            match field? {
                (1, field) => node.inputs.push(field.text()?),
                (2, field) => node.outputs.push(field.text()?),
                (3, field) => node.name = field.text()?,
                (4, field) => node.operator = field.text()?,
                (5, field) => node.attributes.push(attribute(field.bytes()?)?),
                (7, field) => node.domain = field.text()?,
                (8, field) => node.overload = field.text()?,
                (9, field) => node.metadata.push(entry(field.bytes()?)?),
                _ => {}
            }
        }
        Ok(node)
    }
}

fn attribute(bytes: &[u8]) -> Result<Attribute<'_>> {
    let mut attribute = Attribute::default();
    let (mut floats, mut integers) = (Vec::new(), Vec::new());
    let (mut kind, mut single) = (0, Value::None);
    for field in Fields::of(bytes) {
        match field? {
            (1, field) => attribute.name = field.text()?,
            (2, Field::Fixed32(bits)) => single = Value::Float(f32::from_bits(bits)),
            (3, field) => single = Value::Integer(field.integer()?),
            (4, field) => single = Value::Text(field.text()?),
            (5, field) => single = Value::Tensor(tensor(field.bytes()?)?),
            (7, field) => field.add_floats(&mut floats)?,
            (8, field) => field.add_integers(&mut integers)?,
            (20, field) => kind = field.integer()?,
            (21, field) => attribute.of_function = field.text()?,
            (2 | 6 | 9 | 10 | 11 | 14 | 15 | 22 | 23, _) => single = Value::Other,
            _ => {}
        }
    }
    attribute.value = match kind {
        // What has its default is not written.
        1 if matches!(single, Value::None) => Value::Float(0.0),
        2 if matches!(single, Value::None) => Value::Integer(0),
        3 if matches!(single, Value::None) => Value::Text(String::new()),
        6 => Value::Floats(floats),
        7 => Value::Integers(integers),
        8 => Value::Other,
        _ if !integers.is_empty() => Value::Integers(integers),
        _ if !floats.is_empty() => Value::Floats(floats),
        _ => single,
    };
    Ok(attribute)
}

fn tensor(bytes: &[u8]) -> Result<Tensor<'_>> {
    let mut tensor = Tensor::default();
    let (mut places, mut is_external) = (Vec::new(), false);
    for field in Fields::of(bytes) {
        match field? {
            (1, field) => field.add_integers(&mut tensor.sizes)?,
            (2, field) => tensor.kind = field.integer()?,
            (4, field) => field.add_floats(&mut tensor.floats)?,
            (5 | 7 | 11, field) => field.add_integers(&mut tensor.integers)?,
            (8, field) => tensor.name = field.text()?,
            (9, field) => tensor.raw = Some(field.bytes()?),
            (10, field) => field.add_doubles(&mut tensor.doubles)?,
            (13, field) => places.push(entry(field.bytes()?)?),
            (14, field) => is_external = field.integer()? == 1,
            _ => {}
        }
        ensure!(
            tensor.sizes.len() <= MOST_DIMENSIONS,
            "its weights have more than {MOST_DIMENSIONS} dimensions"
        );
    }
    if is_external {
        tensor.external = Some(places);
    }
    Ok(tensor)
}

fn value_info(bytes: &[u8]) -> Result<ValueInfo> {
    let mut info = ValueInfo::default();
    for field in Fields::of(bytes) {
        match field? {
            (1, field) => info.name = field.text()?,
            (2, field) => {
                for field in Fields::of(field.bytes()?) {
                    match field? {
                        (1, field) => (info.kind, info.sizes) = tensor_type(field.bytes()?)?,
                        (4 | 5 | 8 | 9, _) => info.is_other = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(info)
}

fn tensor_type(bytes: &[u8]) -> Result<(i64, Option<Vec<Dimension>>)> {
    let (mut kind, mut sizes) = (0, None);
    for field in Fields::of(bytes) {
        match field? {
            (1, field) => kind = field.integer()?,
            (2, field) => {
                let mut found = Vec::new();
                for field in Fields::of(field.bytes()?) {
                    let (1, dimension) = field? else { continue };
                    found.push(size(dimension.bytes()?)?);
                    ensure!(found.len() <= MOST_DIMENSIONS, DAMAGED);
                }
                sizes = Some(found);
            }
            _ => {}
        }
    }
    Ok((kind, sizes))
}

/// A dimension; zero and negative numbers are free ones, as some producers write them.
fn size(bytes: &[u8]) -> Result<Dimension> {
    let mut size = None;
    for field in Fields::of(bytes) {
        if let (1, field) = field? {
            size = Some(field.integer()?).filter(|&size| size > 0);
        }
    }
    Ok(size)
}

fn operator_set(bytes: &[u8]) -> Result<OperatorSet> {
    let (mut domain, mut version) = (String::new(), 0);
    for field in Fields::of(bytes) {
        match field? {
            (1, field) => domain = field.text()?,
            (2, field) => version = field.integer()?,
            _ => {}
        }
    }
    Ok(OperatorSet { domain, version })
}

pub fn entry(bytes: &[u8]) -> Result<(String, String)> {
    let (mut key, mut value) = (String::new(), String::new());
    for field in Fields::of(bytes) {
        match field? {
            (1, field) => key = field.text()?,
            (2, field) => value = field.text()?,
            _ => {}
        }
    }
    Ok((key, value))
}

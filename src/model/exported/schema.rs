//! The description of an exported program, as torch/_export/serde/schema.py of PyTorch lays it
//! down. What is not read is not named here.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::Value;

/// An exported program.
#[derive(Debug, Deserialize)]
pub struct Program {
    pub graph_module: Module,
    pub schema_version: Version,
    pub torch_version: Option<String>,
}

/// The version of the schema.
#[derive(Debug, Deserialize)]
pub struct Version {
    pub major: u64,
}

/// A graph, with what its inputs and outputs are.
#[derive(Debug, Deserialize)]
pub struct Module {
    pub graph: Graph,
    pub signature: Signature,
    /// The calls of modules; that of the whole network has no name.
    #[serde(default)]
    pub module_call_graph: Vec<ModuleCall>,
    /// The fields of named tuples, by the names of their types.
    #[serde(default)]
    pub treespec_namedtuple_fields: HashMap<String, NamedTuple>,
}

/// A call of a module.
#[derive(Debug, Deserialize)]
pub struct ModuleCall {
    pub fqn: String,
    pub signature: Option<CallSignature>,
}

/// What a module returns, as the text of a tree.
#[derive(Debug, Deserialize)]
pub struct CallSignature {
    pub out_spec: String,
}

/// A named tuple.
#[derive(Debug, Deserialize)]
pub struct NamedTuple {
    pub field_names: Vec<String>,
}

/// Operators in execution order. What goes in and comes out are unions, as for an operator.
#[derive(Debug, Deserialize)]
pub struct Graph {
    #[serde(default)]
    pub inputs: Vec<Value>,
    #[serde(default)]
    pub outputs: Vec<Value>,
    pub nodes: Vec<Node>,
    /// The sizes of tensors, by their names.
    #[serde(default)]
    pub tensor_values: HashMap<String, Layout>,
}

/// An operator. Arguments and results are unions, `{"as_tensor": {"name": "x"}}`.
#[derive(Debug, Deserialize)]
pub struct Node {
    pub target: String,
    pub inputs: Vec<Argument>,
    pub outputs: Vec<Value>,
    #[serde(default)]
    pub metadata: HashMap<String, String>,
}

/// An argument, by the name that the operator gives it.
#[derive(Debug, Deserialize)]
pub struct Argument {
    #[serde(default)]
    pub name: String,
    pub arg: Value,
    /// 1: by position, 2: by its name.
    pub kind: Option<i64>,
}

impl Argument {
    /// Whether it is given by its name.
    pub fn is_by_keyword(&self) -> bool {
        self.kind == Some(2)
    }
}

/// Unions of what goes in and what comes out, in the order of the graph.
#[derive(Debug, Deserialize)]
pub struct Signature {
    pub input_specs: Vec<Value>,
    pub output_specs: Vec<Value>,
}

/// Where tensors are, by name.
#[derive(Debug, Default, Deserialize)]
pub struct Tensors {
    pub config: HashMap<String, Stored>,
}

/// A tensor in an entry of the archive.
#[derive(Debug, Deserialize)]
pub struct Stored {
    pub path_name: String,
    #[serde(default)]
    pub use_pickle: bool,
    pub tensor_meta: Option<Layout>,
}

/// How a tensor lies in its bytes.
#[derive(Debug, Deserialize)]
pub struct Layout {
    pub dtype: i64,
    pub sizes: Vec<Value>,
    pub strides: Vec<Value>,
    pub storage_offset: Value,
}

/// The names that operators and outputs read.
pub fn names_within<'p>(graph: &'p Graph, signature: &'p Signature) -> HashSet<&'p str> {
    let mut names = HashSet::new();
    let arguments = graph.nodes.iter().flat_map(|node| &node.inputs);
    for value in arguments
        .map(|input| &input.arg)
        .chain(&signature.output_specs)
    {
        add_names(value, &mut names);
    }
    names
}

fn add_names<'p>(value: &'p Value, names: &mut HashSet<&'p str>) {
    match value {
        Value::String(text) => {
            names.insert(text);
        }
        Value::Array(items) => items.iter().for_each(|item| add_names(item, names)),
        Value::Object(fields) => fields.values().for_each(|field| add_names(field, names)),
        _ => {}
    }
}

/// The kind and the value of a union.
pub fn union(value: &Value) -> Option<(&str, &Value)> {
    let (kind, inner) = value.as_object()?.iter().next()?;
    Some((kind, inner))
}

/// The name of a value, in `{"name": "x"}`.
pub fn name(value: &Value) -> Option<&str> {
    value.get("name")?.as_str()
}

/// An integer that is known, `{"as_int": 3}`.
pub fn integer(value: &Value) -> Option<i64> {
    value.get("as_int")?.as_i64()
}

impl Node {
    /// The value of an argument.
    pub fn argument(&self, name: &str) -> Option<&Value> {
        let found = self.inputs.iter().find(|input| input.name == name);
        found.map(|input| &input.arg)
    }

    /// The name of the tensor that is an argument.
    pub fn tensor(&self, argument: &str) -> Option<&str> {
        name(self.argument(argument)?.get("as_tensor")?)
    }

    /// The numbers of an argument that is a list of known integers; none if it is not.
    pub fn integers(&self, argument: &str) -> Vec<i64> {
        let list = self.argument(argument).and_then(|list| list.get("as_ints"));
        let list = list
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        list.iter().filter_map(Value::as_i64).collect()
    }

    /// The path of the module whose code calls the operator. `@1` stands behind it in the second
    /// call of the module.
    pub fn path(&self) -> &str {
        let stack = self.metadata.get("nn_module_stack");
        let last = stack.and_then(|stack| stack.rsplit(';').next());
        let path = last.and_then(|entry| entry.split(',').nth(1)).unwrap_or("");
        match path.split('@').next() {
            Some(path) if !path.starts_with("_empty_nn_module_stack") => path,
            _ => "",
        }
    }
}

/// libtorch's number of a number format.
pub fn number_format(written: i64) -> Option<i64> {
    match written {
        1..=12 => Some(written - 1),
        13 => Some(15), // bfloat16
        _ => None,
    }
}

/// libtorch's number of an order in memory.
pub fn memory_format(written: i64) -> Option<i64> {
    match written {
        1 => Some(0), // contiguous
        4 => Some(1), // preserve
        2 | 3 => Some(written),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_that_of_the_innermost_module() {
        let path = |stack: &str| {
            let metadata = [("nn_module_stack".to_string(), stack.to_string())].into();
            let node = Node {
                target: String::new(),
                inputs: Vec::new(),
                outputs: Vec::new(),
                metadata,
            };
            node.path().to_string()
        };
        assert_eq!(
            path("L__self__,,a.B;L__self__f,f,Seq;L__self__f.0,f.0,Conv"),
            "f.0"
        );
        assert_eq!(path("L__self__,,a.B;L__self__act@1,act@1,ReLU"), "act");
        assert_eq!(path("L__self__,,a.B"), "");
        assert_eq!(
            path(
                "_empty_nn_module_stack_from_metadata_hook,_empty_nn_module_stack_from_metadata_hook,x"
            ),
            ""
        );
        assert_eq!(path(""), "");
    }
}

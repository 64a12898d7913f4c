//! The description of an exported program, as torch/_export/serde/schema.py of PyTorch lays it
//! down. What is not read is not named here.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

/// An exported program.
#[derive(Debug, Deserialize)]
pub struct Program {
    pub graph_module: Module,
}

/// What tells how to read the rest.
#[derive(Debug, Deserialize)]
pub struct Head {
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
}

/// Operators in execution order.
#[derive(Debug, Deserialize)]
pub struct Graph {
    pub nodes: Vec<Node>,
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
    pub name: String,
    pub arg: Value,
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
        28 => Some(27), // uint16
        34 => Some(28), // uint32
        35 => Some(29), // uint64
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

//! The layers of a network, and how they are found by name.

use anyhow::Result;

use super::graph::{Graph, Node, ValueId};
use super::naming::is_inside;
use crate::error::{Hint, usage, usage_hinted};
use crate::names::most_similar;

/// One layer that can be hooked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Unique name, as [`Hooks::layer`](super::Hooks::layer) takes it.
    pub name: String,
    /// Its operator: `conv2d`, `relu`, ...
    pub operator: String,
    /// Channels, height and width of its output.
    pub shape: (i64, i64, i64),
    /// How PRISM uses it.
    pub role: Role,
}

/// How PRISM uses a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The input of the PCA.
    Excitation,
    /// An earlier activation that guides the upsampling of the features.
    Guide,
    /// Not read.
    None,
}

impl Role {
    /// The word for it; empty for [`Role::None`].
    pub fn word(self) -> &'static str {
        match self {
            Role::Excitation => "excitation",
            Role::Guide => "guide",
            Role::None => "",
        }
    }
}

/// The output of the operator of this name, else the last activation of the module of this name.
///
/// # Errors
/// Returns a usage error with the nearest names if there is neither.
pub fn find_layer(graph: &Graph, name: &str) -> Result<ValueId> {
    let layers = || {
        let output = |node| Some((node, graph.layer_output(node)?));
        graph.nodes.iter().filter_map(output)
    };
    let is_inside = |node: &Node| !name.is_empty() && is_inside(&node.path, name);
    let found = layers().find(|(node, _)| node.name == name);
    if let Some((_, value)) = found.or_else(|| layers().rfind(|(node, _)| is_inside(node))) {
        return Ok(value);
    }
    // Operators that make no tensor have no name.
    let mut named = graph.nodes.iter().filter(|node| !node.name.is_empty());
    if let Some(node) = named.find(|node| node.name == name) {
        let sizes = graph.sizes(node.outputs[0]).unwrap_or_default();
        let message = format!(
            "the output of layer '{name}' has the shape {sizes:?}; it is not an activation [N,C,h,w] with more than one pixel"
        );
        return Err(usage_hinted(message, Hint::ListLayers));
    }
    let names = layers().map(|(node, _)| node.name.as_str());
    let nearest = most_similar(name, names, str::to_string, 0.0, 3);
    if nearest.is_empty() {
        return Err(usage(format!("there is no layer '{name}'")));
    }
    let nearest = nearest.join(", ");
    let message = format!("there is no layer '{name}'; the nearest are {nearest}");
    Err(usage_hinted(message, Hint::ListLayers))
}

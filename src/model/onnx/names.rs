//! The paths of modules, as far as a file names them. Producers name nodes in their own ways.

use super::proto::Node;

/// Where PyTorch's exporter by torch.export names the modules around a node.
const SCOPES: &str = "pkg.torch.onnx.name_scopes";

/// The path of the module whose code has the node; empty if it is not known.
///
/// - PyTorch (torch.export): the scopes `['', 'layer1', 'layer1.0.conv1', 'conv2d']`
///   -> `layer1.0.conv1`
/// - PyTorch (TorchScript): `/layer1/layer1.0/conv1/Conv` -> `layer1.0.conv1`
/// - tf2onnx: `functional_1/block1_conv2_1/BiasAdd` -> `functional_1.block1_conv2_1`
/// - others: the name itself, unless it is the operator's with a number, as `Conv_12` is
pub fn path(node: &Node) -> String {
    let scopes = node.metadata.iter().find(|(key, _)| key == SCOPES);
    if let Some((_, scopes)) = scopes {
        let mut scopes: Vec<&str> = scopes.split('\'').skip(1).step_by(2).collect();
        scopes.pop(); // the node itself
        return scopes.pop().unwrap_or_default().to_string();
    }
    let name = node.name.trim_matches('/');
    let Some((modules, _)) = name.rsplit_once('/') else {
        // A name that says no more than the operator and its number.
        let counted = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'_')
        };
        let bare = name.strip_prefix("node_").unwrap_or(name);
        let is_operator = bare
            .get(..node.operator.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(&node.operator))
            && counted(&bare[node.operator.len()..]);
        return match is_operator || counted(name) || node.name.starts_with('/') {
            true => String::new(),
            false => name.to_string(),
        };
    };
    let mut path: Vec<&str> = Vec::new();
    for part in modules.split('/').filter(|part| !part.is_empty()) {
        // A part repeats the one that it is a numbered member of.
        let repeats = path.last().is_some_and(|last| {
            part.strip_prefix(last)
                .is_some_and(|rest| rest.starts_with('.'))
        });
        if repeats {
            path.pop();
        }
        path.push(part);
    }
    path.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_as_producers_name_them() {
        for (name, operator, expected) in [
            ("/layer1/layer1.0/conv1/Conv", "Conv", "layer1.0.conv1"),
            (
                "/layer1/layer1.0/downsample/downsample.0/Conv",
                "Conv",
                "layer1.0.downsample.0",
            ),
            (
                "/features/features.1/block/block.0/block.0.0/Conv",
                "Conv",
                "features.1.block.0.0",
            ),
            ("/Flatten", "Flatten", ""),
            (
                "functional_1/block1_conv2_1/BiasAdd",
                "Add",
                "functional_1.block1_conv2_1",
            ),
            ("Conv_12", "Conv", ""),
            ("conv2d_1", "Conv", "conv2d_1"),
            ("17", "Relu", ""),
            ("node_Conv_3", "Conv", ""),
            ("", "Relu", ""),
        ] {
            let node = Node {
                name: name.to_string(),
                operator: operator.to_string(),
                ..Node::default()
            };
            assert_eq!(path(&node), expected, "{name}");
        }
        let scopes = "['', 'layer1', 'layer1.0', 'layer1.0.conv1', 'conv2d']";
        let node = Node {
            name: "node_Conv_9".to_string(),
            operator: "Conv".to_string(),
            metadata: vec![(SCOPES.to_string(), scopes.to_string())],
            ..Node::default()
        };
        assert_eq!(path(&node), "layer1.0.conv1");
    }
}

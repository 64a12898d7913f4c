//! The names of what a network returns.

use serde_json::Value;

use super::schema::Module;

/// The name of each tensor or constant that the network returns: a key of a dict or a field of a
/// named tuple, `aux.0` for a part of `aux`; empty for those without a name.
///
/// They come from the tree of PyTorch's `torch.utils._pytree`, which the file has as text. `None`
/// if there is no such tree.
pub fn names(module: &Module) -> Option<Vec<String>> {
    let whole = module
        .module_call_graph
        .iter()
        .find(|call| call.fqn.is_empty())?;
    let text = &whole.signature.as_ref()?.out_spec;
    let tree: Value = serde_json::from_str(text).ok()?;
    let mut found = Vec::new();
    append(&tree[1], "", module, &mut found);
    Some(found)
}

fn append(tree: &Value, name: &str, module: &Module, found: &mut Vec<String>) {
    if tree["type"].is_null() {
        found.push(name.to_string());
        return;
    }
    let children = tree["children_spec"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let fields = fields(tree, module).filter(|fields| fields.len() == children.len());
    for (position, child) in children.iter().enumerate() {
        let part = match &fields {
            Some(fields) => fields[position].clone(),
            None if name.is_empty() => String::new(),
            None => position.to_string(),
        };
        let name = match (name, part.as_str()) {
            ("", part) => part.to_string(),
            (name, "") => name.to_string(),
            (name, part) => format!("{name}.{part}"),
        };
        append(child, &name, module, found);
    }
}

/// The keys of a dict, or the fields of a named tuple.
fn fields(tree: &Value, module: &Module) -> Option<Vec<String>> {
    let context = tree["context"].as_str()?;
    if let Some(tuple) = module.treespec_namedtuple_fields.get(context) {
        return Some(tuple.field_names.clone());
    }
    serde_json::from_str(context).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names for the text of a tree, with a named tuple `net.Out` of `logits` and `boxes`.
    fn named(tree: &str) -> Option<Vec<String>> {
        let module = serde_json::json!({
            "graph": {"nodes": []},
            "signature": {"input_specs": [], "output_specs": []},
            "module_call_graph": [{"fqn": "", "signature": {"out_spec": tree}}],
            "treespec_namedtuple_fields": {"net.Out": {"field_names": ["logits", "boxes"]}},
        });
        names(&serde_json::from_value(module).unwrap())
    }

    #[test]
    fn names_are_those_of_dicts_and_fields() {
        let leaf = r#"{"type":null,"context":null,"children_spec":[]}"#;
        let node = |kind: &str, context: &str, children: &[&str]| {
            let children = children.join(",");
            let context = serde_json::to_string(context).unwrap();
            format!(r#"{{"type":"{kind}","context":{context},"children_spec":[{children}]}}"#)
        };
        let whole = |tree: &str| named(&format!("[1,{tree}]")).unwrap();
        assert_eq!(whole(leaf), [""]);
        assert_eq!(
            whole(&node("builtins.tuple", "null", &[leaf, leaf])),
            ["", ""]
        );
        let dict = node("builtins.dict", r#"["out","aux"]"#, &[leaf, leaf]);
        assert_eq!(whole(&dict), ["out", "aux"]);
        let list = node("builtins.list", "null", &[leaf, leaf]);
        let nested = node("builtins.dict", r#"["out","aux"]"#, &[leaf, &list]);
        assert_eq!(whole(&nested), ["out", "aux.0", "aux.1"]);
        let tuple = node("collections.namedtuple", "net.Out", &[leaf, leaf]);
        assert_eq!(whole(&tuple), ["logits", "boxes"]);
        assert_eq!(named("{"), None);
    }
}

//! The order in which nodes run.

use std::collections::HashMap;

use super::proto::Node;

/// Each node after those whose results it reads, else as in the file, which should be so already.
/// Of nodes that read each other, one comes first.
pub fn sorted<'a>(nodes: &'a [Node<'a>]) -> Vec<&'a Node<'a>> {
    let mut makers = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        for output in node.outputs.iter().filter(|name| !name.is_empty()) {
            makers.entry(output.as_str()).or_insert(index);
        }
    }
    let mut is_entered = vec![false; nodes.len()];
    let mut order = Vec::with_capacity(nodes.len());
    for start in 0..nodes.len() {
        // The nodes of a path, each with the number of its inputs that were looked at.
        let mut path = Vec::new();
        if !is_entered[start] {
            is_entered[start] = true;
            path.push((start, 0));
        }
        while let Some((index, seen)) = path.last_mut() {
            let node = &nodes[*index];
            let Some(input) = node.inputs.get(*seen) else {
                order.push(node);
                path.pop();
                continue;
            };
            *seen += 1;
            if let Some(&maker) = makers.get(input.as_str())
                && !is_entered[maker]
            {
                is_entered[maker] = true;
                path.push((maker, 0));
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(nodes: &[(&[&str], &str)]) -> String {
        let nodes = nodes.iter().map(|(inputs, output)| Node {
            inputs: inputs.iter().map(|&name| name.to_string()).collect(),
            outputs: vec![(*output).to_string()],
            ..Node::default()
        });
        let nodes: Vec<Node> = nodes.collect();
        let names = sorted(&nodes).into_iter().map(|node| &*node.outputs[0]);
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn nodes_run_after_those_that_they_read() {
        let in_order: [(&[&str], &str); 4] = [
            (&["x"], "a"),
            (&["x"], "b"),
            (&["b", "a"], "c"),
            (&["c", ""], "d"),
        ];
        assert_eq!(order(&in_order), "a b c d");
        let mut turned = in_order;
        turned.reverse();
        assert_eq!(order(&turned), "b a c d");
        // A circle, and a name that is made twice.
        assert_eq!(order(&[(&["b"], "a"), (&["a"], "b")]), "b a");
        assert_eq!(
            order(&[(&["x"], "a"), (&["a"], "a"), (&["a"], "b")]),
            "a a b"
        );
    }
}

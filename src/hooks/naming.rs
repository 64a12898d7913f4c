//! Names of layers: the module paths of networks that were traced in memory, and one unique name
//! for each operator.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::graph::{Graph, Node};
use super::operators::{Kind, Property};

/// The path of a module for every operator of a network traced in memory. The names of the
/// parameters are the only record of its modules.
///
/// An operator with parameters belongs to their module:
/// - `features.0.weight` -> `features.0`
///
/// An operator without parameters that reads the output of one other:
/// - has the next number in an `nn.Sequential`: a ReLU after `features.0` -> `features.1`, and a
///   max-pool after it -> `features.2`
/// - belongs to the module around a layer: a ReLU after `block.conv` -> `block`
/// - is the second half of a non-linearity: ReLU6 as `relu` and `clamp`, both `features.1`
/// - belongs to the `nn.Sequential` if the next number is taken: a multiplication after the ReLU
///   `features.1`, if `features.2` is a convolution -> `features`
/// - stays in the module of an operator that is not a layer: a ReLU after the sum of `block`
///   -> `block`
/// - belongs to no module if it is adaptive pooling, between features and classifier
///
/// An operator without parameters that reads several others belongs to the innermost module,
/// except an `nn.Sequential`, that contains all of them, or all but one that comes before it:
/// - the concatenation of `fire.left` and `fire.right` -> `fire`
/// - the sum of `block.bn` and a shortcut from `stem` -> `block`
pub fn module_paths(graph: &Graph, parameter_names: &HashMap<usize, String>) -> Vec<String> {
    let names = parameter_names.values();
    let modules = Modules::new(names.flat_map(|name| prefixes(parent(name))).collect());
    let mut paths: Vec<String> = Vec::with_capacity(graph.nodes.len());
    for (index, node) in graph.nodes.iter().enumerate() {
        let own = |node: &Node| node.parameters.iter().find_map(|p| parameter_names.get(p));
        let makers = node.inputs.iter().filter_map(|&input| graph.maker(input));
        let makers: BTreeSet<usize> = makers.filter(|&maker| maker < index).collect();
        let makers = Vec::from_iter(makers);
        let path = match (own(node), makers.as_slice()) {
            (Some(name), _) => parent(name).to_string(),
            (None, []) => String::new(),
            (None, &[maker]) => {
                let before = &graph.nodes[maker];
                modules.after(&paths[maker], before, own(before).is_some(), node)
            }
            (None, makers) => modules.around(&paths, makers).to_string(),
        };
        paths.push(path);
    }
    paths
}

/// The paths of modules with parameters, and of the modules around them.
struct Modules<'a> {
    paths: HashSet<&'a str>,
    /// The last part of the paths of a module's members.
    members: HashMap<&'a str, Vec<&'a str>>,
}

impl<'a> Modules<'a> {
    fn new(paths: HashSet<&'a str>) -> Self {
        let mut members: HashMap<&str, Vec<&str>> = HashMap::new();
        for &path in &paths {
            members.entry(parent(path)).or_default().push(last(path));
        }
        Modules { paths, members }
    }

    /// Whether all members of a module are numbered. Such a module has no operators of its own.
    fn is_sequential(&self, module: &str) -> bool {
        let numbered = |name: &&str| name.parse::<usize>().is_ok();
        let members = self.members.get(module);
        members.is_some_and(|names| names.iter().all(numbered))
    }

    /// `features.1` for `features.0`, if `features` is sequential and `features.1` has no
    /// parameters.
    fn next_in_sequence(&self, path: &str) -> Option<String> {
        let number: usize = last(path).parse().ok()?;
        let next = join(parent(path), &(number + 1).to_string());
        let is_free = self.is_sequential(parent(path)) && !self.paths.contains(next.as_str());
        is_free.then_some(next)
    }

    /// The path of `node`, which has no parameters, after the operator `before` in `path`.
    fn after(&self, path: &str, before: &Node, has_parameters: bool, node: &Node) -> String {
        let is_second_half = before.has(Property::NonLinear) && node.has(Property::NonLinear);
        let is_pool = matches!(node.kind(), Kind::MaxPool2d | Kind::AvgPool2d | Kind::Pool);
        let has_members = self.members.contains_key(path);
        let otherwise = match node.kind() {
            Kind::AdaptivePool => return String::new(),
            _ if is_second_half => return path.to_string(),
            _ if has_parameters => parent(path),
            _ if is_pool => path,
            _ if has_members => return path.to_string(),
            _ if self.paths.contains(path) => path,
            // A numbered member of a sequence, such as a ReLU.
            _ => parent(path),
        };
        let next = self.next_in_sequence(path);
        next.unwrap_or_else(|| otherwise.to_string())
    }

    /// The path of an operator, without parameters, that reads the outputs of `makers`.
    fn around<'p>(&self, paths: &'p [String], makers: &[usize]) -> &'p str {
        let latest = makers.last().map_or("", |&maker| paths[maker].as_str());
        let innermost = match self.members.contains_key(latest) {
            true => latest,
            false => parent(latest),
        };
        let joins = |module: &&str| {
            let outside = |&&maker: &&usize| !is_inside(&paths[maker], module);
            let begin = paths.iter().position(|path| is_inside(path, module));
            let mut outsiders = makers.iter().filter(outside);
            match (outsiders.next(), outsiders.next()) {
                (None, _) => true,
                // A shortcut around the module.
                (Some(maker), None) => begin.is_some_and(|begin| *maker < begin),
                _ => false,
            }
        };
        prefixes(innermost)
            .filter(|module| !self.is_sequential(module))
            .find(joins)
            .unwrap_or_default()
    }
}

/// A unique name for every operator that makes a tensor; empty for the others.
///
/// - The only operator of a module without members has the path of the module: `conv`.
/// - Another operator that is the only one of its type in a module also has its type: `block.add`.
/// - Several of one type in a module are numbered: `block.relu_1`, `block.relu_2`.
/// - An underscore is added if an earlier operator has the name: `add_` for the sum outside of
///   all modules, if there is a module `add`.
pub fn unique_names(graph: &Graph) -> Vec<String> {
    let around = graph.nodes.iter().map(|node| parent(&node.path));
    let holders: HashSet<&str> = around.flat_map(prefixes).collect();
    let makes_tensor = |node: &Node| {
        let mut outputs = node.outputs.iter();
        outputs.any(|&output| graph.sizes(output).is_some())
    };
    let mut in_module: HashMap<&str, usize> = HashMap::new();
    let mut of_type: HashMap<(&str, &str), usize> = HashMap::new();
    for node in graph.nodes.iter().filter(|node| makes_tensor(node)) {
        *in_module.entry(&node.path).or_default() += 1;
        *of_type.entry((&node.path, node.short_name())).or_default() += 1;
    }
    let mut numbers: HashMap<(&str, &str), usize> = HashMap::new();
    let mut taken: HashSet<String> = HashSet::new();
    let names = graph.nodes.iter().map(|node| {
        if !makes_tensor(node) {
            return String::new();
        }
        let key @ (path, operator) = (node.path.as_str(), node.short_name());
        let number = numbers.entry(key).or_default();
        *number += 1;
        let is_alone = in_module[path] == 1 && !path.is_empty() && !holders.contains(path);
        let mut name = if is_alone {
            path.to_string()
        } else if of_type[&key] == 1 {
            join(path, operator)
        } else {
            join(path, &format!("{operator}_{number}"))
        };
        while !taken.insert(name.clone()) {
            name.push('_');
        }
        name
    });
    names.collect()
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

/// Whether a path is the module's own or that of a member.
pub fn is_inside(path: &str, module: &str) -> bool {
    path.strip_prefix(module)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The graph of operators such as `conv2d@stem(0)`: the name, the module whose weights it reads
    /// (if any), and its inputs: 0 for the image, else the number of an operator, counted from 1.
    fn graph(operators: &str) -> Graph {
        let rows: Vec<(&str, &str, Vec<usize>)> = operators
            .split_whitespace()
            .map(|operator| {
                let (name, inputs) = operator.trim_end_matches(')').split_once('(').unwrap();
                let (name, module) = name.split_once('@').unwrap_or((name, ""));
                let inputs = inputs.split(',').map(|input| input.parse().unwrap());
                (name, module, inputs.collect())
            })
            .collect();
        let nodes: Vec<serde_json::Value> = rows
            .iter()
            .enumerate()
            .map(|(index, (operator, module, inputs))| {
                let parameters = Vec::from_iter((!module.is_empty()).then_some(index));
                serde_json::json!({
                    "operator": format!("aten::{operator}"), "path": "", "inputs": inputs,
                    "outputs": [index + 1], "within": [], "parameters": parameters,
                    "weight": null, "arguments": {}
                })
            })
            .collect();
        let description = serde_json::json!({
            "input": 0, "outputs": [rows.len()], "sizes": vec![[1, 1, 2, 2]; rows.len() + 1],
            "nodes": nodes,
        });
        let names = rows.iter().enumerate();
        let names = names.filter(|(_, row)| !row.1.is_empty());
        let names = names.map(|(index, row)| (index, format!("{}.weight", row.1)));
        Graph::parse(&description.to_string(), &names.collect()).unwrap()
    }

    #[test]
    fn operators_of_a_traced_network_get_the_paths_of_modules() {
        for (case, operators, expected) in [
            (
                "own parameters, next number",
                "conv2d@features.0(0) relu_(1) max_pool2d(2) conv2d@features.3(3)",
                "features.0 features.1 features.2 features.3",
            ),
            (
                "around a layer",
                "conv2d@block.conv(0) relu(1)",
                "block.conv block",
            ),
            (
                "second half",
                "conv2d@features.0(0) relu(1) clamp(2)",
                "features.0 features.1 features.1",
            ),
            (
                "next number taken",
                "conv2d@features.0(0) relu(1) mul(2) conv2d@features.2(3)",
                "features.0 features.1 features features.2",
            ),
            (
                "stays in the module",
                "conv2d@block.a(0) conv2d@block.b(0) add(1,2) relu(3)",
                "block.a block.b block block",
            ),
            (
                "adaptive pooling has no path",
                "conv2d@features.0(0) adaptive_avg_pool2d(1)",
                "features.0 ",
            ),
            (
                "concatenation",
                "conv2d@fire.left(0) conv2d@fire.right(0) cat(1,2)",
                "fire.left fire.right fire",
            ),
            (
                "sum with a shortcut",
                "conv2d@stem(0) conv2d@block.conv(1) batch_norm@block.bn(2) add(3,1)",
                "stem block.conv block.bn block",
            ),
        ] {
            let graph = graph(operators);
            let paths: Vec<&str> = graph.nodes.iter().map(|node| node.path.as_str()).collect();
            assert_eq!(paths.join(" "), expected, "{case}");
        }
    }

    #[test]
    fn names_are_unique() {
        let graph = graph(
            "conv2d@conv(0) conv2d@block.conv(1) relu(2) conv2d@block.other(3) add(3,4) relu(5) \
             conv2d@add(6) add(0,7)",
        );
        let names: Vec<&str> = graph.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(
            names.join(" "),
            "conv block.conv block.relu_1 block.other block.add block.relu_2 add add_"
        );
    }
}

//! Operators of core ATen, which `run_decompositions()` writes, as the operators that rules and
//! libtorch's passes know.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::schema::{Layout, Node, Program, integer};
use crate::hooks::Constant;

/// libtorch's number of the format of flags.
const BOOL: i64 = 11;

/// An operator and what it becomes. Of its results the first is taken.
struct Rule {
    written: &'static str,
    operator: &'static str,
    overload: &'static str,
    /// Arguments that the other operator does not have.
    dropped: &'static [&'static str],
    /// Arguments with another name.
    renamed: &'static [(&'static str, &'static str)],
    /// Switches of the other operator, which are off.
    off: &'static [&'static str],
}

const SAME: Rule = Rule {
    written: "",
    operator: "",
    overload: "",
    dropped: &[],
    renamed: &[],
    off: &[],
};

const RULES: [Rule; 14] = [
    Rule {
        written: "convolution",
        operator: "conv2d",
        dropped: &["transposed", "output_padding"],
        ..SAME
    },
    Rule {
        written: "_native_batch_norm_legit_no_training",
        operator: "batch_norm",
        off: &["training", "cudnn_enabled"],
        ..SAME
    },
    Rule {
        written: "_batch_norm_no_update",
        operator: "batch_norm",
        off: &["training", "cudnn_enabled"],
        ..SAME
    },
    Rule {
        written: "native_layer_norm",
        operator: "layer_norm",
        ..SAME
    },
    Rule {
        written: "native_group_norm",
        operator: "group_norm",
        dropped: &["N", "C", "HxW"],
        renamed: &[("group", "num_groups")],
        ..SAME
    },
    Rule {
        written: "max_pool2d_with_indices",
        operator: "max_pool2d",
        ..SAME
    },
    Rule {
        written: "_adaptive_avg_pool2d",
        operator: "adaptive_avg_pool2d",
        ..SAME
    },
    Rule {
        written: "_softmax",
        operator: "softmax",
        overload: "int",
        dropped: &["half_to_float"],
        ..SAME
    },
    Rule {
        written: "_log_softmax",
        operator: "log_softmax",
        overload: "int",
        dropped: &["half_to_float"],
        ..SAME
    },
    Rule {
        written: "_scaled_dot_product_flash_attention_for_cpu",
        operator: "scaled_dot_product_attention",
        ..SAME
    },
    // Memory that is not set may hold anything.
    Rule {
        written: "empty",
        operator: "zeros",
        dropped: &["memory_format"],
        ..SAME
    },
    Rule {
        written: "empty_like",
        operator: "zeros_like",
        ..SAME
    },
    Rule {
        written: "new_empty",
        operator: "new_zeros",
        ..SAME
    },
    // Only if it shows the numbers of its input in the same order (see `keeps_order`).
    Rule {
        written: "as_strided",
        operator: "reshape",
        dropped: &["stride", "storage_offset"],
        renamed: &[("size", "shape")],
        ..SAME
    },
];

/// What an operator becomes.
pub struct Raised {
    pub operator: &'static str,
    pub overload: &'static str,
    /// The rule for the arguments that are written; none of them stays if there is none.
    rule: Option<&'static Rule>,
    /// Further arguments.
    pub added: Vec<(&'static str, Constant<'static>)>,
    /// Further arguments that are tensors, by their names in the file.
    pub tensors: Vec<(&'static str, String)>,
    /// The sizes of its result, if they are not those in the file.
    pub wide: Option<Vec<String>>,
}

/// What is remembered of the operators before, and what the file says of their results. Of an inner
/// graph, whose names are its own, it says nothing.
#[derive(Default)]
pub struct Tracked<'p> {
    layouts: Option<&'p HashMap<String, Layout>>,
    /// The matrices that are transposed ones, and of what.
    transposed: HashMap<String, String>,
    /// The vectors that are repeated ones, and of what.
    repeated: HashMap<String, String>,
    /// The matrices with the rows of a tensor of more axes, and of which.
    flattened: HashMap<String, String>,
    /// The tensors that have the images as further channels of one, and of what.
    joined: HashMap<String, String>,
    /// The results of operators that are given another shape than in the file, and that shape.
    reshaped: HashMap<String, Vec<String>>,
}

impl<'p> Tracked<'p> {
    /// Nothing yet, for the operators of `program`.
    pub fn of(program: &'p Program) -> Tracked<'p> {
        Tracked {
            layouts: Some(&program.graph_module.graph.tensor_values),
            ..Tracked::default()
        }
    }

    fn sizes(&self, name: &str) -> Option<Vec<String>> {
        let layout = self.layouts?.get(name)?;
        Some(layout.sizes.iter().map(number).collect())
    }

    /// The sizes of a tensor, -1 for one that is not known; `None` if there are several such.
    pub fn shape(&self, name: &str) -> Option<Vec<i64>> {
        let sizes = self.layouts?.get(name)?.sizes.iter();
        let sizes: Vec<i64> = sizes.map(|size| integer(size).unwrap_or(-1)).collect();
        (sizes.iter().filter(|&&size| size == -1).count() <= 1).then_some(sizes)
    }

    /// Remembers an operator that makes `names`.
    pub fn add(&mut self, operator: &str, node: &Node, names: &[&str]) {
        let (Some(source), [made]) = (node.tensor("self"), names) else {
            return;
        };
        let sizes = self.sizes(source).zip(self.sizes(made));
        if let Some((old, new)) = &sizes
            && (operator == "expand" || is_view(operator))
            && repeats(new, old)
            && let Some(matrix) = self.transposed.get(source).cloned()
        {
            self.transposed.insert((*made).to_string(), matrix);
            return;
        }
        let kinds = match (operator, sizes) {
            ("t", _) => &mut self.transposed,
            ("permute", _) if node.integers("dims") == [1, 0] => &mut self.transposed,
            ("repeat", _) => &mut self.repeated,
            (view, Some((old, new))) if is_view(view) && has_rows_of(&new, &old) => {
                &mut self.flattened
            }
            (view, Some((old, new))) if is_view(view) && has_images_of(&new, &old) => {
                &mut self.joined
            }
            _ => return,
        };
        kinds.insert((*made).to_string(), source.to_string());
    }

    /// The name of what `made` shows in another shape, which it was given before.
    pub fn restored<'n>(&self, operator: &str, node: &'n Node, made: &str) -> Option<&'n str> {
        let source = node.tensor("self").filter(|_| is_view(operator))?;
        (self.reshaped.get(source)? == &self.sizes(made)?).then_some(source)
    }

    /// Remembers that the operator that makes `made` was given the shape `wide`.
    pub fn reshape(&mut self, made: &str, wide: Vec<String>) {
        self.reshaped.insert(made.to_string(), wide);
    }
}

/// Whether a tensor has the rows of one of more axes.
fn has_rows_of(rows: &[String], tensor: &[String]) -> bool {
    (2..tensor.len()).contains(&rows.len()) && rows.last() == tensor.last()
}

/// Whether a tensor holds nothing but repeated matrices, which another one is or holds.
fn repeats(tensor: &[String], matrix: &[String]) -> bool {
    let last = |sizes: &[String]| sizes[sizes.len().saturating_sub(2)..].to_vec();
    tensor.len() > 2 && last(tensor) == last(matrix)
}

/// Whether a tensor `[1,N*C,h,w]` has the numbers of one of `[N,C,h,w]`.
fn has_images_of(joined: &[String], tensor: &[String]) -> bool {
    joined.len() == 4 && tensor.len() == 4 && joined[0] == "1" && joined[2..] == tensor[2..]
}

fn is_view(operator: &str) -> bool {
    matches!(operator, "view" | "_unsafe_view" | "reshape")
}

impl Raised {
    /// What `node`, a call of the operator `written` that makes `made`, becomes, if it becomes
    /// another one.
    /// `is_first_enough`: nothing reads its other results.
    ///
    /// # Errors
    /// Returns one line if the operator depends on what prism does not keep.
    pub fn of(
        written: &str,
        node: &Node,
        made: &str,
        tracked: &Tracked,
        is_first_enough: bool,
    ) -> Result<Option<Raised>> {
        let is_scaled = node.argument("alpha").or(node.argument("beta")).is_some();
        match written {
            "addmm" if !is_scaled => return Ok(linear(node, made, tracked, "mat1")),
            "mm" | "bmm" => return Ok(linear(node, made, tracked, "self")),
            "_native_batch_norm_legit" => return Ok(instance_norm(node, made, tracked)),
            "full" => return Ok(full_of_flags(node)),
            "convolution" if !is_plain_convolution(node) => return Ok(None),
            "as_strided" => ensure!(
                keeps_order(node, made, tracked),
                "its operator torch.ops.aten.as_strided depends on the order of its input in memory; export the network without as_strided"
            ),
            _ => {}
        }
        let rule = RULES.iter().find(|rule| rule.written == written);
        Ok(rule.filter(|_| is_first_enough).map(|rule| Raised {
            operator: rule.operator,
            overload: rule.overload,
            rule: Some(rule),
            added: rule
                .off
                .iter()
                .map(|&switch| (switch, Constant::Bool(false)))
                .collect(),
            tensors: Vec::new(),
            wide: None,
        }))
    }

    /// The name of an argument of the other operator; `None` if it does not have it.
    pub fn argument<'n>(&self, written: &'n str) -> Option<&'n str> {
        let rule = self.rule?;
        let renamed = rule.renamed.iter().find(|(old, _)| *old == written);
        match renamed {
            Some((_, new)) => Some(new),
            None => (!rule.dropped.contains(&written)).then_some(written),
        }
    }
}

fn is_plain_convolution(node: &Node) -> bool {
    let transposed = node
        .argument("transposed")
        .and_then(|flag| flag.get("as_bool"));
    transposed.and_then(Value::as_bool) == Some(false) && node.integers("stride").len() == 2
}

/// The product with a transposed matrix is a fully connected layer.
fn linear(node: &Node, made: &str, tracked: &Tracked, rows: &str) -> Option<Raised> {
    let weight = tracked.transposed.get(node.tensor("mat2")?)?;
    let named = |argument| node.tensor(argument).map(String::from);
    let rows_of = named(rows)?;
    let columns = tracked.shape(made).and_then(|shape| shape.last().copied());
    let columns = columns.filter(|&count| count > 0);
    let source = tracked
        .flattened
        .get(&rows_of)
        .filter(|_| columns.is_some());
    let wide = source
        .and_then(|source| tracked.sizes(source))
        .map(|mut sizes| {
            sizes.pop();
            sizes.extend(columns.map(|count| count.to_string()));
            sizes
        });
    let input = source.cloned().unwrap_or(rows_of);
    let mut tensors = vec![("input", input), ("weight", weight.clone())];
    if rows != "self" {
        let bias = named("self")?;
        let axes = tracked.sizes(&bias).map_or(1, |sizes| sizes.len());
        if axes != 1 {
            return None;
        }
        tensors.push(("bias", bias));
    }
    Some(Raised {
        operator: "linear",
        overload: "",
        rule: None,
        added: Vec::new(),
        tensors,
        wide,
    })
}

/// Batch-norm over the channels of all images, each with its own statistics, is instance-norm.
fn instance_norm(node: &Node, made: &str, tracked: &Tracked) -> Option<Raised> {
    const RULE: Rule = Rule {
        dropped: &["input", "weight", "bias", "training"],
        ..SAME
    };
    let trains = node.argument("training")?.get("as_bool")?.as_bool()?;
    if !trains || node.argument("running_mean").is_some() {
        return None;
    }
    let source = tracked.joined.get(node.tensor("input")?)?;
    tracked.shape(made)?;
    let mut tensors = vec![("input", source.clone())];
    let mut added = vec![
        ("running_mean", Constant::None),
        ("running_var", Constant::None),
        ("use_input_stats", Constant::Bool(true)),
        ("cudnn_enabled", Constant::Bool(false)),
    ];
    for argument in ["weight", "bias"] {
        match node.tensor(argument) {
            Some(repeated) => tensors.push((argument, tracked.repeated.get(repeated)?.clone())),
            None => added.push((argument, Constant::None)),
        }
    }
    Some(Raised {
        operator: "instance_norm",
        overload: "",
        rule: Some(&RULE),
        added,
        tensors,
        wide: tracked.sizes(source),
    })
}

/// PyTorch takes the number format of a new tensor from the flag that fills it; TorchScript knows
/// no flags there.
fn full_of_flags(node: &Node) -> Option<Raised> {
    let is_flag = node.argument("fill_value")?.get("as_bool").is_some();
    let is_stated = node
        .argument("dtype")
        .is_some_and(|kind| kind.get("as_none").is_none());
    (is_flag && !is_stated).then(|| Raised {
        operator: "full",
        overload: "",
        rule: Some(&SAME),
        added: vec![("dtype", Constant::Integer(BOOL))],
        tensors: Vec::new(),
        wide: None,
    })
}

/// Whether `as_strided` shows the numbers of its input in the same order, but for axes of size 1:
/// in the file, where both are stated, if they are.
fn keeps_order(node: &Node, made: &str, tracked: &Tracked) -> bool {
    let axes = |layout: &Layout| -> Vec<(String, String)> {
        let axes = layout.sizes.iter().zip(&layout.strides);
        let axes = axes.map(|(size, stride)| (number(size), number(stride)));
        axes.filter(|(size, _)| size != "1").collect()
    };
    let layout = |name: &str| tracked.layouts?.get(name);
    let (input, made) = (node.tensor("self").and_then(layout), layout(made));
    input.zip(made).is_some_and(|(input, made)| {
        let starts = [&input.storage_offset, &made.storage_offset].map(number);
        starts[0] == starts[1] && axes(input) == axes(made)
    })
}

/// A size as text: a number, or the formula of a symbolic one.
fn number(size: &Value) -> String {
    let formula = size
        .get("as_expr")
        .and_then(|formula| formula.get("expr_str"));
    formula.or(size.get("as_int")).unwrap_or(size).to_string()
}

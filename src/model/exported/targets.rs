//! What a node of an exported program calls.

use anyhow::{Result, bail, ensure};

use super::shown;
use crate::hooks::OF_NUMBERS;

/// The longest name of an operator, in bytes; libtorch's have up to 80.
const LONGEST_TARGET: usize = 120;

/// Operators that check sizes or kinds and compute nothing.
const CHECKS: [&str; 7] = [
    "_assert_tensor_metadata",
    "_assert_scalar",
    "_assert_async",
    "_functional_assert_scalar",
    "_functional_assert_async",
    "sym_constrain_range",
    "sym_constrain_range_for_size",
];

/// Operators that run a graph which they hold as it is.
const WRAPPERS: [&str; 7] = [
    "wrap_with_autocast",
    "wrap_with_set_grad_enabled",
    "wrap",
    "wrap_activation_checkpoint",
    "tag_activation_checkpoint",
    "invoke_subgraph",
    "hints_wrapper",
];

/// Batch-norms that update their statistics.
const TRAINING: [&str; 3] = [
    "_native_batch_norm_legit_functional",
    "_batch_norm_with_update",
    "_batch_norm_with_update_functional",
];

/// Python's arithmetic of sizes, and libtorch's names for it.
const ARITHMETIC: [(&str, &str); 22] = [
    ("_operator.add", "add"),
    ("_operator.sub", "sub"),
    ("_operator.mul", "mul"),
    ("_operator.floordiv", "floordiv"),
    ("_operator.truediv", "div"),
    ("_operator.mod", "remainder"),
    ("_operator.pow", "pow"),
    ("_operator.neg", "neg"),
    ("_operator.eq", "eq"),
    ("_operator.ne", "ne"),
    ("_operator.lt", "lt"),
    ("_operator.le", "le"),
    ("_operator.gt", "gt"),
    ("_operator.ge", "ge"),
    ("_operator.and_", "__and__"),
    ("_operator.or_", "__or__"),
    ("torch.sym_not", "__not__"),
    ("torch.sym_float", "Float"),
    ("torch.sym_int", "Int"),
    ("math.trunc", "Int"),
    ("torch.sym_max", "max"),
    ("torch.sym_min", "min"),
];

/// What a node calls.
#[derive(Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// An operator of libtorch's namespace `aten`, and its overload.
    Aten(&'a str, &'a str),
    /// Arithmetic of sizes; its arguments have no names.
    Arithmetic(&'static str),
    /// A graph that the node holds.
    Graph,
    /// A check, which computes nothing.
    Check,
}

impl Target<'_> {
    /// What a target such as `torch.ops.aten.add.Tensor` is.
    ///
    /// # Errors
    /// Returns one line if prism does not run such operators.
    pub fn parse(target: &str) -> Result<Target<'_>> {
        if let Some((_, name)) = ARITHMETIC.iter().find(|(python, _)| *python == target) {
            return Ok(Target::Arithmetic(name));
        }
        let of_libtorch = target.strip_prefix("torch.ops.");
        let Some((space, rest)) = of_libtorch.and_then(|rest| rest.split_once('.')) else {
            bail!("prism does not run its operator {}", shown(target));
        };
        let (operator, overload) = rest.split_once('.').unwrap_or((rest, ""));
        let overload = match overload {
            "default" => "",
            OF_NUMBERS => bail!("prism does not run its operator {}", shown(target)),
            overload => overload,
        };
        // libtorch's names have no other letters.
        let is_name = |name: &str| {
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        ensure!(
            is_name(operator) && is_name(overload) && target.len() <= LONGEST_TARGET,
            "prism does not run its operator {}",
            shown(target)
        );
        match (space, operator) {
            ("aten", check) if CHECKS.contains(&check) => Ok(Target::Check),
            ("aten", norm) if TRAINING.contains(&norm) => {
                bail!("it was exported in training mode; export it after model.eval()")
            }
            ("aten", "sym_size") => Ok(Target::Aten("size", overload)),
            ("aten", "sym_numel") => Ok(Target::Aten("numel", overload)),
            ("aten", "sym_stride") => Ok(Target::Aten("stride", overload)),
            ("aten", operator) => Ok(Target::Aten(operator, overload)),
            ("higher_order", wrapper) if WRAPPERS.contains(&wrapper) => Ok(Target::Graph),
            ("higher_order", "cond" | "while_loop" | "map" | "map_impl" | "scan") => bail!(
                "this network branches or loops on its values (torch.{}), which prism does not run; export it without",
                shown(operator)
            ),
            _ => bail!(
                "its operator {} is none of libtorch's own, and prism does not run others",
                shown(target)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_told_apart() {
        let parse = |target| Target::parse(target).unwrap();
        assert_eq!(
            parse("torch.ops.aten.conv2d.default"),
            Target::Aten("conv2d", "")
        );
        assert_eq!(
            parse("torch.ops.aten.sym_size.int"),
            Target::Aten("size", "int")
        );
        assert_eq!(parse("_operator.mod"), Target::Arithmetic("remainder"));
        assert_eq!(
            parse("torch.ops.higher_order.wrap_with_autocast"),
            Target::Graph
        );
        assert_eq!(parse("torch.ops.aten._assert_async.msg"), Target::Check);
        for (target, reason) in [
            ("torch.ops.higher_order.cond", "torch.cond"),
            (
                "torch.ops.torchvision.nms.default",
                "none of libtorch's own",
            ),
            ("torch.ops.aten.add.number", "does not run"),
            ("os.system", "does not run its operator os.system"),
            ("", "does not run"),
            (
                "torch.ops.aten._native_batch_norm_legit_functional.default",
                "after model.eval()",
            ),
        ] {
            let error = Target::parse(target).unwrap_err().to_string();
            assert!(error.contains(reason), "{target}: {error}");
        }
    }
}

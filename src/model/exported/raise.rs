//! Operators of core ATen, which `run_decompositions()` writes, as the operators that rules and
//! libtorch's passes know.

use super::schema::{Argument, Node};

/// What an operator becomes. Of its results the first is taken.
pub struct Raised {
    written: &'static str,
    pub operator: &'static str,
    pub overload: &'static str,
    /// Arguments that the other operator does not have.
    dropped: &'static [&'static str],
    /// Switches of the other operator, which are off.
    pub off: &'static [&'static str],
}

const TABLE: [Raised; 6] = [
    Raised {
        written: "convolution",
        operator: "conv2d",
        overload: "",
        dropped: &["transposed", "output_padding"],
        off: &[],
    },
    Raised {
        written: "_native_batch_norm_legit_no_training",
        operator: "batch_norm",
        overload: "",
        dropped: &[],
        off: &["training", "cudnn_enabled"],
    },
    Raised {
        written: "native_layer_norm",
        operator: "layer_norm",
        overload: "",
        dropped: &[],
        off: &["cudnn_enable"],
    },
    Raised {
        written: "max_pool2d_with_indices",
        operator: "max_pool2d",
        overload: "",
        dropped: &[],
        off: &[],
    },
    Raised {
        written: "_adaptive_avg_pool2d",
        operator: "adaptive_avg_pool2d",
        overload: "",
        dropped: &[],
        off: &[],
    },
    Raised {
        written: "_softmax",
        operator: "softmax",
        overload: "int",
        dropped: &["half_to_float"],
        off: &[],
    },
];

impl Raised {
    /// What `node`, a call of the operator `written`, becomes, if it is of core ATen.
    pub fn of(written: &str, node: &Node) -> Option<&'static Raised> {
        let raised = TABLE.iter().find(|raised| raised.written == written)?;
        let fits = match written {
            "convolution" => {
                let flag = node.argument("transposed")?.get("as_bool")?.as_bool()?;
                let stride = node.argument("stride")?.get("as_ints")?.as_array()?;
                !flag && stride.len() == 2
            }
            _ => true,
        };
        fits.then_some(raised)
    }

    /// Whether the other operator takes an argument.
    pub fn takes(&self, argument: &Argument) -> bool {
        !self.dropped.contains(&argument.name.as_str())
    }
}

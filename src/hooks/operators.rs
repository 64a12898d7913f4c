//! The operators that PRISM distinguishes: one table from their TorchScript names to what they
//! compute, how excitation backpropagation treats them, and further properties.
//!
//! The graph, the selection of layers, their names and excitation backpropagation all read this
//! table. To add an operator, add its name to a row, or add a row.

use std::collections::HashMap;
use std::sync::LazyLock;

use Backprop::{Move, Offset, Pass, Product, Sum, Unsupported, ZPlus};
use Kind::{
    AdaptivePool, Attention, AvgPool2d, BatchNorm, Bound, Comparison, Concat, Container, Conv2d,
    Convolution, Count, Dropout, Elementwise, FillContainer, Filled, Flip, Item, LayerNorm, Layout,
    Linear, LogSoftmax, MatrixProduct, MaxPool2d, Norm, Padding, Permute, Pool, Power, Ranking,
    Recurrent, Reduction, Reindex, Relu, Reshape, Rotate, Sample, Select, Size, Slice, Softmax,
    Split, Stack, Transpose, Upsample,
};
use Property::{
    Gate, KeepsAttention, KeepsFeatures, NeverNegative, NonLinear, Ranks, RoundsByTheBatch,
    SameValues, View, Weights, Window,
};

/// What an operator computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// A 2-d convolution, with weights `[out, in, h, w]`; it may be transposed.
    Conv2d,
    /// Another convolution.
    Convolution,
    /// A fully connected layer.
    Linear,
    /// A product of matrices: of an activation with weights, or of two activations.
    MatrixProduct,
    Relu,
    /// Another element-wise function, or a normalisation.
    Elementwise,
    /// Limits the values from below or above.
    Bound,
    Softmax,
    LogSoftmax,
    BatchNorm,
    /// Changes nothing in evaluation mode.
    Dropout,
    MaxPool2d,
    AvgPool2d,
    /// Pooling to a given output size.
    AdaptivePool,
    /// Other pooling.
    Pool,
    LayerNorm,
    /// A sum, mean or maximum over dimensions.
    Reduction,
    /// The length of vectors.
    Norm,
    /// A power, root, exponential or logarithm.
    Power,
    /// Flags that say how values compare.
    Comparison,
    /// The best values, or their places.
    Ranking,
    Upsample,
    Permute,
    /// Two dimensions change places.
    Transpose,
    /// The same values in the same order, with other dimensions.
    Reshape,
    /// One entry of a dimension.
    Select,
    /// A range of a dimension.
    Slice,
    Flip,
    /// A turn by multiples of 90 degrees.
    Rotate,
    /// Entries by index.
    Reindex,
    /// Values at computed places.
    Sample,
    Concat,
    /// Tensors side by side in a new dimension.
    Stack,
    /// An item of a list.
    Item,
    /// The same values in another layout.
    Layout,
    Padding,
    /// A recurrent layer.
    Recurrent,
    /// A new tensor of one value, or of none.
    Filled,
    /// A list of parts of a tensor.
    Split,
    /// A new list or tuple.
    Container,
    /// Puts a value into its first input, a list or dictionary.
    FillContainer,
    /// The sizes of a tensor.
    Size,
    /// A number or another fact, not a feature.
    Count,
    Attention,
    /// Not in the table.
    #[default]
    Unknown,
}

/// How excitation backpropagation passes the winning probability from an output to the inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backprop {
    /// By the z-plus rule: a linear map whose coefficients have a positive part.
    ZPlus,
    /// Unchanged to the first activation among the inputs.
    Pass,
    /// Along the ordinary gradient, which only moves it.
    Move,
    /// A sum: in proportion to the positive parts of two activations.
    Sum,
    /// A product: unchanged to the activation that the other one gates.
    Product,
    /// Less or divided by a constant: unchanged to the first input.
    Offset,
    /// There is no rule.
    #[default]
    Unsupported,
}

impl Backprop {
    /// Whether the operator adds, subtracts, multiplies or divides.
    pub fn is_arithmetic(self) -> bool {
        matches!(self, Sum | Product | Offset)
    }
}

/// A further property of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    /// A linear map with weights.
    Weights,
    /// Gathers values over a spatial window (`kernel_size`, or the size of the weights).
    Window,
    /// An element-wise non-linearity as it follows a layer.
    NonLinear,
    /// Its values weight another activation.
    Gate,
    /// Its values are at least zero.
    NeverNegative,
    /// Leaves the features of an activation as they are, or only averages them over space.
    KeepsFeatures,
    /// Attention weights remain attention weights.
    KeepsAttention,
    /// Its output shares the memory of its first input.
    View,
    /// Its output has the values of its first input in the same order, in evaluation mode, if it
    /// has as many.
    SameValues,
    /// Orders values, or takes the best of them.
    Ranks,
    /// Rounds its input to 8 bits, from the smallest to the largest value of the batch.
    RoundsByTheBatch,
}

#[rustfmt::skip]
const TABLE: &[(&str, Kind, Backprop, &[Property])] = &[
    ("conv2d", Conv2d, ZPlus, &[Weights, Window]),
    ("conv1d conv3d conv_transpose1d conv_transpose2d", Convolution, ZPlus, &[Weights]),
    ("linear addmm mm", Linear, ZPlus, &[Weights]),
    ("linear_dynamic linear_relu_dynamic", Linear, Unsupported, &[Weights, RoundsByTheBatch]),
    ("linear_dynamic_fp16 linear_relu_dynamic_fp16", Linear, Unsupported, &[Weights]),
    ("matmul", MatrixProduct, ZPlus, &[Weights]),
    ("bmm einsum", MatrixProduct, Unsupported, &[Weights]),
    ("lstm gru rnn_tanh rnn_relu", Recurrent, Unsupported, &[Weights]),
    ("relu", Relu, Pass, &[NonLinear, NeverNegative]),
    ("relu6", Elementwise, Pass, &[NonLinear, NeverNegative]),
    ("hardtanh clamp clamp_max clamp_min", Bound, Pass, &[NonLinear]),
    ("silu gelu", Elementwise, Pass, &[NonLinear]),
    ("hardswish leaky_relu elu celu selu mish tanh", Elementwise, Pass, &[NonLinear]),
    ("softplus", Elementwise, Pass, &[NonLinear, NeverNegative]),
    ("prelu", Elementwise, Pass, &[NonLinear]),
    ("sigmoid hardsigmoid", Elementwise, Pass, &[NonLinear, Gate, NeverNegative]),
    ("threshold", Bound, Pass, &[]),
    ("log_sigmoid rrelu", Elementwise, Pass, &[]),
    ("instance_norm group_norm", Elementwise, Pass, &[]),
    ("layer_norm", LayerNorm, Pass, &[]),
    ("batch_norm", BatchNorm, Pass, &[]),
    ("softmax", Softmax, Pass, &[Gate, NeverNegative]),
    ("log_softmax", LogSoftmax, Pass, &[]),
    ("neg reciprocal rsqrt sin cos tan erf floor ceil round sign", Elementwise, Unsupported, &[]),
    ("where maximum minimum", Elementwise, Unsupported, &[]),
    ("gt lt ge le eq ne logical_and logical_or logical_not isnan", Comparison, Unsupported, &[NeverNegative]),
    ("masked_fill add_scalar rsub addcmul lerp floordiv remainder", Elementwise, Unsupported, &[]),
    ("type_as zeros_like ones_like full_like", Elementwise, Unsupported, &[]),
    ("add", Elementwise, Sum, &[]),
    ("mul", Elementwise, Product, &[]),
    ("sub div", Elementwise, Offset, &[]),
    ("dropout", Dropout, Pass, &[KeepsFeatures, KeepsAttention, SameValues]),
    ("feature_dropout", Dropout, Pass, &[KeepsFeatures, SameValues]),
    ("alpha_dropout", Dropout, Pass, &[SameValues]),
    ("feature_alpha_dropout", Dropout, Unsupported, &[SameValues]),
    ("max_pool2d", MaxPool2d, Move, &[Window]),
    ("avg_pool2d", AvgPool2d, ZPlus, &[Window, KeepsFeatures]),
    ("adaptive_avg_pool2d", AdaptivePool, ZPlus, &[KeepsFeatures]),
    ("adaptive_max_pool2d", AdaptivePool, Move, &[KeepsFeatures]),
    ("adaptive_avg_pool1d", AdaptivePool, ZPlus, &[]),
    ("adaptive_max_pool1d", AdaptivePool, Move, &[]),
    ("avg_pool1d", Pool, ZPlus, &[]),
    ("max_pool1d", Pool, Move, &[]),
    ("mean sum", Reduction, ZPlus, &[]),
    ("max amax", Reduction, Move, &[Ranks]),
    ("topk sort argsort argmax kthvalue", Ranking, Unsupported, &[Ranks]),
    ("argmin", Ranking, Unsupported, &[]),
    ("min amin logsumexp var std prod median", Reduction, Unsupported, &[]),
    ("norm linalg_vector_norm frobenius_norm", Norm, Unsupported, &[]),
    ("square sqrt exp abs", Power, Unsupported, &[NeverNegative]),
    ("pow log log1p expm1", Power, Unsupported, &[]),
    ("permute", Permute, Move, &[View, SameValues, KeepsAttention]),
    ("view reshape", Reshape, Move, &[View, SameValues, KeepsAttention]),
    ("view_as flatten squeeze unsqueeze", Reshape, Move, &[View, SameValues]),
    ("reshape_as unflatten", Reshape, Move, &[SameValues]),
    ("transpose", Transpose, Move, &[View, SameValues, KeepsAttention]),
    ("t mT", Transpose, Move, &[View, SameValues]),
    ("movedim swapaxes", Transpose, Move, &[]),
    ("expand", Layout, Move, &[View, SameValues, KeepsAttention]),
    ("alias", Layout, Move, &[View, SameValues]),
    ("expand_as", Layout, Move, &[]),
    ("slice narrow", Slice, Move, &[View, SameValues]),
    ("select", Select, Move, &[View, SameValues]),
    ("to", Layout, Move, &[KeepsFeatures, KeepsAttention, SameValues]),
    ("contiguous clone", Layout, Move, &[KeepsFeatures, SameValues]),
    ("detach", Layout, Pass, &[KeepsFeatures, SameValues]),
    ("flip", Flip, Move, &[]),
    ("rot90", Rotate, Move, &[]),
    ("index_select roll", Reindex, Move, &[]),
    ("index gather take_along_dim", Reindex, Unsupported, &[]),
    ("grid_sampler grid_sampler_2d", Sample, Unsupported, &[]),
    ("cat concat concatenate", Concat, Move, &[]),
    ("stack", Stack, Move, &[]),
    ("channel_shuffle pixel_shuffle pixel_unshuffle", Layout, Move, &[]),
    ("upsample_nearest2d", Upsample, Move, &[]),
    ("upsample_bilinear2d", Upsample, ZPlus, &[]),
    ("upsample_bicubic2d", Upsample, Unsupported, &[]),
    ("constant_pad_nd pad", Padding, Move, &[]),
    ("reflection_pad1d reflection_pad2d reflection_pad3d", Padding, Unsupported, &[]),
    ("replication_pad1d replication_pad2d replication_pad3d", Padding, Unsupported, &[]),
    ("pad_circular pad_enum", Padding, Unsupported, &[]),
    ("chunk split split_with_sizes tensor_split unbind", Split, Move, &[]),
    ("ListConstruct TupleConstruct", Container, Move, &[]),
    ("ListUnpack TupleUnpack TupleIndex getitem", Item, Move, &[]),
    ("append", FillContainer, Move, &[]),
    ("zeros ones empty full new_zeros new_empty new_full", Filled, Unsupported, &[]),
    ("extend insert set_item", FillContainer, Unsupported, &[]),
    ("size", Size, Unsupported, &[]),
    ("dim len NumToTensor Int Float ScalarImplicit", Count, Unsupported, &[]),
    ("device dtype is_floating_point", Count, Unsupported, &[]),
    ("scaled_dot_product_attention", Attention, Unsupported, &[]),
    ("native_multi_head_attention", Attention, Unsupported, &[]),
    ("transformer_encoder_layer_fwd", Attention, Unsupported, &[]),
];

/// A row of the table.
#[derive(Debug, Clone, Copy, Default)]
pub struct Operator {
    pub kind: Kind,
    pub backprop: Backprop,
    properties: &'static [Property],
}

impl Operator {
    /// The operator of a TorchScript name such as `aten::relu_`.
    pub fn of(name: &str) -> Operator {
        static BY_NAME: LazyLock<HashMap<&str, Operator>> = LazyLock::new(|| {
            let row = |&(names, kind, backprop, properties): &(&'static str, _, _, _)| {
                let operator = Operator {
                    kind,
                    backprop,
                    properties,
                };
                names.split(' ').map(move |name| (name, operator))
            };
            TABLE.iter().flat_map(row).collect()
        });
        BY_NAME.get(short_name(name)).copied().unwrap_or_default()
    }

    pub fn has(self, property: Property) -> bool {
        self.properties.contains(&property)
    }
}

/// An operator without namespace and in-place mark: `conv2d` for `aten::_convolution`, `relu` for
/// `aten::relu_`.
pub fn short_name(operator: &str) -> &str {
    let name = operator.rsplit("::").next().unwrap_or(operator);
    match name.trim_matches('_') {
        // Traced convolutions are general ones, or have their padding in words.
        "convolution" | "convolution_mode" => "conv2d",
        "max_pool2d_with_indices" => "max_pool2d",
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_operator_is_listed_twice() {
        let mut names: Vec<&str> = TABLE.iter().flat_map(|row| row.0.split(' ')).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn names_are_read_without_namespace_and_marks() {
        for (name, short) in [
            ("aten::relu_", "relu"),
            ("aten::_convolution", "conv2d"),
            ("aten::_convolution_mode", "conv2d"),
            ("aten::max_pool2d_with_indices", "max_pool2d"),
            ("aten::__getitem__", "getitem"),
            ("prim::ListConstruct", "ListConstruct"),
            ("sin", "sin"),
        ] {
            assert_eq!(short_name(name), short);
        }
        assert_eq!(Operator::of("aten::relu_").kind, Relu);
        assert_eq!(Operator::of("aten::cumsum").kind, Kind::Unknown);
    }
}

"""The table of ONNX operators: each alone, over its attributes and opsets, with what ONNX Runtime makes.

Usage: make_onnx_operators.py FOLDER   (with numpy, onnx and onnxruntime; FOLDER is tests/data/onnx)

operators.npz has for each case the bytes of a file (`NAME.onnx`) and the results (`NAME.0`, ...); all
cases take one of a few inputs (`input.SHAPE`). Networks that would mix images are `NAME.network`, with their
scores of each image of `apart`.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

GENERATOR = np.random.default_rng(28)
ARRAYS, INPUTS = {}, {}
IMAGES = (2, 4, 6, 7)


def images(shape):
    key = "x".join(map(str, shape))
    if key not in INPUTS:
        INPUTS[key] = weights(*shape)
        ARRAYS["input." + key] = INPUTS[key]
    return key, INPUTS[key]


def weights(*shape):
    """Numbers of few digits, which compress well."""
    return (np.round(GENERATOR.normal(size=shape) * 16) / 16).astype(np.float32)


def ints(*numbers):
    return np.array(numbers, np.int64)


def floats(*numbers):
    return np.array(numbers, np.float32)


def case(name, nodes, opset, constants=None, shape=IMAGES, outputs=1, free="N"):
    """Nodes that make y (y0, y1, ... of several) of x, and of constants by name."""
    nodes = [nodes] if isinstance(nodes, onnx.NodeProto) else nodes
    results = ["y"] if outputs == 1 else [f"y{i}" for i in range(outputs)]
    sizes = list(shape)
    for letter, at in {"N": [("N", 0)], "NHW": [("N", 0), ("H", 2), ("W", 3)], "": []}[free]:
        sizes[at] = letter
    graph = helper.make_graph(
        nodes, name, [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)],
        [onnx.ValueInfoProto(name=result) for result in results],
        [numpy_helper.from_array(value, key) for key, value in (constants or {}).items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="")
    model.ir_version = 10 if opset > 20 else 8
    bytes_ = model.SerializeToString()
    key, x = images(shape)
    try:
        session = onnxruntime.InferenceSession(bytes_, providers=["CPUExecutionProvider"])
        made = session.run(None, {"x": x})
    except Exception as error:  # ONNX Runtime lacks a few versions of a few operators
        print(f"left out: {name}: {str(error).strip().splitlines()[-1][:150]}")
        return
    name = f"{name}.{opset}" + ("" if free == "N" else "." + (free or "fixed"))
    assert name + ".onnx" not in ARRAYS, name
    ARRAYS[name + ".onnx"] = np.frombuffer(bytes_, np.uint8)
    ARRAYS[name + ".input"] = np.frombuffer(f'"{key}"'.encode(), np.uint8)
    for i, result in enumerate(made):
        ARRAYS[f"{name}.{i}"] = np.asarray(result, np.float32)


def node(operator, inputs="x", outputs="y", **attributes):
    split = lambda names: names.split(",") if isinstance(names, str) else names
    return helper.make_node(operator, split(inputs), split(outputs), **attributes)


def elementwise():
    unary = ("Relu Sigmoid Tanh Exp Abs Neg Floor Ceil Sign Erf Sin Cos Atan Asinh Sinh Cosh Softplus Softsign "
             "Identity Reciprocal").split()
    for operator in unary:
        case(operator, node(operator), 13)
    for operator, opset in [("Round", 11), ("HardSwish", 14), ("Mish", 18), ("Gelu", 20), ("Swish", 24), ("Selu", 6 + 1),
                            ("LeakyRelu", 16), ("Elu", 7), ("Celu", 12), ("HardSigmoid", 7), ("ThresholdedRelu", 10), ("Shrink", 9)]:
        case(operator, node(operator), opset)
    case("Sqrt", [node("Abs", "x", "a"), node("Sqrt", "a")], 13)
    case("Log", [node("Abs", "x", "a"), node("Log", "a")], 13)
    for operator in "Tan Asin Acos Atanh Acosh".split():
        case(operator, [node("Sigmoid", "x", "a"), node("Add", "a,one", "b") if operator == "Acosh" else node("Identity", "a", "b"),
                        node(operator, "b")], 13, {"one": floats(1)} if operator == "Acosh" else None)
    case("Gelu_tanh", node("Gelu", approximate="tanh"), 20)
    case("Swish_alpha", node("Swish", alpha=1.7), 24)
    case("Selu_other", node("Selu", alpha=1.2, gamma=0.9), 13)
    case("LeakyRelu_steep", node("LeakyRelu", alpha=0.3), 13)
    case("Elu_other", node("Elu", alpha=0.6), 13)
    case("Celu_other", node("Celu", alpha=0.6), 13)
    case("HardSigmoid_torch", node("HardSigmoid", alpha=1 / 6, beta=0.5), 13)
    case("HardSigmoid_other", node("HardSigmoid", alpha=0.4, beta=0.3), 13)
    case("ThresholdedRelu_other", node("ThresholdedRelu", alpha=0.2), 13)
    case("Shrink_other", node("Shrink", lambd=0.3, bias=0.1), 13)
    for opset in (7, 13, 14):
        for operator in ("Add", "Sub", "Mul", "Div"):
            case(operator, node(operator, "x,c"), opset, {"c": weights(4, 1, 1)})
    case("Add_last", node("Add", "x,c"), 13, {"c": weights(7)})
    case("Sub_swapped", node("Sub", "c,x"), 13, {"c": weights(1, 4, 1, 1)})
    case("Pow", node("Pow", "x,c"), 13, {"c": floats(2)})
    case("Pow_half", [node("Abs", "x", "a"), node("Pow", "a,c")], 13, {"c": np.float32(0.5)})
    case("Pow_integers", [node("Cast", "x", "i", to=7), node("Pow", "i,c", "p"), node("Cast", "p", "y", to=1)], 13, {"c": ints(3)})
    case("Div_integers", [node("Mul", "x,s", "m"), node("Cast", "m", "i", to=7), node("Div", "i,c", "p"), node("Cast", "p", "y", to=1)],
         13, {"c": ints(3), "s": floats(9)})
    case("Mod", [node("Cast", "x", "i", to=7), node("Mod", "i,c", "p"), node("Cast", "p", "y", to=1)], 13, {"c": ints(3)})
    case("Mod_fmod", node("Mod", "x,c", fmod=1), 13, {"c": floats(0.7)})
    for operator in ("Max", "Min", "Sum", "Mean"):
        case(operator, node(operator, "x,c,d"), 13, {"c": weights(4, 1, 1), "d": weights(1, 1, 6, 1)})
        case(operator, node(operator, "x,x"), 8)
    for operator, opset in [("Greater", 9), ("Less", 9), ("Equal", 11), ("GreaterOrEqual", 12), ("LessOrEqual", 16)]:
        case(operator, [node("Round", "x", "r") if opset > 10 else node("Floor", "x", "r"), node(operator, "r,c", "b"),
                        node("Cast", "b", "y", to=1)], opset, {"c": floats(0)})
    for operator in ("And", "Or", "Xor"):
        case(operator, [node("Greater", "x,c", "a"), node("Less", "x,d", "b"), node(operator, "a,b", "z"), node("Cast", "z", "y", to=1)],
             13, {"c": floats(-0.3), "d": floats(0.4)})
    case("Not", [node("Greater", "x,c", "a"), node("Not", "a", "b"), node("Cast", "b", "y", to=1)], 13, {"c": floats(0)})
    case("Where", [node("Greater", "x,c", "a"), node("Where", "a,x,d")], 9, {"c": floats(0.2), "d": weights(4, 1, 1)})
    case("IsNaN", [node("Log", "x", "a"), node("IsNaN", "a", "b"), node("Cast", "b", "y", to=1)], 13)
    case("IsInf", [node("Relu", "x", "r"), node("Log", "r", "a"), node("IsInf", "a", "b", detect_positive=0), node("Cast", "b", "y", to=1)], 10)
    for operator in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        case(operator, [node("Cast", "x", "i", to=6), node(operator, "i,c", "z"), node("Cast", "z", "y", to=1)], 18, {"c": np.int32(5)})
    case("Clip", node("Clip", min=-0.5, max=0.8), 7)
    case("Clip_min", node("Clip", min=-0.5), 10)
    for opset in (11, 13):
        case("Clip", node("Clip", "x,a,b"), opset, {"a": np.float32(0), "b": np.float32(1.3)})
        case("Clip_max", node("Clip", ["x", "", "b"]), opset, {"b": np.float32(0.4)})
        case("Clip_min", node("Clip", "x,a"), opset, {"a": np.float32(0.1)})
        case("Clip_nothing", node("Clip", "x"), opset)
    for opset in (7, 9, 16):
        case("PRelu", node("PRelu", "x,c"), opset, {"c": weights(4, 1, 1)})
    case("PRelu_one", node("PRelu", "x,c"), 16, {"c": weights(1)})
    case("PRelu_pixels", node("PRelu", "x,c"), 16, {"c": weights(6, 7)})
    for opset in (7, 10):
        case("Dropout", node("Dropout", ratio=0.4), opset)
    case("Dropout", node("Dropout", "x,r"), 13, {"r": np.float32(0.3)})
    case("Cast", [node("Cast", "x", "i", to=6), node("Cast", "i", "y", to=1)], 9)
    case("Cast_half", [node("Mul", "x,c", "m"), node("Floor", "m", "f"), node("Cast", "f", "i", to=10), node("Cast", "i", "y", to=1)], 13, {"c": floats(4)})
    case("CastLike", [node("CastLike", "x,c", "i"), node("Cast", "i", "y", to=1)], 15, {"c": ints(1)})


def layers():
    for opset in (7, 11, 22):
        w = {"w": weights(5, 4, 3, 3), "b": weights(5)}
        case("Conv", node("Conv", "x,w,b", pads=[1, 1, 1, 1]), opset, w)
    w = {"w": weights(6, 2, 3, 2)}
    case("Conv_groups", node("Conv", "x,w", group=2, strides=[2, 1], dilations=[1, 2], kernel_shape=[3, 2]), 11, w)
    case("Conv_uneven", node("Conv", "x,w", group=2, pads=[0, 1, 2, 0]), 11, w)
    for how in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        for strides in ([1, 1], [2, 3]):
            for free in ("N", "NHW"):
                case(f"Conv_{how}_{strides[0]}", node("Conv", "x,w", group=2, strides=strides, auto_pad=how), 11, w, free=free)
    case("Conv_3d", [node("Unsqueeze", "x", "u", axes=[2]), node("Conv", "u,w", "z"), node("Squeeze", "z", "y", axes=[2])], 11,
         {"w": weights(3, 4, 1, 3, 3)})
    t = {"w": weights(4, 3, 3, 3), "b": weights(3)}
    for opset in (7, 11):
        case("ConvTranspose", node("ConvTranspose", "x,w,b", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 0]), opset, t)
    case("ConvTranspose_uneven", node("ConvTranspose", "x,w", strides=[2, 1], pads=[0, 1, 1, 2]), 11, t)
    case("ConvTranspose_groups", node("ConvTranspose", "x,w", group=2, dilations=[2, 1]), 11, {"w": weights(4, 2, 2, 3)})
    for how in ("SAME_UPPER", "SAME_LOWER"):
        case(f"ConvTranspose_{how}", node("ConvTranspose", "x,w", strides=[2, 3], auto_pad=how), 11, t)
    case("ConvTranspose_shape", node("ConvTranspose", "x,w", strides=[2, 2], output_shape=[12, 14]), 11, t)
    flat = [node("Flatten", "x", "f")]
    for opset in (7, 9, 11, 13):
        case("Gemm", flat + [node("Gemm", "f,w,b", transB=1)], opset, {"w": weights(5, 168), "b": weights(5)})
    case("Gemm_scaled", flat + [node("Gemm", "f,w,b", alpha=0.5, beta=1.7)], 11, {"w": weights(168, 5), "b": weights(1, 5)})
    case("Gemm_no_bias", flat + [node("Gemm", "f,w")], 11, {"w": weights(168, 5)})
    case("Gemm_one", flat + [node("Gemm", "f,w,b")], 11, {"w": weights(168, 5), "b": weights(1)})
    case("Gemm_transA", flat + [node("Transpose", "f", "g"), node("Gemm", "g,w,b", transA=1)], 11, {"w": weights(168, 5), "b": weights(5)})
    case("MatMul", node("MatMul", "x,w"), 13, {"w": weights(7, 5)})
    case("MatMul_left", node("MatMul", "w,x"), 9, {"w": weights(5, 6)})
    case("MatMul_both", [node("Transpose", "x", "t", perm=[0, 1, 3, 2]), node("MatMul", "x,t")], 13)
    case("MatMul_stack", node("MatMul", "x,w"), 13, {"w": weights(4, 7, 5)})
    case("Einsum", node("Einsum", "x,w", equation="nchw,kc->nkhw"), 12, {"w": weights(5, 4)})
    n = lambda: {"s": weights(4), "b": weights(4), "m": weights(4), "v": np.abs(weights(4)) + 0.5}
    for opset in (7, 9, 14, 15):
        case("BatchNormalization", node("BatchNormalization", "x,s,b,m,v", epsilon=1e-3), opset, n())
    case("InstanceNormalization", node("InstanceNormalization", "x,s,b", epsilon=1e-3), 9, {"s": weights(4), "b": weights(4)})
    g = {"s": ints(0, 2, -1), "one": floats(1, 2), "zero": floats(0, 0.5), "t": ints(0, 4, 6, 7), "w": weights(4, 1, 1)}
    case("GroupNorm_raised", [node("Reshape", "x,s", "a"), node("InstanceNormalization", "a,one,zero", "n"), node("Reshape", "n,t", "r"),
                              node("Mul", "r,w")], 13, g)
    case("GroupNormalization", node("GroupNormalization", "x,s,b", num_groups=2), 18, {"s": weights(2), "b": weights(2)})
    case("GroupNormalization", node("GroupNormalization", "x,s,b", num_groups=2, epsilon=1e-3), 21, {"s": weights(4), "b": weights(4)})
    case("LayerNormalization", node("LayerNormalization", "x,s,b"), 17, {"s": weights(7), "b": weights(7)})
    case("LayerNormalization_wide", node("LayerNormalization", "x,s", axis=2, epsilon=1e-3), 17, {"s": weights(6, 7)})
    case("LayerNormalization_channels", [node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node("LayerNormalization", "t,s,b", "n"),
                                         node("Transpose", "n", "y", perm=[0, 3, 1, 2])], 17, {"s": weights(4), "b": weights(4)})
    case("RMSNormalization", node("RMSNormalization", "x,s"), 23, {"s": weights(7)})
    for opset in (7, 13):
        case("LRN", node("LRN", size=3, alpha=0.3, beta=0.6, bias=1.2), opset)
    case("LRN_even", node("LRN", size=4), 13)
    case("LpNormalization", node("LpNormalization", axis=1, p=2), 9)
    case("LpNormalization_1", node("LpNormalization", axis=-1, p=1), 9)
    case("MeanVarianceNormalization", node("MeanVarianceNormalization", axes=[2, 3]), 13)


def pooling():
    for opset in (7, 8, 10, 12):
        case("MaxPool", node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), opset)
        case("AveragePool", node("AveragePool", kernel_shape=[2, 3], strides=[2, 1]), opset)
    for free in ("N", "NHW"):
        case("MaxPool_uneven", node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]), 12, free=free)
        case("MaxPool_all_at_end", node("MaxPool", kernel_shape=[2, 2], pads=[0, 0, 1, 1]), 12, free=free)
        case("MaxPool_wide_pads", node("MaxPool", kernel_shape=[2, 3], strides=[1, 1], pads=[1, 2, 1, 2]), 12, free=free)
        for how in ("SAME_UPPER", "SAME_LOWER"):
            case(f"MaxPool_{how}", node("MaxPool", kernel_shape=[3, 2], strides=[2, 2], auto_pad=how), 12, free=free)
            case(f"AveragePool_{how}", node("AveragePool", kernel_shape=[3, 2], strides=[2, 2], auto_pad=how), 11, free=free)
        case("AveragePool_uneven", node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]), 11, free=free)
        case("AveragePool_uneven_counted", node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 1, 2], count_include_pad=1), 11, free=free)
    case("MaxPool_ceil", node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), 12)
    case("MaxPool_ceil_pads", node("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, pads=[0, 0, 1, 0]), 12)
    case("MaxPool_dilated", node("MaxPool", kernel_shape=[2, 3], dilations=[2, 1]), 12)
    case("AveragePool_ceil", node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), 19)
    for counted in (0, 1):
        case(f"AveragePool_pads_{counted}", node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=counted), 11)
        case(f"AveragePool_ceil_pads_{counted}", node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1,
                                                      count_include_pad=counted), 19)
    case("LpPool", node("LpPool", kernel_shape=[2, 2], strides=[2, 2], p=2), 11)
    case("LpPool_3", [node("Abs", "x", "a"), node("LpPool", "a", kernel_shape=[2, 3], p=3, pads=[1, 1, 0, 0])], 11)
    for operator in ("GlobalAveragePool", "GlobalMaxPool"):
        case(operator, node(operator), 7)
        case(operator + "_3d", [node("Unsqueeze", "x", "u", axes=[3]), node(operator, "u")], 11)
    case("GlobalLpPool", node("GlobalLpPool", p=2), 7)


def reductions():
    for operator in "Mean Sum Max Min Prod L1 L2 SumSquare LogSumExp".split():
        first = 13 if operator == "Sum" else 18
        name = "Reduce" + operator
        case(name, node(name, axes=[2, 3]), 11)
        case(name + "_flat", node(name, axes=[-1], keepdims=0), 11)
        case(name + "_all", [node(name, keepdims=0)], 11)
        case(name, node(name, "x,a"), first, {"a": ints(-2, -1)})
        case(name + "_nothing", node(name, "x", noop_with_empty_axes=1), first)
    case("ReduceLogSum", [node("Abs", "x", "a"), node("ReduceLogSum", "a", axes=[1])], 11)
    for opset in (9, 11, 13):
        for operator in ("Softmax", "LogSoftmax"):
            case(operator, node(operator), opset)
            case(operator + "_axis", node(operator, axis=2), opset)
        case("Hardmax", node("Hardmax", axis=1), opset)
    case("Softmax_pooled", [node("GlobalAveragePool", "x", "p"), node("Softmax", "p")], 9)
    for operator in ("ArgMax", "ArgMin"):
        case(operator, [node(operator, "x", "i", axis=1), node("Cast", "i", "y", to=1)], 11)
        case(operator + "_flat", [node(operator, "x", "i", axis=-1, keepdims=0), node("Cast", "i", "y", to=1)], 13)
    case("CumSum", node("CumSum", "x,a"), 11, {"a": np.int64(3)})
    case("CumSum_reverse", node("CumSum", "x,a", reverse=1, exclusive=1), 14, {"a": np.int64(2)})
    # No two values are the same, so that each has its place.
    apart = {"c": np.linspace(0, 0.05, 168, dtype=np.float32).reshape(1, 4, 6, 7)}
    case("TopK", [node("Add", "x,c", "a"), node("TopK", "a", "y0,i", axis=3, k=2), node("Cast", "i", "y1", to=1)], 9, apart, outputs=2)
    case("TopK", [node("Add", "x,c", "a"), node("TopK", "a,k", "y0,i", axis=1, largest=0), node("Cast", "i", "y1", to=1)], 11,
         {"k": ints(3), **apart}, outputs=2)


def shapes():
    for opset in (7, 13, 14, 19):
        case("Reshape", node("Reshape", "x,s"), opset, {"s": ints(0, -1, 7)})
    case("Reshape_plain", node("Reshape", "x,s"), 13, {"s": ints(2, 24, 7)}, free="")
    for axis in (0, 1, 2, 4):
        case(f"Flatten_{axis}", node("Flatten", axis=axis), 9)
    case("Flatten_negative", node("Flatten", axis=-2), 13)
    case("Transpose", node("Transpose", perm=[0, 2, 3, 1]), 7)
    case("Transpose_all", node("Transpose"), 13)
    case("Transpose_twice", [node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node("Relu", "t", "r"), node("Transpose", "r", "y", perm=[0, 3, 1, 2])], 13)
    case("Transpose_thrice", [node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node("Transpose", "t", "u", perm=[3, 0, 1, 2]),
                              node("Transpose", "u", "y", perm=[1, 2, 0, 3])], 13)
    case("Unsqueeze", node("Unsqueeze", axes=[0, -1]), 11)
    case("Unsqueeze", node("Unsqueeze", "x,a"), 13, {"a": ints(3, 1)})
    pooled = [node("GlobalAveragePool", "x", "p")]
    case("Squeeze", pooled + [node("Squeeze", "p", axes=[2, 3])], 7)
    case("Squeeze", pooled + [node("Squeeze", "p,a")], 13, {"a": ints(-1)})
    case("Squeeze_all", pooled + [node("Squeeze", "p")], 11)
    for axis in (1, -1):
        case(f"Concat_{axis}", node("Concat", "x,x,x", axis=axis), 11)
    case("Split", node("Split", "x", "y0,y1", axis=1), 7, outputs=2)
    case("Split_sizes", node("Split", "x", "y0,y1,y2", axis=2, split=[1, 3, 2]), 11, outputs=3)
    case("Split_sizes", node("Split", "x,s", "y0,y1", axis=-1), 13, {"s": ints(3, 4)}, outputs=2)
    case("Split_uneven", node("Split", "x", "y0,y1", axis=3, num_outputs=2), 18, outputs=2)
    case("Slice", node("Slice", starts=[1, -3], ends=[4, 9999], axes=[2, 3]), 9)
    case("Slice_no_axes", node("Slice", starts=[0, 1], ends=[2, -1]), 7)
    case("Slice", node("Slice", "x,s,e,a"), 10, {"s": ints(1, 0), "e": ints(-1, 2**62), "a": ints(2, 1)})
    case("Slice_steps", node("Slice", "x,s,e,a,t"), 13, {"s": ints(0, 1), "e": ints(6, 7), "a": ints(2, 3), "t": ints(2, 3)})
    for start, end, step in ((-1, -(2**62), -1), (5, 1, -2), (-2, -5, -1), (99, -99, -3), (4, 0, -1)):
        case(f"Slice_back_{start}_{step}", node("Slice", "x,s,e,a,t"), 13, {"s": ints(start), "e": ints(end), "a": ints(3), "t": ints(step)})
    for indices, name in ((np.int64(2), "one"), (ints(2, 0, -1), "row"), (ints(0, 1, -1, 2).reshape(2, 2), "square")):
        case(f"Gather_{name}", node("Gather", "x,i", axis=1), 13, {"i": indices})
    case("GatherElements", node("GatherElements", "x,i", axis=3), 13, {"i": GENERATOR.integers(-7, 7, (2, 4, 6, 3))})
    case("GatherND", node("GatherND", "x,i"), 13, {"i": ints(0, 1, 1, 3).reshape(2, 2)})
    case("ScatterElements", node("ScatterElements", "x,i,u", axis=1), 16, {"i": ints(0, -1).reshape(1, 2, 1, 1), "u": floats(5, 6).reshape(1, 2, 1, 1)})
    case("Expand", node("Expand", "x,s"), 13, {"s": ints(3, 1, 1, 6, 1)})
    case("Expand_constant", [node("Expand", "c,s", "e"), node("Add", "x,e")], 8, {"c": weights(4, 1, 1), "s": ints(4, 6, 7)})
    case("Tile", node("Tile", "x,s"), 13, {"s": ints(1, 2, 1, 3)})
    case("ConstantOfShape", [node("ConstantOfShape", "s", "c"), node("Add", "x,c")], 9, {"s": ints(6, 1)})
    case("ConstantOfShape_value", [node("ConstantOfShape", "s", "c", value=numpy_helper.from_array(floats(2.5))), node("Add", "x,c")], 9, {"s": ints(4, 1, 7)})
    case("Range", [node("Range", "a,b,c", "r"), node("Cast", "r", "f", to=1), node("Add", "x,f")], 11, {"a": np.int64(0), "b": np.int64(14), "c": np.int64(2)})
    case("Range_floats", [node("Range", "a,b,c", "r"), node("Add", "x,r")], 11, {"a": np.float32(0.5), "b": np.float32(4), "c": np.float32(0.5)})
    case("Trilu", node("Trilu", "x"), 14)
    case("Trilu_lower", node("Trilu", "x,k", upper=0), 14, {"k": np.int64(-1)})
    case("DepthToSpace", node("DepthToSpace", blocksize=2), 7, shape=(2, 8, 3, 2))
    for mode in ("DCR", "CRD"):
        case(f"DepthToSpace_{mode}", node("DepthToSpace", blocksize=2, mode=mode), 13, shape=(2, 8, 3, 2))
    case("SpaceToDepth", node("SpaceToDepth", blocksize=2), 13, shape=(2, 3, 4, 6))
    for value in (dict(value_float=1.5), dict(value_floats=[1.0, 2, 3, 4, 5, 6, 7]), dict(value=numpy_helper.from_array(weights(6, 1)))):
        case("Constant_" + next(iter(value)), [node("Constant", [], "c", **value), node("Mul", "x,c")], 13)
    # sizes that the run knows
    for free in ("N", "NHW"):
        case("Shape_flatten", [node("Shape", "x", "s"), node("Gather", "s,z", "b"), node("Unsqueeze", "b", "u", axes=[0]),
                               node("Concat", "u,m", "t", axis=0), node("Reshape", "x,t")], 11, {"z": np.int64(0), "m": ints(-1)}, free=free)
        case("Shape_slice", [node("Shape", "x", "s"), node("Slice", "s,a,b", "h"), node("Concat", "h,m", "t", axis=0), node("Reshape", "x,t")],
             13, {"a": ints(0), "b": ints(2), "m": ints(-1)}, free=free)
        case("Shape_part", [node("Shape", "x", "s", start=-2), node("ReduceProd", "s", "p", keepdims=1), node("Concat", "z,m,p", "t", axis=0),
                            node("Reshape", "x,t")], 15, {"z": ints(0), "m": ints(-1)}, free=free)
        case("Shape_arithmetic", [node("Shape", "x", "s"), node("Gather", "s,one", "c"), node("Div", "c,two", "d"), node("Mul", "d,two", "e"),
                                  node("Sub", "e,c", "f"), node("Add", "f,c", "g"), node("Unsqueeze", "g", "u", axes=[0]),
                                  node("Concat", "zero,u,m", "t", axis=0), node("Reshape", "x,t")], 11,
             {"one": np.int64(1), "two": np.int64(2), "zero": ints(0), "m": ints(-1)}, free=free)
        case("Shape_expand", [node("Shape", "x", "s"), node("Equal", "k,minus", "q"), node("Where", "q,ones,k", "w"), node("ConstantOfShape", "s", "z"),
                              node("Expand", "c,s", "e"), node("Add", "e,z", "f"), node("Add", "f,x")], 13,
             {"k": ints(-1, 4), "minus": ints(-1), "ones": ints(1, 1), "c": weights(4, 1, 1)}, free=free)
        case("Shape_range", [node("Shape", "x", "s"), node("Gather", "s,three", "w"), node("Range", "zero,w,one", "r"), node("Cast", "r", "f", to=1),
                             node("Add", "x,f")], 13, {"three": np.int64(3), "zero": np.int64(0), "one": np.int64(1)}, free=free)
        case("Size", [node("Size", "x", "s"), node("Cast", "s", "f", to=1), node("Div", "x,f")], 13, free=free)
        case("Shape_resize", [node("Shape", "x", "s"), node("Slice", "s,a,b", "h"), node("Mul", "h,two", "d"), node("Slice", "s,z,a", "n"),
                              node("Concat", "n,d", "t", axis=0), node("Resize", ["x", "", "", "t"], "y", mode="linear")], 13,
             {"a": ints(2), "b": ints(4), "z": ints(0), "two": ints(2)}, free=free)
        case("Shape_floats", [node("Shape", "x", "s"), node("Slice", "s,a,b", "h"), node("Cast", "h", "f", to=1), node("Mul", "f,c", "m"),
                              node("Floor", "m", "g"), node("Cast", "g", "d", to=7), node("Slice", "s,z,a", "n"),
                              node("Concat", "n,d", "t", axis=0), node("Resize", ["x", "", "", "t"], "y", mode="linear")], 13,
             {"a": ints(2), "b": ints(4), "z": ints(0), "c": floats(1.5)}, free=free)


def sampling():
    case("Pad", node("Pad", pads=[0, 0, 1, 2, 0, 0, 0, 3], value=0.7), 7)
    case("Pad", node("Pad", "x,p,v"), 11, {"p": ints(0, 1, 1, 2, 0, 0, 0, 3), "v": np.float32(0.7)})
    case("Pad_zero", node("Pad", "x,p"), 13, {"p": ints(0, 0, 1, 2, 0, 0, 0, 3)})
    case("Pad_cut", node("Pad", "x,p"), 13, {"p": ints(0, 0, -1, 2, 0, 0, 0, -3)})
    case("Pad_axes", node("Pad", ["x", "p", "", "a"]), 18, {"p": ints(1, 2, 3, 0), "a": ints(3, -2)})
    for mode in ("reflect", "edge"):
        case(f"Pad_{mode}", node("Pad", "x,p", mode=mode), 13, {"p": ints(0, 0, 1, 2, 0, 0, 0, 3)})
    case("Pad_wrap", node("Pad", "x,p", mode="wrap"), 19, {"p": ints(0, 0, 1, 2, 0, 0, 0, 3)})
    scales = {"s": floats(1, 1, 2, 3), "roi": floats()}
    for mode in ("nearest", "linear"):
        case(f"Upsample_{mode}", node("Upsample", mode=mode, scales=[1.0, 1, 2, 3]), 7)
        case(f"Upsample_{mode}", node("Upsample", "x,s", mode=mode), 9, {"s": scales["s"]})
        case(f"Resize_{mode}", node("Resize", "x,s", mode=mode), 10, {"s": scales["s"]})
        case(f"Resize_{mode}_less", node("Resize", "x,s", mode=mode), 10, {"s": floats(1, 1, 0.6, 0.5)})
    ways = {"nearest": "half_pixel asymmetric align_corners half_pixel_symmetric tf_half_pixel_for_nn",
            "linear": "half_pixel pytorch_half_pixel asymmetric align_corners half_pixel_symmetric",
            "cubic": "half_pixel pytorch_half_pixel asymmetric align_corners"}
    for mode, words in ways.items():
        for way in words.split():
            opset = 11 if way.startswith("tf") else 19 if way.endswith("symmetric") else 13
            # 0.45, because 0.6 puts values in the middle between two others, where rounding decides
            for what, constants in (("up", {"s": floats(1, 1, 2, 3)}), ("down", {"s": floats(1, 1, 0.5, 0.45)})):
                case(f"Resize_{mode}_{way}_{what}", node("Resize", "x,roi,s", mode=mode, coordinate_transformation_mode=way), opset,
                     {**constants, "roi": floats()})
            if opset == 13:
                case(f"Resize_{mode}_{way}_sizes", node("Resize", ["x", "roi", "", "z"], mode=mode, coordinate_transformation_mode=way), opset,
                     {"z": ints(2, 4, 9, 5), "roi": floats()}, free="")
    for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"):
        for way in ("asymmetric", "half_pixel"):
            for s in (floats(1, 1, 1.5, 0.5), floats(1, 1, 2, 2)):
                case(f"Resize_{rounding}_{way}_{s[3]}", node("Resize", "x,roi,s", mode="nearest", nearest_mode=rounding,
                                                               coordinate_transformation_mode=way), 13, {"s": s, "roi": floats()})
    for free in ("N", "NHW"):
        for mode in ("nearest", "linear", "cubic"):
            case(f"Resize_free_{mode}", node("Resize", ["x", "", "s"], mode=mode, coordinate_transformation_mode="half_pixel" if mode != "nearest" else "asymmetric",
                                             nearest_mode="floor"), 13, {"s": floats(1, 1, 2, 2)}, free=free)
    case("Resize_exclude", node("Resize", "x,roi,s", mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5), 13, {"s": floats(1, 1, 2, 3), "roi": floats()})
    case("Resize_axes", node("Resize", ["x", "", "s"], mode="linear", axes=[2, 3]), 18, {"s": floats(2, 3)})
    grid = GENERATOR.uniform(-1.1, 1.1, (2, 5, 4, 2)).astype(np.float32)
    for opset, mode in ((16, "bilinear"), (16, "nearest"), (20, "linear")):
        for around in ("zeros", "border", "reflection"):
            case(f"GridSample_{mode}_{around}", node("GridSample", "x,g", mode=mode, padding_mode=around, align_corners=0), opset, {"g": grid}, free="")


def quantised():
    q = {"s": np.float32(0.02), "z": np.uint8(128), "t": np.float32(0.02), "w": GENERATOR.integers(-127, 128, (3, 4, 1, 1)).astype(np.int8),
         "ws": np.abs(weights(3)) / 100, "wz": np.zeros(3, np.int8)}
    case("DequantizeLinear", [node("DequantizeLinear", "w,ws,wz", "f", axis=0), node("Conv", "x,f")], 13, {k: q[k] for k in ("w", "ws", "wz")})
    case("DequantizeLinear_one", [node("DequantizeLinear", "w,t", "f"), node("Conv", "x,f")], 10, {k: q[k] for k in ("w", "t")})


def functions():
    """A function of the file, within another one."""
    inner = helper.make_function("own", "Scaled", ["a"], ["b"], [helper.make_node("LeakyRelu", ["a"], ["b"])], [helper.make_opsetid("", 18)], ["alpha"])
    inner.node[0].attribute.append(onnx.AttributeProto(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="alpha"))
    outer_node = helper.make_node("Scaled", ["p"], ["q"], domain="own")
    outer_node.attribute.append(onnx.AttributeProto(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope"))
    outer = helper.make_function("own", "Twice", ["p"], ["r"], [outer_node, helper.make_node("Add", ["q", "p"], ["r"])],
                                 [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)], ["slope"])
    graph = helper.make_graph([helper.make_node("Twice", ["x"], ["y"], domain="own", slope=0.3)], "functions",
                              [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *IMAGES[1:]])], [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, functions=[inner, outer], opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("own", 1)])
    model.ir_version = 9
    key, x = images(IMAGES)
    made = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    ARRAYS["functions.onnx"] = np.frombuffer(model.SerializeToString(), np.uint8)
    ARRAYS["functions.input"] = np.frombuffer(f'"{key}"'.encode(), np.uint8)
    ARRAYS["functions.0"] = made


def rounding():
    """Sizes and places that depend on the rounding of 32-bit numbers."""
    wide = (1, 1, 20, 10)
    resize = lambda **options: node("Resize", ["x", "", "s"], mode="nearest", **options)
    for way in ("asymmetric", "half_pixel"):
        for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"):
            for scale in (0.7, 0.6):
                case(f"Resize_{rounding}_{way}_{scale}", resize(coordinate_transformation_mode=way, nearest_mode=rounding), 13,
                     {"s": floats(1, 1, scale, scale)}, shape=wide)
        case(f"Resize_linear_{way}_0.7", node("Resize", ["x", "", "s"], mode="linear", coordinate_transformation_mode=way), 13,
             {"s": floats(1, 1, 0.7, 0.7)}, shape=wide)
    for sizes in ((29, 31), (13, 5), (60, 50)):
        case(f"Resize_sizes_{sizes[0]}", node("Resize", ["x", "", "", "s"], mode="nearest", coordinate_transformation_mode="asymmetric",
                                              nearest_mode="floor"), 13, {"s": ints(1, 1, *sizes)}, shape=wide, free="")
    case("Resize_third", node("Resize", ["x", "", "s"], mode="linear"), 13, {"s": floats(1, 1, 1 / 3, 1 / 3)}, free="NHW")
    # 7 * 1.1 is 7, but these are other values
    case("Resize_same_size", resize(coordinate_transformation_mode="asymmetric", nearest_mode="ceil"), 13, {"s": floats(1, 1, 2, 1.1)})


def edges():
    """What goes beyond the usual: sizes below zero, padding at one side, results of one image."""
    for pads in ([0, 0, 1, 1], [1, 0, 0, 1], [2, 2, 2, 2]):
        for counted in (0, 1):
            for free in ("N", "NHW"):
                case(f"AveragePool_ceil_{''.join(map(str, pads))}_{counted}",
                     node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=pads, ceil_mode=1, count_include_pad=counted), 19, free=free)
    for free in ("N", "NHW"):
        case("MaxPool_ceil_wide", node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[2, 2, 2, 2], ceil_mode=1), 12, free=free)
    t = {"w": weights(4, 3, 1, 1)}
    case("ConvTranspose_larger", node("ConvTranspose", "x,w", strides=[2, 2], output_shape=[12, 14]), 11, t)
    case("ConvTranspose_larger_same", node("ConvTranspose", "x,w", strides=[2, 2], auto_pad="SAME_UPPER"), 11, t, free="NHW")
    case("ConvTranspose_same_free", node("ConvTranspose", "x,w", strides=[2, 3], auto_pad="SAME_LOWER"), 11, {"w": weights(4, 3, 4, 4)}, free="NHW")
    for start, end in ((-99, -1000), (-8, -99), (-7, -8)):
        for free in ("N", "NHW"):
            case(f"Slice_before_{start}", node("Slice", "x,s,e,a,t"), 13, {"s": ints(start), "e": ints(end), "a": ints(3), "t": ints(-1)}, free=free)
    # the scale gives every value an integer, so that none is rounded
    q = {"s": np.float32(1 / 16)}
    case("QuantizeLinear_type", [node("QuantizeLinear", "x,s", "q", output_dtype=3), node("DequantizeLinear", "q,s")], 21, q)
    case("Squeeze_one_image", [node("GlobalAveragePool", "x", "p"), node("Squeeze", "p", "s"), node("Softmax", "s", axis=0)], 13,
         shape=(1, 4, 6, 7), free="")
    g = {"s": ints(-1, 2, 42), "one": floats(1, 2), "zero": floats(0, 0.5), "t": ints(-1, 4, 6, 7)}
    case("GroupNorm_others", [node("Reshape", "x,s", "a"), node("InstanceNormalization", "a,one,zero", "n"), node("Reshape", "n,t")], 13, g)
    for mode in ("constant", "reflect"):
        case(f"Pad_turned_{mode}", [node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node("Pad", "t,p", "u", mode=mode),
                                    node("Transpose", "u", "y", perm=[0, 3, 1, 2])], 13, {"p": ints(0, 1, 2, 0, 0, 3, 0, 0)})
    case("Relu_unsorted", [node("Neg", "r"), node("Relu", "x", "r")], 13)
    case("Reduce_to_one", [node("ReduceMax", "x", "m", keepdims=0), node("Div", "x,m")], 13)
    case("Clip_by_one", [node("ReduceMax", "x", "m", keepdims=0), node("Mul", "m,k", "h"), node("Clip", ["x", "", "h"])], 13, {"k": np.float32(0.5)})
    minus = {"m": ints(-1), "five": ints(5), "z": ints(0), "h": ints(2)}
    negative = [node("Shape", "x", "s"), node("Mul", "s,m", "n")]
    cut = [node("Gather", "e,h", "u"), node("Slice", "x,z,u,h")]
    for free in ("N", "NHW"):
        case("Shape_negative_div", [*negative, node("Div", "n,five", "d"), node("Mul", "d,m", "e"), *cut], 13, minus, free=free)
        case("Shape_negative_mod", [*negative, node("Mod", "n,five", "e"), *cut], 13, minus, free=free)
        case("Shape_negative_fmod", [*negative, node("Mod", "n,five", "d", fmod=1), node("Sub", "d,m", "f"), node("Mul", "f,m", "e0"),
                                     node("Sub", "e0,m", "e"), *cut], 13, minus, free=free)
        case("Shape_mod_of_negative", [node("Shape", "x", "s"), node("Mod", "s,minus_five", "n"), node("Mul", "n,m", "e"), *cut], 13,
             {**minus, "minus_five": ints(-5)}, free=free)
        case("Shape_equal", [node("Shape", "x", "s"), node("Sub", "s,s", "o"), node("Add", "o,m", "b"), node("Equal", "b,m", "q"),
                             node("Where", "q,five,z", "w"), node("Cast", "w", "f", to=1), node("Gather", "f,h", "g"), node("Add", "x,g")], 13,
             minus, free=free)
        case("Shape_equal_flags", [node("Shape", "x", "s"), node("Equal", "s,m", "q"), node("Not", "q", "n"), node("Cast", "n", "f", to=1),
                                   node("Gather", "f,h", "g"), node("Add", "x,g")], 13, minus, free=free)


def left_out():
    """Functions whose second input is left out, or the last ones."""
    clip = helper.make_function("own", "Within", ["a", "b", "c"], ["d"], [node("Clip", "a,b,c", "d")], [helper.make_opsetid("", 18)])
    outer = helper.make_function("own", "Outer", ["a", "b", "c"], ["d"], [helper.make_node("Within", ["a", "b", "c"], ["d"], domain="own")],
                                 [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)])
    for name, inputs in (("left_out", ["x", "", "k"]), ("left_out_short", ["x", "k"])):
        graph = helper.make_graph([helper.make_node("Outer", inputs, ["y"], domain="own")], name,
                                  [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *IMAGES[1:]])],
                                  [onnx.ValueInfoProto(name="y")], [numpy_helper.from_array(np.float32(0.5), "k")])
        model = helper.make_model(graph, functions=[clip, outer], opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("own", 1)])
        model.ir_version = 9
        key, x = images(IMAGES)
        ARRAYS[name + ".onnx"] = np.frombuffer(model.SerializeToString(), np.uint8)
        ARRAYS[name + ".input"] = np.frombuffer(f'"{key}"'.encode(), np.uint8)
        ARRAYS[name + ".0"] = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


def apart():
    """Networks that mix images if they get several: what ONNX Runtime makes of one after the other."""
    conv = [node("Conv", "x,w", "v", pads=[1, 1, 1, 1]), node("Relu", "v", "c")]
    w = {"w": weights(4, 3, 3, 3)}
    halves = {"s": ints(0), "m": ints(4), "e": ints(8), "a": ints(2)}
    half = [node("Slice", "c,s,m,a", "p"), node("Slice", "c,m,e,a", "q"), node("Concat", "p,q", "b", axis=0)]
    pooled = [*half, node("GlobalAveragePool", "b", "g"), node("Reshape", "g,t")]
    einsum = [node("GlobalAveragePool", "c", "p"), node("Einsum", "p", "b", equation="nchw->cnhw"), node("Reshape", "b,t")]
    single = [node("GlobalAveragePool", "c", "p"), node("Squeeze", "p", "s")]
    groups = [node("Reshape", "c,r", "i"), node("InstanceNormalization", "i,one,zero", "n"), node("Reshape", "n,t", "o"),
              node("ReduceMax", "o", "y", axes=[2, 3], keepdims=0)]
    rows = {"one": floats(1, 2), "zero": floats(0, 0.5), "t": ints(1, 4, 8, 8)}
    networks = {
        "halves": (pooled, {**halves, "t": ints(1, 8)}),
        "halves_rest": (pooled, {**halves, "t": ints(-1, 8)}),
        "einsum": (einsum, {"t": ints(1, 4)}),
        "largest": ([*single, node("ReduceMax", "s", "m", axes=[0], keepdims=1), node("Sub", "s,m")], {}),
        "part": ([*single, node("Slice", "s,f,l", "u"), node("Unsqueeze", "u,z")], {"z": ints(0), "f": ints(1), "l": ints(4)}),
        "groups": (groups, {**rows, "r": ints(4, 2, 32)}),
        "groups_rest": (groups, {**rows, "r": ints(-1, 2, 32), "t": ints(-1, 4, 8, 8)}),
    }
    x = weights(3, 3, 8, 8)
    ARRAYS["apart"] = x
    for name, (nodes, constants) in networks.items():
        graph = helper.make_graph(conv + nodes, name, [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
                                  [onnx.ValueInfoProto(name="y")], [numpy_helper.from_array(value, key) for key, value in {**w, **constants}.items()])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="")
        model.ir_version = 8
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        ARRAYS[name + ".network"] = np.frombuffer(model.SerializeToString(), np.uint8)
        ARRAYS[name + ".scores"] = np.stack([session.run(None, {"x": image[None]})[0].reshape(-1) for image in x])


def main():
    onnxruntime.set_default_logger_severity(4)
    for make in (elementwise, layers, pooling, reductions, shapes, sampling, quantised, functions, rounding, edges, left_out, apart):
        make()
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "operators.npz", **ARRAYS)
    print(sum(name.endswith(".onnx") for name in ARRAYS), "cases")


main()

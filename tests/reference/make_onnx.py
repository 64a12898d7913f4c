"""ONNX files -> tests/data/onnx/*.onnx, *.pt and expected.npz.

    python tests/reference/make_onnx.py      # with torch 2.13.0, onnx, onnxscript and onnxruntime

The network Small of make_exported.py and relatives, by both exporters of torch and as others write them, with
PyTorch's scores; and files that must be refused, whose names begin with `bad_`. A file `.pt` is the TorchScript
file of the same network.
"""
import os
import warnings

import numpy as np
import onnx
import torch
from make_exported import Small, filled
from make_networks import build
from onnx import TensorProto, helper, numpy_helper, shape_inference
from torch import nn

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "onnx")
EXPECTED = {}


class Grouped(Small):
    """A group-norm in the middle."""

    def __init__(self):
        super().__init__()
        self.norm = nn.GroupNorm(2, 4)
        self.after = nn.Conv2d(4, 4, 3, padding=1)

    def middle(self, x):
        return self.after(self.norm(x))


class Activated(Small):
    """Activations of newer networks, and a gate."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Conv2d(4, 4, 1)
        self.after = nn.Conv2d(4, 4, 3, padding=1)

    def middle(self, x):
        x = torch.nn.functional.gelu(self.after(torch.nn.functional.hardswish(x)))
        x = x * torch.sigmoid(self.gate(x.mean([2, 3], keepdim=True)))
        return torch.nn.functional.silu(x)


class Padded(Small):
    """An average pool with unequal pads before the classifier."""

    def features(self, x):
        x = super().features(x)
        return torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, (0, 1, 0, 1)), 2, 1)


FREE = [("x", TensorProto.FLOAT, ["N", 3, "H", "W"])]


def path(name):
    return os.path.join(FOLDER, name)


def images(count=4, size=32):
    return torch.from_numpy(np.random.RandomState(9).normal(size=(count, 3, size, size)).astype("float32"))


def score(name, network, x):
    with torch.no_grad():
        EXPECTED[name] = network(x).numpy()


def legacy(network, file, opset, size=32, free=True, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(1, 3, size, size),), path(file), dynamo=False, opset_version=opset, input_names=["images"],
                          output_names=["scores"], dynamic_axes={"images": {0: "batch"}, "scores": {0: "batch"}} if free else None, **options)


def exported(network, file, opset, size=32, external=False):
    """By torch.export. The places in the source are left out: they name this machine's folders."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(network, (torch.zeros(2, 3, size, size),), dynamo=True, opset_version=opset,
                                    dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False)
    model = program.model_proto
    for node in model.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    for values in (model.graph.value_info, model.graph.input, model.graph.output, model.graph.initializer, [model.graph, model]):
        for value in values:
            del value.metadata_props[:]
    del model.graph.value_info[:]
    if external:
        onnx.save(model, path(file), save_as_external_data=True, location=file + ".data", size_threshold=64)
    else:
        onnx.save(model, path(file))


def nhwc(model):
    """As tf2onnx writes networks of Keras: images [N,H,W,C], permutations around each layer of space, and other
    operators on [N,H,W,C]."""
    model = shape_inference.infer_shapes(model)
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in [*model.graph.value_info, *model.graph.input]}
    nodes = []
    for node in model.graph.node:
        made = onnx.NodeProto()
        made.CopyFrom(node)
        of_space = node.op_type in ("Conv", "MaxPool", "GlobalAveragePool", "BatchNormalization")
        if of_space:
            nodes.append(helper.make_node("Transpose", [node.input[0]], [node.output[0] + "_in"], perm=[0, 3, 1, 2], name=node.name + "/in"))
            made.input[0], made.output[0] = node.output[0] + "_in", node.output[0] + "_out"
            nodes += [made, helper.make_node("Transpose", [made.output[0]], [node.output[0]], perm=[0, 2, 3, 1], name=node.name + "/out")]
        else:
            nodes.append(made)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    channels = onnx.TensorShapeProto.Dimension()
    channels.CopyFrom(dims[1])
    del dims[1]
    dims.append(channels)
    del model.graph.value_info[:]
    assert all(rank <= 4 for rank in ranks.values())
    return model


def write_small():
    network, x = filled(Small()).eval(), images()
    EXPECTED["input"] = x.numpy()
    score("small", network, x)
    torch.jit.trace(network, x).save(path("small.pt"))
    for opset in (9, 11, 13, 17, 18):
        legacy(network, f"small_{opset}.onnx", opset)
    for opset in (18, 21):
        exported(network, f"small_export_{opset}.onnx", opset)
    exported(network, "small_external.onnx", 18, external=True)
    onnx.save(nhwc(onnx.load(path("small_13.onnx"))), path("small_nhwc.onnx"))
    # Batch-norms as they are, one image, as Caffe2's: weights among the inputs, and a softmax of [N,K,1,1].
    legacy(network, "small_one.onnx", 9, free=False, keep_initializers_as_inputs=True, training=torch.onnx.TrainingMode.PRESERVE,
           do_constant_folding=False)
    model = onnx.load(path("small_one.onnx"))
    graph = model.graph
    last = graph.node[-1].output[0]
    graph.node[-1].output[0] = "flat"
    shape = numpy_helper.from_array(np.array([1, 10, 1, 1], np.int64), "four")
    graph.initializer.append(shape)
    graph.input.append(helper.make_tensor_value_info("four", TensorProto.INT64, [4]))
    graph.node.extend([helper.make_node("Reshape", ["flat", "four"], ["square"]), helper.make_node("Softmax", ["square"], [last])])
    model.ir_version = 3
    onnx.save(model, path("small_one.onnx"))
    EXPECTED["small_one"] = torch.softmax(torch.from_numpy(EXPECTED["small"]), 1).numpy()
    for name, size in (("free", "size"),):
        model = onnx.load(path("small_17.onnx"))
        for at in (2, 3):
            model.graph.input[0].type.tensor_type.shape.dim[at].dim_param = f"{size}{at}"
        del model.graph.value_info[:]
        onnx.save(model, path(f"small_{name}.onnx"))


def write_relatives():
    x = images()
    for name, kind in (("grouped", Grouped), ("activated", Activated), ("padded", Padded)):
        network = filled(kind()).eval()
        score(name, network, x)
        torch.jit.trace(network, x).save(path(f"{name}.pt"))
        legacy(network, f"{name}_17.onnx", 17)
        exported(network, f"{name}_export.onnx", 20)


def write_networks():
    """Of make_networks.py, whose TorchScript files are in tests/data/networks."""
    x = torch.from_numpy(np.load(os.path.join(FOLDER, "..", "expected", "tiny_resnet.npz"))["input"].astype("float32"))
    for name in ("tiny_shuffle", "tiny_convnext"):
        network = build(name)
        score(name, network, x)
        if name == "tiny_shuffle":
            legacy(network, f"{name}.onnx", 17, size=64)
        else:
            exported(network, f"{name}.onnx", 18, size=64)


def write_quantised():
    """Quantised by ONNX Runtime, as QuantizeLinear and DequantizeLinear: the rectifiers are the ranges of integers."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.rest = iter([{"images": images().numpy()}])

        def get_next(self):
            return next(self.rest, None)

    quantize_static(path("small_13.onnx"), path("quantised.onnx"), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    quantize_static(path("small_13.onnx"), path("bad_integers.onnx"), Reader(), quant_format=QuantFormat.QOperator,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)


def save(name, nodes, constants=None, inputs=(("x", TensorProto.FLOAT, ["N", 3, 16, 16]),), opset=17, change=None, domains=()):
    graph = helper.make_graph(nodes, name, [helper.make_tensor_value_info(*one) for one in inputs], [onnx.ValueInfoProto(name="y")],
                              [numpy_helper.from_array(value, key) for key, value in (constants or {}).items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), *[helper.make_opsetid(*one) for one in domains]])
    model.ir_version = 8
    if change:
        change(model)
    onnx.save(model, path(name + ".onnx"))


def write_pooled():
    """A max-pool with the same size, whose padding depends on the image."""
    w = np.random.RandomState(4).normal(size=(4, 3, 3, 3)).astype("float32")
    save("same_pool", [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["r"]),
                       helper.make_node("MaxPool", ["r"], ["m"], kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
                       helper.make_node("GlobalAveragePool", ["m"], ["p"]), helper.make_node("Flatten", ["p"], ["y"])],
         {"w": w}, inputs=FREE)


def write_bad():
    w = np.random.RandomState(3).normal(size=(4, 3, 3, 3)).astype("float32")
    conv, pool, flat = (helper.make_node("Conv", ["x", "w"], ["c"], name="conv"), helper.make_node("GlobalAveragePool", ["r"], ["p"]),
                        helper.make_node("Flatten", ["p"], ["y"]))
    relu = helper.make_node("Relu", ["c"], ["r"], name="relu")

    def with_node(name, node, constants=None, **options):
        save(name, [conv, node, pool, flat], {"w": w, **(constants or {})}, **options)

    with_node("bad_unknown", helper.make_node("Compressed", ["c"], ["r"], name="/block/odd"))
    with_node("bad_domain", helper.make_node("FusedGelu", ["c"], ["r"], name="gelu", domain="com.microsoft"), domains=[("com.microsoft", 1)])
    branch = helper.make_graph([helper.make_node("Relu", ["c"], ["o"])], "branch", [], [onnx.ValueInfoProto(name="o")])
    with_node("bad_branch", helper.make_node("If", ["flag"], ["r"], name="choice", then_branch=branch, else_branch=branch),
              {"flag": np.array(True)})
    with_node("bad_cycle", helper.make_node("Add", ["c", "p"], ["r"]))
    with_node("bad_missing", helper.make_node("Relu", ["nothing"], ["r"]))
    with_node("bad_opset", relu, opset=6)
    with_node("bad_newer", relu, opset=99)
    with_node("bad_attribute", helper.make_node("LeakyRelu", ["c"], ["r"], alpha="steep"))
    with_node("bad_training", helper.make_node("BatchNormalization", ["c", "s", "s", "s", "s"], ["r"], training_mode=1), {"s": np.ones(4, "float32")})
    with_node("bad_axis", helper.make_node("Softmax", ["c"], ["r"], axis=9))
    with_node("bad_random", helper.make_node("RandomNormalLike", ["c"], ["r"]))
    with_node("bad_two_inputs", relu, inputs=[("x", TensorProto.FLOAT, ["N", 3, 16, 16]), ("z", TensorProto.FLOAT, [1])])
    with_node("bad_bytes", relu, inputs=[("x", TensorProto.UINT8, ["N", 3, 16, 16])])
    with_node("bad_rank", relu, inputs=[("x", TensorProto.FLOAT, ["N", 768])])
    save("bad_no_input", [helper.make_node("Identity", ["w"], ["y"])], {"w": w}, inputs=[])
    with_node("bad_growing", helper.make_node("Add", ["c", "big"], ["r"]), change=lambda model: model.graph.node.insert(
        0, helper.make_node("Expand", ["one", "shape"], ["big"])), constants={"one": np.ones(1, "float32"), "shape": np.array([2**40])})
    with_node("bad_filled", helper.make_node("Add", ["c", "big"], ["r"]), change=lambda model: model.graph.node.insert(
        0, helper.make_node("ConstantOfShape", ["shape"], ["big"])), constants={"shape": np.array([2**20, 2**20])})
    with_node("bad_tiled", helper.make_node("Add", ["c", "big"], ["r"]), change=lambda model: model.graph.node.insert(
        0, helper.make_node("Tile", ["one", "shape"], ["big"])), constants={"one": np.ones(4, "float32"), "shape": np.array([2**50])})

    def outer(model):
        nodes = [helper.make_node("ConstantOfShape", ["column"], ["a"]), helper.make_node("ConstantOfShape", ["row"], ["b"]),
                 helper.make_node("Mul", ["a", "b"], ["big"])]
        for node in reversed(nodes):
            model.graph.node.insert(0, node)

    with_node("bad_outer", helper.make_node("Add", ["c", "big"], ["r"]), change=outer,
              constants={"column": np.array([40000, 1]), "row": np.array([1, 40000])})

    def grow(model):
        """Each constant is twice as long as the one before."""
        nodes = [helper.make_node("Concat", [f"k{i}", f"k{i}"], [f"k{i + 1}"], axis=0) for i in range(40)]
        for node in reversed(nodes):
            model.graph.node.insert(0, node)

    with_node("bad_doubling", helper.make_node("Add", ["c", "k40"], ["r"]), change=grow, constants={"k0": np.ones(1, "float32")})

    def outside(location, offset=None):
        def change(model):
            tensor = model.graph.initializer[0]
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", location), *([("offset", offset)] if offset else [])):
                tensor.external_data.add(key=key, value=value)
        return change

    for name, location in (("parent", "../onnx/small_external.onnx.data"), ("absolute", "/etc/passwd"), ("device", "/dev/zero"),
                           ("absent", "absent.data"), ("folder", "."), ("short", "bad_opset.onnx")):
        with_node(f"bad_external_{name}", relu, change=outside(location, "100000" if name == "short" else None))

    def sized(sizes, kind=None):
        def change(model):
            tensor = model.graph.initializer[0]
            del tensor.dims[:]
            tensor.dims.extend(sizes)
            tensor.data_type = kind or tensor.data_type
        return change

    with_node("bad_sizes", relu, change=sized([2**40, 3, 3, 3]))
    with_node("bad_overflow", relu, change=sized([2**62, 2**62]))
    with_node("bad_negative", relu, change=sized([-4, 3, 3, 3]))
    with_node("bad_float8", relu, change=sized([4, 3, 3, 12], TensorProto.FLOAT8E4M3FN))
    with_node("bad_texts", relu, change=sized([4, 3, 3, 3], TensorProto.STRING))

    def recursive(model):
        function = helper.make_function("own", "Again", ["a"], ["b"], [helper.make_node("Again", ["a"], ["b"], domain="own")],
                                        [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)])
        model.functions.append(function)

    with_node("bad_recursion", helper.make_node("Again", ["c"], ["r"], domain="own"), change=recursive, domains=[("own", 1)])

    def bursting(model):
        """Each function calls the one before ten times."""
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        model.functions.append(helper.make_function("own", "F0", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets))
        for i in range(1, 10):
            calls = [helper.make_node(f"F{i - 1}", [f"v{j}" if j else "a"], [f"v{j + 1}" if j < 9 else "b"], domain="own") for j in range(10)]
            model.functions.append(helper.make_function("own", f"F{i}", ["a"], ["b"], calls, opsets))

    with_node("bad_bursting", helper.make_node("F9", ["c"], ["r"], domain="own"), change=bursting, domains=[("own", 1)])

    def after(*nodes):
        """Nodes behind the convolution."""
        def change(model):
            for node in reversed(nodes):
                model.graph.node.insert(1, node)
        return change

    ints = lambda *numbers: np.array(numbers, np.int64)
    resize = lambda x, sizes, scales="": helper.make_node("Resize", [x, "", scales, sizes], ["r"], mode="nearest")
    with_node("bad_resized_none", resize("e", "s"), {"z": ints(0), "a": ints(2), "s": ints(1, 4, 5, 5)},
              change=after(helper.make_node("Slice", ["c", "z", "z", "a"], ["e"])))
    with_node("bad_resized_huge", resize("c", "s"), {"s": ints(1, 4, 2**45, 5)})
    with_node("bad_channels", helper.make_node("DepthToSpace", ["u"], ["r"], blocksize=2), {"k": ints(1, 2**38, 1, 1)},
              change=after(helper.make_node("Tile", ["c", "k"], ["u"])))
    with_node("bad_listed", helper.make_node("Reshape", ["c", "s40"], ["r"]),
              change=after(helper.make_node("Shape", ["c"], ["s0"]),
                           *[helper.make_node("Concat", [f"s{i}"] * 2, [f"s{i + 1}"], axis=0) for i in range(40)]))
    with_node("bad_einsum", helper.make_node("Add", ["c", "e"], ["r"]), {"k": ints(30000, 4)},
              change=after(helper.make_node("ConstantOfShape", ["k"], ["a"]),
                           helper.make_node("Einsum", ["a"] * 4, ["e"], equation="ai,bi,ai,bi->")))

    def counting(model):
        """Each function calls the one before twelve times; the first one adds lists of 64 sizes."""
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        model.functions.append(helper.make_function("own", "F0", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], opsets))
        for i in range(1, 4):
            calls = [helper.make_node(f"F{i - 1}", ["a"], [f"v{j + 1}" if j < 11 else "b"], domain="own") for j in range(12)]
            model.functions.append(helper.make_function("own", f"F{i}", ["a"], ["b"], calls, opsets))
        after(helper.make_node("Shape", ["c"], ["s"]), helper.make_node("Concat", ["s"] * 16, ["l"], axis=0))(model)

    with_node("bad_counting", helper.make_node("F3", ["l"], ["r"], domain="own"), change=counting, domains=[("own", 1)], inputs=FREE)
    with_node("bad_unsigned", relu, change=sized([4, 3, 3, 3], TensorProto.UINT32))
    with_node("bad_unsigned_cast", helper.make_node("Cast", ["c"], ["r"], to=TensorProto.UINT16))
    with_node("bad_dilated", helper.make_node("MaxPool", ["c"], ["r"], kernel_shape=[3, 3], dilations=[2, 2], auto_pad="SAME_UPPER"))
    with_node("bad_larger", helper.make_node("ConvTranspose", ["c", "k"], ["r"], strides=[2, 2], output_shape=[40, 40]),
              {"k": np.ones((4, 3, 1, 1), "float32")})
    fit = [helper.make_node("Flatten", ["c"], ["f"]), helper.make_node("Gemm", ["f", "k"], ["g"], name="classifier"),
           helper.make_node("Softmax", ["g"], ["y"])]
    save("bad_one_size", [conv, *fit], {"w": w, "k": np.ones((4 * 6 * 6, 5), "float32")}, inputs=FREE)
    # heights are the second dimension, and unknown
    turned = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), helper.make_node("Conv", ["t", "w"], ["c"], name="conv"),
              helper.make_node("Transpose", ["c"], ["h"], perm=[0, 2, 3, 1]), resize("h", "", "k"), pool, flat]
    save("bad_resized_free", turned, {"w": w, "k": np.array([1, 2, 1, 1], np.float32)}, inputs=[("x", TensorProto.FLOAT, ["N", "H", 16, 3])])
    whole = open(path("small_17.onnx"), "rb").read()
    for name, bytes_ in (("cut", whole[: len(whole) // 2]), ("flipped", whole[:300] + b"\xff" * 40 + whole[340:])):
        with open(path(f"bad_{name}.onnx"), "wb") as file:
            file.write(bytes_)


def main():
    os.makedirs(FOLDER, exist_ok=True)
    torch.manual_seed(28)
    write_small()
    write_relatives()
    write_networks()
    write_quantised()
    write_pooled()
    write_bad()
    np.savez(path("expected.npz"), **EXPECTED)


if __name__ == "__main__":
    main()

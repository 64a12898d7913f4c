"""Files of torch.export.save -> tests/data/exported/*.pt2, *.pt and expected.npz.

    python tests/reference/make_exported.py            # with torch 2.13.0: everything
    python tests/reference/make_exported.py            # with another torch, 2.5 or later: its own files

Every torch writes the network Small as `torch_2_13_training.pt2` and so on: as `training`, `aten` and `core`
operators. Its weights are NumPy's, the same in each. The other files are written by torch 2.13.0: networks of
make_networks.py with the same weights, networks with one property each, and those whose names begin with
`bad_`, which must be refused. A file `.pt` is the TorchScript file of the same network, and `expected.npz`
has the scores in PyTorch 2.13.0 (eager), and its scores in other versions.
Needs NumPy.
"""
import io
import json
import os
import struct
import sys
import zipfile

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.join(HERE, "..", "data", "exported")
RELEASE = tuple(int(part) for part in torch.__version__.split(".")[:2])
# Of make_networks.py. Others would be too large.
NETWORKS = ["tiny_inception", "tiny_mobilenet", "tiny_dense", "tiny_shuffle", "tiny_convnext"]
CLASSES = 10
BATCH = ({0: torch.export.Dim("batch")},)
ABOUT = json.dumps({"image_size": [32, 32], "mean": [0.5], "std": [0.25], "labels": list("abcdefghij")})


# --- networks ---------------------------------------------------------------------------------------------


class Block(nn.Module):
    """A residual sum in place."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.bn(self.conv(x))
        out += x
        return self.relu(out)


class Small(nn.Module):
    """The operators of a ResNet."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Block(4))
        self.layer2 = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU(inplace=True))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(6, CLASSES)

    def middle(self, x):
        return x

    def features(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer2(self.middle(self.layer1(x)))

    def forward(self, x):
        return self.fc(self.dropout(torch.flatten(self.avgpool(self.features(x)), 1)))


class Tied(Small):
    """Two layers with the same weights."""

    def __init__(self):
        super().__init__()
        self.layer1.append(Block(4))
        self.layer1[1].conv.weight = self.layer1[0].conv.weight


class Lifted(Small):
    """Constants that its code makes."""

    def middle(self, x):
        return x * torch.tensor([0.5, 1.0, 1.5, 2.0]).view(1, 4, 1, 1) + torch.tensor(0.25)


class Buffers(Small):
    """Buffers of several number formats, in the file of weights and not, views of one storage, one without
    dimensions and one without values."""

    def __init__(self):
        super().__init__()
        numbers = np.random.RandomState(7)
        both = torch.from_numpy(numbers.uniform(0.5, 1.5, 16).astype("float32"))
        self.register_buffer("scale", both[2:10:2].view(4, 1, 1))
        self.register_buffer("shift", both[12:].view(4, 1, 1), persistent=False)
        self.register_buffer("factor", torch.tensor(0.75))
        self.register_buffer("nothing", torch.zeros(0, 4))
        self.register_buffer("mask", torch.tensor([True, False, True, True]).view(4, 1, 1))
        self.register_buffer("order", torch.tensor([3, 2, 1, 0]), persistent=False)
        self.register_buffer("steps", torch.arange(-2, 2, dtype=torch.int8).view(4, 1, 1))
        self.register_buffer("bfloat", both[:4].to(torch.bfloat16).view(4, 1, 1))
        self.register_buffer("short", both[4:8].to(torch.float16).view(4, 1, 1), persistent=False)

    def middle(self, x):
        x = x.index_select(1, self.order) * self.scale + self.shift * self.factor
        return x * self.mask + self.bfloat.to(x.dtype) + self.short.to(x.dtype) + 0.125 * self.steps


class Standardised(Small):
    """A convolution whose weights its code normalises, as timm's ScaledStdConv2d does."""

    def __init__(self):
        super().__init__()
        self.std = nn.Conv2d(4, 4, 3, padding=1)
        self.gain = nn.Parameter(torch.tensor([0.5, 0.75, 1.0, 1.25]).view(4, 1, 1, 1))

    def middle(self, x):
        weight = self.std.weight.reshape(1, 4, -1)
        weight = F.batch_norm(weight, None, None, self.gain.view(-1), training=True, momentum=0.0, eps=1e-6)
        return F.conv2d(x, weight.reshape_as(self.std.weight), self.std.bias, padding=1)


class Sizes(Small):
    """Sizes of a tensor are computed with: shuffled channels, and an upsampling to the size of another."""

    def middle(self, x):
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        small = F.avg_pool2d(x, 2)
        return x + F.interpolate(small, size=x.shape[2:], mode="nearest")


class Sliced(Small):
    """Parts of a tensor, as brackets write them."""

    def middle(self, x):
        return torch.cat([x[:, 2:], x[:, :2] * 0.5], 1) + x[:, 1:2, :, :] + x[:, [3, 0, 1, 2]]


class Tuple(Small):
    """Features after the scores."""

    def forward(self, x):
        features = self.features(x)
        return self.fc(torch.flatten(self.avgpool(features), 1)), features


class Named(Small):
    """Features and scores by name."""

    def forward(self, x):
        features = self.features(x)
        return {"features": features, "logits": self.fc(torch.flatten(self.avgpool(features), 1))}


class Branches(Small):
    """Two branches that begin with the same operator."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.ReLU(), nn.ReLU()

    def middle(self, x):
        x = x - 0.5
        return self.one(x) + self.two(x) * 0.5


class Rows(Small):
    """The features, as rows, go on by a view whose sizes are constants."""

    def forward(self, x):
        return self.fc(self.features(x).view(-1, 6, 16).mean(2))


class Flags(Small):
    """Flags, as masks and as numbers. TorchScript knows no flags as numbers."""

    def middle(self, x):
        large = x > 0.1
        some = torch.where(large, x < 0.9, False)
        return x * (large & some) + (~some).float() * 0.25


class Compared(Small):
    """A comparison in place keeps the number format; of flags, the sum would be "or"."""

    def middle(self, x):
        large = x.clone()
        large.gt_(0.3)
        return x + (large + large)


class Unordered(Small):
    """A linear layer on [N,h,w,C] that is not contiguous, which run_decompositions() makes a bmm."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def middle(self, x):
        return self.mix(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Wide(Small):
    """Normalisations, and layers that take [N,h,w,C], which run_decompositions() takes apart."""

    def __init__(self):
        super().__init__()
        self.inst = nn.InstanceNorm2d(4, affine=True)
        self.norm = nn.LayerNorm(4)
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4, bias=False)
        self.group = nn.GroupNorm(2, 4)

    def middle(self, x):
        x = self.inst(x)
        rows = self.norm(x.permute(0, 2, 3, 1))
        return self.group(x + self.down(F.gelu(self.up(rows))).permute(0, 3, 1, 2))


FEATURES = {
    "branches": Branches,
    "flags": Flags,
    "compared": Compared,
    "rows": Rows,
    "unordered": Unordered,
    "wide": Wide,
    "tied": Tied,
    "lifted": Lifted,
    "buffers": Buffers,
    "standardised": Standardised,
    "sizes": Sizes,
    "sliced": Sliced,
    "tuple": Tuple,
    "named": Named,
}


def filled(network, seed=24):
    """Weights from NumPy's generator, and statistics that differ from channel to channel."""
    numbers = np.random.RandomState(seed)
    done = set()
    with torch.no_grad():
        for module in network.modules():
            for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                if id(tensor) in done or isinstance(module, Small) or not tensor.is_floating_point():
                    continue
                done.add(id(tensor))
                shape = tuple(tensor.shape)
                if tensor.ndim > 1:
                    values = numbers.normal(size=shape) * (2 / np.prod(shape[1:])) ** 0.5
                elif name == "weight" or name == "running_var":
                    values = numbers.uniform(0.5, 1.5, shape)
                else:
                    values = numbers.normal(size=shape) * 0.2
                tensor.copy_(torch.from_numpy(values))
    return network.eval()


def example(count):
    numbers = np.random.RandomState(25)
    return torch.from_numpy(numbers.normal(size=(count, 3, 32, 32)).astype("float32"))


def scores(network, images):
    with torch.no_grad():
        out = network(images)
    out = out["logits"] if isinstance(out, dict) else out
    return (out[0] if isinstance(out, tuple) else out).numpy()


# --- files ------------------------------------------------------------------------------------------------


def archive_of(program, **options):
    content = io.BytesIO()
    torch.export.save(program, content, **options)
    return content


def exported(network, images, dynamic=BATCH, core=False):
    with torch.no_grad():
        program = torch.export.export(network, images, dynamic_shapes=dynamic)
        return archive_of(program.run_decompositions() if core else program)


def is_program(place):
    return place in ("models/model.json", "serialized_exported_program.json")


def slimmed(data, with_sizes=False):
    """A description without notes of Python files (they have the paths of this machine) and, but for
    `with_sizes`, without the sizes of values inside the network."""
    program = json.loads(data)
    program.pop("guards_code", None)
    whole = [call for call in program["graph_module"]["module_call_graph"] if call["fqn"] == ""]
    program["graph_module"]["module_call_graph"] = whole  # has the names of what is returned
    graph = program["graph_module"]["graph"]
    specs = program["graph_module"]["signature"]["input_specs"]
    given = [spec["user_input"]["arg"]["as_tensor"]["name"] for spec in specs if "user_input" in spec]
    if not with_sizes:
        graph["tensor_values"] = {name: graph["tensor_values"][name] for name in given}
    keep_modules(program)
    return program


def keep_modules(part):
    """Leaves nothing but the modules in the notes of operators, also of those in inner graphs."""
    for value in part.values() if isinstance(part, dict) else part:
        if isinstance(value, dict) and "nn_module_stack" in value:
            stack = value["nn_module_stack"]
            value.clear()
            value["nn_module_stack"] = stack
        elif isinstance(value, dict) and "stack_trace" in value:
            value.clear()
        elif isinstance(value, (dict, list)):
            keep_modules(value)


def entries(content):
    """The entries below the archive's own folder, but for example inputs."""
    with zipfile.ZipFile(content) as old:
        names = old.namelist()
        roots = {name.split("/", 1)[0] for name in names}
        skip = len(roots.pop()) + 1 if len(roots) == 1 and "/" in names[0] else 0
        for name in names:
            if "sample_inputs" not in name and "example_inputs" not in name:
                yield name[skip:], old.read(name)


def store(content, name, packed=False, with_sizes=False):
    """Stores an archive as PyTorch does, or compressed."""
    path = os.path.join(FOLDER, name)
    own = {"version", "byteorder", ".data/version", ".data/serialization_id"}
    kept = []
    for place, data in entries(content):
        if is_program(place):
            data = json.dumps(slimmed(data, with_sizes), separators=(",", ":")).encode()
        kept.append((place, data))
    is_old = all(place != "models/model.json" for place, _ in kept)
    if not (packed or is_old):
        writer = torch._C.PyTorchFileWriter(path)
        for place, data in kept:
            if place not in own:
                writer.write_record(place, data, len(data))
        writer.write_end_of_file()
    else:
        folder = "" if is_old else os.path.splitext(name)[0] + "/"
        with zipfile.ZipFile(path, "w") as archive:
            for place, data in kept:
                write(archive, folder + place, data, packed)
    report(path)


def store_old(program, name):
    """Stores a program in the layout of torch 2.5 to 2.7, which cannot export every network."""
    parts = {
        "serialized_exported_program.json": slimmed(dict(entries(archive_of(program)))["models/model.json"]),
        "serialized_state_dict.pt": program.state_dict,
        "serialized_constants.pt": program.constants,
    }
    path = os.path.join(FOLDER, name)
    with zipfile.ZipFile(path, "w") as archive:
        for place, part in parts.items():
            content = io.BytesIO()
            if place.endswith(".pt"):
                torch.save(part, content)
            else:
                content.write(json.dumps(part).encode())
            write(archive, place, content.getvalue(), packed=True)
    report(path)


def write(archive, name, data, packed):
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    archive.writestr(zipfile.ZipInfo(name), data, kind, 9)


def rewritten(content, name, change=lambda program: None, drop=(), replace=None):
    """Stores an archive with another description, compressed."""
    folder = os.path.splitext(name)[0]
    with zipfile.ZipFile(os.path.join(FOLDER, name), "w") as new:
        for place, data in entries(content):
            if place in drop:
                continue
            if place == "models/model.json":
                program = slimmed(data)
                change(program)
                data = json.dumps(program, separators=(",", ":")).encode()
            data = (replace or {}).get(place, data)
            write(new, f"{folder}/{place}", data, packed=True)
    report(os.path.join(FOLDER, name))


def report(path):
    print(f"{os.path.getsize(path) / 1000:7.1f} kB  {os.path.basename(path)}")


def nodes(program):
    return program["graph_module"]["graph"]["nodes"]


def save_expected(arrays):
    """Adds arrays to expected.npz."""
    path = os.path.join(FOLDER, "expected.npz")
    known = dict(np.load(path)) if os.path.exists(path) else {}
    np.savez_compressed(path, **{**known, **arrays})


def write_versions():
    """The network Small by this version of torch, in its three dialects."""
    network, images = filled(Small()), example(2)
    name = "torch_{}_{}".format(*RELEASE)
    export = getattr(torch.export, "export_for_training" if RELEASE < (2, 7) else "export")
    with torch.no_grad():
        training = export(network, (images,), dynamic_shapes=BATCH)
        if RELEASE < (2, 7):
            aten = torch.export.export(network, (images,), dynamic_shapes=BATCH)
        else:
            aten = training.run_decompositions({})
        store(archive_of(training, extra_files={"prism.json": ABOUT}), f"{name}_training.pt2")
        store(archive_of(aten), f"{name}_aten.pt2", packed=True)
        store(archive_of(training.run_decompositions()), f"{name}_core.pt2", packed=True)
    save_expected({name: scores(network, images)})


def write_features():
    """Small in several number formats and memory formats, and networks with one property each."""
    from make_networks import save_traced

    images = example(2)

    def both(name, network):
        store(exported(network, (images,)), f"{name}.pt2", packed=True)
        path = os.path.join(FOLDER, f"{name}.pt")
        save_expected({name: scores(network, images)})
        if isinstance(network, Flags):
            return
        if isinstance(network, Named):
            torch.jit.save(torch.jit.script(network), path)
        else:
            save_traced(torch.jit.trace(network, images), path)

    both("small", filled(Small()))
    for name, network in FEATURES.items():
        both(name, filled(network()))
    for name in ["wide", "unordered"]:
        core = exported(filled(FEATURES[name]()), (images,), core=True)
        store(core, f"{name}_core.pt2", packed=True, with_sizes=True)
    store_old(torch.export.export(filled(Buffers()), (images,), dynamic_shapes=BATCH), "buffers_old.pt2")
    # That of "small".
    store(exported(filled(Small()), (images[:1],), None), "static_one.pt2", packed=True)
    double = filled(Small().double())
    store(exported(double, (images.double(),)), "double.pt2", packed=True)
    last = filled(Small()).to(memory_format=torch.channels_last)
    store(exported(last, (images,)), "channels_last.pt2", packed=True)
    # Prism computes in float32 with the rounded weights.
    half = filled(Small()).half()
    store(exported(half, (images.half(),)), "half.pt2", packed=True)
    half = half.float()
    save_traced(torch.jit.trace(half, images), os.path.join(FOLDER, "half.pt"))
    save_expected({"input": images.numpy(), "half": scores(half, images)})


def write_networks():
    """Networks of make_networks.py."""
    from make_networks import PlainTuple, build

    images = torch.from_numpy(np.load(os.path.join(FOLDER, "..", "expected", "tiny_resnet.npz"))["input"])
    arrays = {}
    for name in NETWORKS:
        network = PlainTuple(build(name)).eval() if name == "tiny_inception" else build(name)
        store(exported(network, (images,)), f"{name}.pt2", packed=True)
        arrays[name] = scores(network, images)
    # Sizes and strides tell what its as_strided does.
    core = exported(build("tiny_convnext"), (images,), core=True)
    store(core, "tiny_convnext_core.pt2", packed=True, with_sizes=True)
    save_expected(arrays)


# --- files that must be refused ---------------------------------------------------------------------------


def write_bad():
    torch.manual_seed(24)
    images = example(4)

    class Branches(nn.Module):
        def forward(self, x):
            x = torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))
            return x.mean([2, 3])

    class TwoInputs(nn.Module):
        def forward(self, x, y):
            return (x + y).mean([2, 3])

    class Random(nn.Module):
        def forward(self, x):
            return (x + torch.rand_like(x)).mean([2, 3])

    two = (images[:2], images[:2])
    rewritten(exported(Branches(), (images[:2],), None), "bad_branches.pt2")
    rewritten(exported(TwoInputs(), two, None), "bad_two_inputs.pt2")
    rewritten(exported(Random(), (images[:2],), None), "bad_random.pt2")
    training = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    rewritten(exported(training, (images[:2],), None), "bad_training.pt2")
    statistics = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    rewritten(exported(statistics, (images[:2],), None), "bad_statistics.pt2")

    plain = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    content = exported(plain, (images[:2],))
    weights = "data/weights/model_weights_config.json"
    with zipfile.ZipFile(content) as archive:
        config = archive.read(next(name for name in archive.namelist() if name.endswith(weights)))

    def with_weights(name, change):
        tensors = json.loads(config)
        change(tensors["config"]["0.weight"])
        rewritten(content, name, replace={weights: json.dumps(tensors).encode()})

    def target(name, target, inputs=None):
        def change(program):
            node = nodes(program)[1]
            node["target"] = target
            node["inputs"] = node["inputs"] if inputs is None else inputs

        rewritten(content, name, change)

    def with_meta(name, **fields):
        with_weights(name, lambda tensor: tensor["tensor_meta"].update(fields))

    text = [{"name": "filename", "arg": {"as_string": "/etc/passwd"}, "kind": 1}]
    target("bad_from_file.pt2", "torch.ops.aten.from_file.default", text)
    target("bad_foreign.pt2", "torch.ops.torchvision.nms.default")
    target("bad_unknown.pt2", "torch.ops.aten.relu\nx.default")
    target("bad_resize.pt2", "torch.ops.aten.resize_.default")
    target("bad_set.pt2", "torch.ops.aten.set_.source_Tensor")
    target("bad_lacks.pt2", "torch.ops.aten.conv2d.default", [])
    target("bad_kind.pt2", "torch.ops.aten.relu.default", [{"name": "self", "arg": {"as_ints": [1]}, "kind": 1}])

    def cycle(program):
        nodes(program)[0], nodes(program)[1] = nodes(program)[1], nodes(program)[0]

    rewritten(content, "bad_cycle.pt2", cycle)
    rewritten(content, "bad_version.pt2", lambda program: program["schema_version"].update(major=9))
    many = [{"as_int": 2**40}, {"as_int": 3}, {"as_int": 3}, {"as_int": 3}]
    with_meta("bad_repeats.pt2", sizes=many, strides=[{"as_int": 0}] * 4)
    with_meta("bad_sizes.pt2", sizes=many)
    with_meta("bad_strides.pt2", strides=[{"as_int": -27}, {"as_int": 9}, {"as_int": 3}, {"as_int": 1}])
    with_meta("bad_offset.pt2", storage_offset={"as_int": 1})
    with_weights("bad_pickled.pt2", lambda tensor: tensor.update(use_pickle=True))
    with_weights("bad_escape.pt2", lambda tensor: tensor.update(path_name="../../../etc/passwd"))
    rewritten(content, "bad_no_weights.pt2", drop=[weights])
    rewritten(content, "bad_json.pt2", replace={"models/model.json": b'{"graph_module": Infinity}'})
    nested = b'{"graph_module":' + b"[" * 10_000
    rewritten(content, "bad_nested.pt2", replace={"models/model.json": nested})
    with zipfile.ZipFile(os.path.join(FOLDER, "bad_machine_code.pt2"), "w") as archive:
        archive.writestr(zipfile.ZipInfo("net/data/aotinductor/model/model.so"), b"")

    def renamed(program):
        program["graph_module"]["signature"]["input_specs"][0]["parameter"]["parameter_name"] = "a\nb" + "x" * 10_000

    rewritten(content, "bad_name.pt2", renamed)
    with_meta("bad_complex.pt2", dtype=10)
    with_meta("bad_float8.pt2", dtype=29)
    with_meta("bad_uint16.pt2", dtype=28)
    with_meta("bad_format.pt2", dtype=99)
    rewritten(content, "bad_order.pt2", replace={"byteorder": b"big"})
    before = {"schema_version": {"major": 5, "minor": 3}, "torch_version": "2.4.1"}
    rewritten(content, "bad_before.pt2", replace={"models/model.json": json.dumps(before).encode()})
    with zipfile.ZipFile(os.path.join(FOLDER, "bad_two_networks.pt2"), "w") as archive:
        for name in ("cats", "dogs"):
            archive.writestr(zipfile.ZipInfo(f"net/models/{name}.json"), b"{}")
    # Damage to the archive itself: a changed byte, and an entry that states a length of 2 GiB.
    path = os.path.join(FOLDER, "bad_byte.pt2")
    store(content, "bad_byte.pt2")
    with open(path, "r+b") as file:
        data = file.read()
        file.seek(data.index(plain[0].weight.detach().numpy().tobytes()))
        file.write(b"\xff")
    rewritten(content, "bad_packed.pt2", replace={"models/model.json": b" " * 2_000_000 + b"{}"})
    with zipfile.ZipFile(os.path.join(FOLDER, "bad_length.pt2"), "w") as archive:
        archive.writestr(zipfile.ZipInfo("net/models/model.json"), b"{}")
        archive.infolist()[0].file_size = archive.infolist()[0].compress_size = 2**31 - 1

    # As torch 2.5 to 2.7 write it.
    old_program = slimmed(dict(entries(content))["models/model.json"])
    old_program["schema_version"] = {"major": 7, "minor": 3}

    def old(name, change=lambda weights: weights, cut=None, description=json.dumps(old_program).encode()):
        state = io.BytesIO()
        torch.save(change(dict(plain.state_dict())), state)
        with zipfile.ZipFile(os.path.join(FOLDER, name), "w") as archive:
            write(archive, "serialized_exported_program.json", description, packed=True)
            write(archive, "serialized_state_dict.pt", state.getvalue()[:cut], packed=True)
            write(archive, "serialized_constants.pt", b"", packed=True)
        report(os.path.join(FOLDER, name))

    def with_weight(weight):
        return lambda weights: {**weights, "0.weight": weight}

    old("bad_old.pt2", description=b"{}")
    old("bad_old_complex.pt2", with_weight(plain[0].weight.detach().to(torch.complex64)))
    old("bad_old_uint16.pt2", with_weight(torch.zeros(4, 3, 3, 3, dtype=torch.uint16)))
    old("bad_old_float8.pt2", with_weight(torch.zeros(4, 3, 3, 3, dtype=torch.float8_e5m2)))
    old("bad_old_repeats.pt2", with_weight(torch.zeros(1).expand(2**20, 3, 9, 9)))
    old("bad_old_code.pt2", with_weight(Code()))
    old("bad_old_cut.pt2", cut=-100)
    old("bad_old_empty.pt2", cut=0)


class Code:
    """Code that runs when its pickle is read."""

    def __reduce__(self):
        return print, ("this code was run",)


def main():
    os.makedirs(FOLDER, exist_ok=True)
    write_versions()
    if RELEASE == (2, 13):
        write_features()
        write_networks()
        write_bad()


if __name__ == "__main__":
    main()

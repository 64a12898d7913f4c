"""Files of torch.export.save -> tests/data/exported/*.pt2 and expected.npz.

    python tests/reference/make_exported.py

The networks are those of make_networks.py, with the same weights, so that everything that is read of a
file must be what is read of the TorchScript file. `expected.npz` has their scores in PyTorch (eager). The
files whose names begin with `bad_` must be refused.
Needs torch 2.13.0 and numpy.
"""
import io
import json
import os
import zipfile

import numpy as np
import torch
from torch import nn

from make_networks import PlainTuple, build

FOLDER = os.path.join(os.path.dirname(__file__), "..", "data", "exported")
NETWORKS = ["tiny_vgg", "tiny_resnet", "tiny_inception", "tiny_mobilenet", "tiny_dense", "tiny_shuffle", "tiny_convnext"]
CORE = ["tiny_vgg", "tiny_resnet", "tiny_convnext"]  # also as run_decompositions() leaves them
BATCH = ({0: torch.export.Dim("batch")},)


def rewritten(content, name, change=lambda program: None, drop=(), replace=None):
    """Stores an archive with another description. Notes of Python files are left out: they have the paths of
    this machine. So are example inputs."""
    folder = os.path.splitext(name)[0]
    with zipfile.ZipFile(content) as old, zipfile.ZipFile(os.path.join(FOLDER, name), "w") as new:
        for entry in old.namelist():
            place = entry.split("/", 1)[1]
            data = old.read(entry)
            if "sample_inputs" in place or place in drop:
                continue
            if place == "models/model.json":
                program = json.loads(data)
                program["guards_code"] = []
                for node in program["graph_module"]["graph"]["nodes"]:
                    node["metadata"] = {"nn_module_stack": node["metadata"]["nn_module_stack"]}
                change(program)
                data = json.dumps(program, separators=(",", ":")).encode()
            data = (replace or {}).get(place, data)
            new.writestr(zipfile.ZipInfo(f"{folder}/{place}"), data)


def exported(network, images, dynamic=BATCH, core=False):
    content = io.BytesIO()
    with torch.no_grad():
        program = torch.export.export(network, images, dynamic_shapes=dynamic)
        torch.export.save(program.run_decompositions() if core else program, content)
    return content


def nodes(program):
    return program["graph_module"]["graph"]["nodes"]


def main():
    os.makedirs(FOLDER, exist_ok=True)
    expected = np.load(os.path.join(FOLDER, "..", "expected", "tiny_resnet.npz"))
    images = torch.from_numpy(expected["input"])
    arrays = {"input": images.numpy()}
    for name in NETWORKS:
        network = PlainTuple(build(name)).eval() if name == "tiny_inception" else build(name)
        rewritten(exported(network, (images,)), f"{name}.pt2")
        with torch.no_grad():
            scores = network(images)
            arrays[name] = (scores[0] if isinstance(scores, tuple) else scores).numpy()
    rewritten(exported(build("tiny_vgg"), (images[:1],), None), "static_one.pt2")
    for name in CORE:
        rewritten(exported(build(name), (images,), core=True), f"{name}_core.pt2")
    np.savez_compressed(os.path.join(FOLDER, "expected.npz"), **arrays)

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
    with zipfile.ZipFile(os.path.join(FOLDER, "bad_old.pt2"), "w") as archive:
        archive.writestr(zipfile.ZipInfo("serialized_exported_program.json"), b"{}")


if __name__ == "__main__":
    main()

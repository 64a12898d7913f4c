"""Reference scores of every zoo network, on weights that need no file.

    python make_zoo_logits.py [NAME ...] > ../data/zoo_logits.json

Needs torch 2.13.0, torchvision 0.28.0 and efficientnet_lite_pytorch 0.1.0. Every tensor of a state dict, and
the input, is filled from a splitmix64 stream seeded with the FNV-1a hash of its name, in float32
steps that any language can repeat to the bit; tests/it/zoo.rs does the same.
"""
import json
import math
import sys
import numpy as np
import torch
from torchvision import models

torch.set_num_threads(2)
TORCHVISION = """alexnet densenet121 densenet161 densenet169 densenet201 googlenet inception_v3 mobilenet_v2
resnet18 resnet34 resnet50 resnet101 resnet152 squeezenet1_0 squeezenet1_1
vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn""".split()
LITE = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
SECOND = (160, 192)


def gain(name):
    """He's gain for networks of plain convolutions; less where residual sums or dense
    concatenation would let the activations grow (and saturate ReLU6)."""
    plain = ("alexnet", "vgg", "squeezenet", "googlenet", "inception")
    return math.sqrt(2.0) if name.startswith(plain) else 1.0


def uniform(name, count):
    """`count` float32 values in [0, 1): the top 24 bits of splitmix64, seeded by the name."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    z = np.arange(1, count + 1, dtype=np.uint64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64(seed)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float32) * np.float32(2.0 ** -24)


def fill(net, gain):
    for name, tensor in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        u = uniform(name, tensor.numel())
        if tensor.dim() >= 2:
            fan_in = tensor.numel() // tensor.shape[0]
            v = (u * np.float32(2) - np.float32(1)) * np.float32(math.sqrt(3.0 / fan_in) * gain)
        elif name.endswith("running_var") or name.endswith("weight"):
            v = u + np.float32(0.5)
        else:
            v = (u * np.float32(2) - np.float32(1)) * np.float32(0.1)
        tensor.copy_(torch.from_numpy(v.reshape(tuple(tensor.shape))))


def image(height, width):
    u = uniform("input", 2 * 3 * height * width)
    return torch.from_numpy((u * np.float32(4) - np.float32(2)).reshape(2, 3, height, width))


def build(name):
    if name in LITE:
        from efficientnet_lite_pytorch import EfficientNet
        return EfficientNet.from_name(name.replace("_", "-"))
    extra = {}
    if name in ("googlenet", "inception_v3"):
        extra = dict(init_weights=False, aux_logits=False, transform_input=True)
    return getattr(models, name)(weights=None, **extra)


def record(name):
    net = build(name).eval()
    fill(net, gain(name))
    native = LITE.get(name, 299 if name == "inception_v3" else 224)
    runs = []
    for size in ((native, native), SECOND):
        logits = net(image(*size)).double()
        assert logits.isfinite().all() and logits.std() > 0, name
        difference = (logits[0] - logits[1]).abs().max() / logits.abs().max()
        print(f"{name:20} {size} largest {logits.abs().max():9.3g} rows differ by {difference:.2g}", file=sys.stderr)
        runs.append({
            "size": size,
            "logits": logits[:, :16].tolist(),
            "sum": logits.sum().item(),
            "sum_of_squares": logits.square().sum().item(),
            "largest": logits.abs().max().item(),
        })
    return {"gain": gain(name), "parameters": sum(p.numel() for p in net.parameters()), "runs": runs}


if __name__ == "__main__":
    with torch.no_grad():
        found = {name: record(name) for name in sys.argv[1:] or [*TORCHVISION, *LITE]}
    print("{")
    print(",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in found.items()))
    print("}")

"""The same job in Python, as a user of TorchPRISM's method would run it: the baseline of `make bench`.

    python benches/baseline.py NETWORK WEIGHTS OUTPUT_FOLDER IMAGE [IMAGE ...]

Eager PyTorch and forward hooks on every max-pool and strided convolution, all images in one batch, a singular value
decomposition of the whole matrix of the last activation, gradual extrapolation. Then matplotlib's default figure of
2 x N subplots with tight layout, saved as JPEG at 500 dots per inch, and a figure of the variances in the same way.
"""
import os
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
DPI = 500


def load_network(name, weights):
    state = torch.load(weights, map_location="cpu", weights_only=True)
    if name.startswith("efficientnet_lite"):
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name(name.replace("_lite", "-lite"))
    else:
        import torchvision

        network = getattr(torchvision.models, name)(weights=None)
    network.load_state_dict(state)
    return network.eval()


def hooked(network):
    """The tensors that a forward pass leaves: the first hooked layer's input, then every output."""
    seen = []

    def keep(_module, inputs, output):
        if not seen:
            seen.append(inputs[0])
        seen.append(output)

    for module in network.modules():
        if isinstance(module, nn.MaxPool2d) or (isinstance(module, nn.Conv2d) and max(module.stride) > 1):
            module.register_forward_hook(keep)
    return seen


def norm(f):
    f = ((f - f.mean()) / f.std()).clamp(-1, 1)
    return (f - f.min()) / (f.max() - f.min())


def main():
    name, weights, folder, *files = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    pictures = [Image.open(file).convert("RGB") for file in files]
    pixels = [np.asarray(picture.resize((224, 224), Image.BILINEAR), dtype=np.float32) / 255 for picture in pictures]
    batch = (torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) - MEAN) / STD
    network = load_network(name, weights)
    excitations = hooked(network)
    with torch.no_grad():
        logits = network(batch)
        final = excitations.pop()
        n, c, h, w = final.shape
        rows = final.permute(0, 2, 3, 1).reshape(-1, c)
        u, s, _ = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
        f = (u[:, :3] * s[:3]).reshape(n, h, w, 3).permute(0, 3, 1, 2)
        for guide in reversed(excitations):
            f = F.interpolate(f, size=guide.shape[-2:], mode="bilinear", align_corners=False) * guide.mean(1, keepdim=True)
        maps = norm(f).permute(0, 2, 3, 1).numpy()
    shares = torch.softmax(logits, 1)
    figure, axes = plt.subplots(2, n, squeeze=False)
    for k, picture in enumerate(pictures):
        top = shares[k].topk(3)
        axes[0, k].set_title("\n".join(f"{i}: {p:.2f}" for p, i in zip(top.values, top.indices)), fontsize=6)
        axes[0, k].imshow(picture)
        axes[1, k].imshow(maps[k])
        axes[0, k].axis("off")
        axes[1, k].axis("off")
    figure.tight_layout()
    figure.savefig(os.path.join(folder, f"PRISM_{name}.jpg"), dpi=DPI)
    plt.close(figure)
    ratio = (s**2 / (s**2).sum()).numpy()
    figure, axis = plt.subplots()
    axis.bar(range(len(ratio)), ratio)
    figure.savefig(os.path.join(folder, f"PRISM_var_{name}.jpg"), dpi=DPI)


if __name__ == "__main__":
    main()

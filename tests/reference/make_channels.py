"""Small networks of other than three channels -> tests/data/channels/NAME.pt, NAME.npz.

    python tests/reference/make_channels.py

Each NAME.npz holds `input` [2,C,32,32], `features` (the PCA of the last activation over both images) and `logits`.
The networks of one channel, and one that takes any number, also have of tests/data/images/photo.png: `photo`, what
the network should see of it ([1,C,32,32]), and `photo_logits`. Needs torch 2.13.0, numpy and Pillow.
"""
import os

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from make_networks import DATA, save_traced
from prism_reference import features_of

FOLDER = os.path.join(DATA, "channels")
SIZE = 32


class Plain(nn.Module):
    """Two stages of a convolution and ReLU, and a linear layer over the mean."""

    def __init__(self, read, groups=1):
        super().__init__()
        self.first = nn.Conv2d(read, 4, 3, 2, 1, groups=groups)
        self.second = nn.Conv2d(4, 8, 3, 2, 1)
        self.scores = nn.Linear(8, 5)

    def begin(self, x):
        return x

    def excitation(self, x):
        return F.relu(self.second(F.relu(self.first(self.begin(x)))))

    def forward(self, x):
        return self.scores(self.excitation(x).mean([2, 3]))


class Grouped(Plain):
    """The weights of the first convolution show half of its channels."""

    def __init__(self):
        super().__init__(4, groups=2)


class Normalised(Plain):
    """Seven channels, normalised and padded before the first convolution."""

    def begin(self, x):
        mean = torch.linspace(-0.5, 0.5, 7).view(1, 7, 1, 1)
        return F.pad((x - mean) / (mean.abs() + 0.5), [1, 1, 1, 1])


class BatchNormFirst(Plain):
    def __init__(self):
        super().__init__(2)
        self.norm = nn.BatchNorm2d(2)

    def begin(self, x):
        return self.norm(x.flip([3]).flip([3]))


class Repeated(Plain):
    """Takes one channel, although its first convolution reads three."""

    def begin(self, x):
        return torch.cat([x, x * 0.5, x * 0.25], 1)


class AnyNumber(Plain):
    """Takes the mean of as many channels as there are."""

    def begin(self, x):
        return x.mean(1, keepdim=True)


class FixedSize(Plain):
    """Takes four channels of 32x32 pixels alone."""

    def __init__(self):
        super().__init__(4)
        self.scores = nn.Linear(8 * 64, 5)

    def forward(self, x):
        return self.scores(self.excitation(x).flatten(1))


def photo(channels):
    picture = Image.open(os.path.join(DATA, "images", "photo.png")).convert("RGB")
    if channels == 1:
        grey = np.asarray(picture.convert("L").resize((SIZE, SIZE), Image.BILINEAR), np.float32)
        return (torch.from_numpy(grey)[None, None] / 255 - 0.449) / 0.226
    colours = np.asarray(picture.resize((SIZE, SIZE), Image.BILINEAR), np.float32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((torch.from_numpy(colours) / 255 - mean) / std).permute(2, 0, 1)[None].contiguous()


def main():
    os.makedirs(FOLDER, exist_ok=True)
    for name, make, channels, of_photo in [
        ("grey", lambda: Plain(1), 1, 1),
        ("repeated", lambda: Repeated(3), 1, 1),
        ("any_number", lambda: AnyNumber(1), 5, 3),
        ("two", BatchNormFirst, 2, None),
        ("four", Grouped, 4, None),
        ("seven", lambda: Normalised(7), 7, None),
        ("fixed_size", FixedSize, 4, None),
    ]:
        torch.manual_seed(5)
        network = make().eval()
        images = torch.randn(2, channels, SIZE, SIZE)
        with torch.no_grad():
            arrays = {"input": images, "features": features_of(network.excitation(images))[0], "logits": network(images)}
            if of_photo:
                arrays["photo"] = photo(of_photo)
                arrays["photo_logits"] = network(arrays["photo"])
        save_traced(torch.jit.script(network), os.path.join(FOLDER, f"{name}.pt"))
        np.savez_compressed(os.path.join(FOLDER, f"{name}.npz"), **{key: array.numpy() for key, array in arrays.items()})


if __name__ == "__main__":
    main()

"""Small networks written in ways that make hooking hard -> tests/data/odd_networks/*.pt and expected.npz.

    python tests/reference/make_odd_networks.py

Each computes the same thing, two ReLU stages and a last one, but by an odd road: in-place operators through
views or in branches, a dictionary filled item by item, a batch size turned into a number, half precision.
What must be captured is written down by hand in `stages`, without a hook: the images, the activations that
enter the second and third convolution (the guides) and the last activation (the final excitation). Where
a class was seen is from saliency_reference.
Needs torch 2.13.0 and numpy.
"""
import os
from typing import Dict, List

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from make_networks import save_traced as save  # leaves out the paths of this machine
from saliency_reference import ebp, gradcam

FOLDER = os.path.join(os.path.dirname(__file__), "..", "data", "odd_networks")


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 2, 1)
        self.second = nn.Conv2d(4, 6, 3, 2, 1)
        self.third = nn.Conv2d(6, 8, 3, 2, 1)
        self.scores = nn.Linear(8, 5)

    def head(self, x):
        return self.scores(x.mean([2, 3]))

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.second(x))
        return self.head(F.relu(self.third(x)))


class ReluThroughView(Plain):
    def forward(self, x):
        x = self.first(x)
        flat = x.view(x.size(0), -1)
        flat.relu_()
        x = F.relu(self.second(x))
        return self.head(F.relu(self.third(x)))


class ReluInBranch(Plain):
    def forward(self, x):
        x = self.first(x)
        if x.size(0) > 0:
            x.relu_()
        x = self.second(x)
        x.relu_()
        return self.head(F.relu(self.third(x)))


class ErasedAfterUse(Plain):
    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.second(x))
        last = F.relu(self.third(x))
        scores = self.head(last)
        x.zero_()
        last.zero_()
        return scores


class ScalesItsInput(Plain):
    def forward(self, x):
        x.mul_(0.5)
        x = F.relu(self.first(x))
        x = F.relu(self.second(x))
        return self.head(F.relu(self.third(x)))


class ByItem(Plain):
    def forward(self, x) -> Dict[str, torch.Tensor]:
        made: Dict[str, torch.Tensor] = {}
        x = F.relu(self.first(x))
        x = F.relu(self.second(x))
        last = F.relu(self.third(x))
        made["features"] = last
        made["scores"] = self.head(last)
        return made


class Appending(Plain):
    def forward(self, x):
        stages: List[torch.Tensor] = []
        stages.append(F.relu(self.first(x)))
        stages.append(F.relu(self.second(stages[-1])))
        stages.append(F.relu(self.third(stages[-1])))
        return self.head(stages[-1])


class OneImage(Plain):
    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.second(x))
        x = F.relu(self.third(x)).mean([2, 3])
        return self.scores(x.view(int(x.shape[0]), 8))


class PooledLayout(Plain):
    """The pooled vector goes on as [N, 1, 1, C]: four dimensions, but no pixels."""

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.second(x))
        x = F.adaptive_avg_pool2d(F.relu(self.third(x)), 1).permute(0, 2, 3, 1)
        return self.scores((x * 1.0).flatten(1))


class Flag(Plain):
    def forward(self, x, twice: bool = False):
        x = F.relu(self.first(x))
        if twice:
            x = F.relu(x)
        x = F.relu(self.second(x))
        return self.head(F.relu(self.third(x)))


class Sine(Plain):
    """An operator that excitation backpropagation has no rule for."""

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.second(x))
        return self.head(F.relu(self.third(x).sin()))


class TwoHeads(Plain):
    """Scores made by two layers; one of the two stages it returns leads nowhere."""

    def __init__(self):
        super().__init__()
        self.more = nn.Linear(8, 5)
        self.aside = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.second(x))
        x = F.relu(self.third(x))
        return self.head(x) + self.more(x.mean([2, 3])), self.aside(x)


class NoStep(Plain):
    """A convolution that cannot be run: its stride is 0."""

    def __init__(self):
        super().__init__()
        self.second.stride = (0, 0)


def stages(network, x):
    first = F.relu(network.first(x * 0.5 if isinstance(network, ScalesItsInput) else x))
    second = F.relu(network.second(first))
    return first, second, F.relu(network.third(second))


def seeded(kind):
    torch.manual_seed(7)
    return kind().eval()


os.makedirs(FOLDER, exist_ok=True)
example = torch.rand(1, 3, 32, 32)
scripted = [ReluThroughView, ReluInBranch, ErasedAfterUse, ScalesItsInput, ByItem, Appending, PooledLayout, Flag, NoStep, Sine, TwoHeads]
for kind in scripted:
    save(torch.jit.script(seeded(kind)), os.path.join(FOLDER, kind.__name__ + ".pt"))
save(torch.jit.trace(seeded(OneImage), example, check_trace=False), os.path.join(FOLDER, "OneImage.pt"))
save(torch.jit.script(seeded(Plain).half()), os.path.join(FOLDER, "Half.pt"))

torch.manual_seed(8)
images = torch.randn(2, 3, 32, 32)
arrays = {"input": images.numpy()}
with torch.no_grad():
    for name, kind in [("plain", Plain), ("scaled", ScalesItsInput)]:
        network = seeded(kind)
        first, second, last = stages(network, images)
        arrays[f"{name}_guide_1"] = first.mean(1, keepdim=True).numpy()
        arrays[f"{name}_guide_2"] = second.mean(1, keepdim=True).numpy()
        arrays[f"{name}_excitation"] = last.numpy()
        arrays[f"{name}_logits"] = network.head(last).numpy()
    # where a class was seen, at the first stage: what enters the second convolution
    network = seeded(Plain)
    with torch.enable_grad():
        place = ("input", "second")
        arrays["gradcam"] = gradcam(network, images, place).numpy()
        arrays["ebp"] = ebp(network, images, place).numpy()
        arrays["cebp"] = ebp(network, images, place, contrastive=True).numpy()
np.savez_compressed(os.path.join(FOLDER, "expected.npz"), **arrays)

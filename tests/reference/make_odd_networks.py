"""Small networks written in ways that make hooking hard -> tests/data/odd_networks/*.pt and expected.npz.

    python tests/reference/make_odd_networks.py

Each computes the same thing, two ReLU stages and a last one, but by an odd road: in-place operators through
views or in branches, a dictionary filled item by item, a batch size turned into a number, half precision.
What must be captured is written down by hand in `stages`, without a hook: the images, the activations that
enter the second and third convolution (the guides) and the last activation (the final excitation). Where
a class was seen is from saliency_reference.
Needs torch 2.13.0 and numpy.
"""
import json
import os
import shutil
import zipfile
from typing import Dict, List

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from make_networks import save_traced as save  # leaves out the paths of this machine
from prism_reference import signed_sums
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


class ChannelsLast(Plain):
    """The last operator works on [N, h, w, C]; what is pooled is [N, C, h, w] again."""

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.second(x))
        x = (F.relu(self.third(x)).permute(0, 2, 3, 1) * 1.0).permute(0, 3, 1, 2)
        return self.scores(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class Flag(Plain):
    def forward(self, x, twice: bool = False):
        x = F.relu(self.first(x))
        if twice:
            x = F.relu(x)
        x = F.relu(self.second(x))
        return self.head(F.relu(self.third(x)))


class InStatements(Plain):
    """In-place operators whose results have two names, or none."""

    def forward(self, x):
        x = F.relu(self.first(x))
        y = self.second(x)
        z = torch.relu_(y)
        z.add_(0.5)
        y.mul_(2.0)
        last = self.third(z + y)
        last.relu_()
        last += F.avg_pool2d(F.pad(x, [0, 0, 0, 0, 0, 4]), 4)
        return self.head(last)


class InStatementsPlainly(InStatements):
    """The same without them."""

    def forward(self, x):
        x = F.relu(self.first(x))
        y = (F.relu(self.second(x)) + 0.5) * 2.0
        last = F.relu(self.third(y + y))
        return self.head(last + F.avg_pool2d(F.pad(x, [0, 0, 0, 0, 0, 4]), 4))


class Folded(Plain):
    """Batch-norms with scales of both signs behind a transposed and grouped convolution, a linear layer, and
    the layer that makes the scores."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(6, 4, 2, 2, groups=2)
        self.third = nn.Conv2d(4, 8, 3, 2, 1)
        self.hidden = nn.Linear(8, 8)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm1d(8), nn.BatchNorm1d(5)])
        with torch.no_grad():
            for norm in self.norms:
                norm.weight.copy_(torch.linspace(-1.0, 1.5, norm.num_features))
                norm.bias.fill_(0.3)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.second(x))
        x = F.relu(self.norms[0](self.up(x)))
        x = F.relu(self.third(x)).mean([2, 3])
        return self.norms[2](self.scores(F.relu(self.norms[1](self.hidden(x)))))


class ComputedWeights(Plain):
    def forward(self, x):
        x = F.relu(self.first(x))
        weight = self.second.weight.clone()
        weight.mul_(0.5)
        x = F.relu(F.conv2d(x, weight, None, [2, 2], [1, 1]))
        return self.head(F.relu(self.third(x)))


class GateFirst(Plain):
    """A gate of the size of what it gates, computed from something else."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Conv2d(4, 6, 3, 2, 1)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = torch.sigmoid(self.gate(x)) * F.relu(self.second(x))
        return self.head(F.relu(self.third(x)))


class WithSoftmax(Plain):
    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.second(x))
        return F.softmax(self.head(F.relu(self.third(x))), dim=1)


class DropoutInPlace(Plain):
    """Dropout in place on a view of the pooled features, as EfficientNet's classifier has it."""

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.second(x))
        x = torch.flatten(F.adaptive_avg_pool2d(F.relu(self.third(x)), 1), 1)
        return self.scores(F.dropout(x, 0.2, self.training, inplace=True))


class PaddedInWords(Plain):
    def __init__(self):
        super().__init__()
        self.second = nn.Conv2d(4, 6, 3, padding="same")

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.max_pool2d(F.relu(self.second(x)), 2)
        return self.head(F.relu(self.third(x)))


class NotAPlainGate(Plain):
    """A product of which neither factor is the gate."""

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.second(x)) * self.second(x.flip(3)).tanh()
        return self.head(F.relu(self.third(x)))


class PartInPlace(Plain):
    def forward(self, x):
        x = F.relu(self.first(x))
        x = self.second(x)
        x[:, :2] = x[:, :2] * 2.0
        return self.head(F.relu(self.third(F.relu(x))))


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


class Patched(Plain):
    """The image is cut into patches as six dimensions, mixed as rows, and put together before the first convolution."""

    def patched(self, x):
        count = x.size(0)
        x = x.reshape(count, 3, 16, 2, 16, 2).permute(0, 2, 4, 1, 3, 5).reshape(-1, 12)
        x = torch.tanh(x).cumsum(1)[:, 3:6]
        return x.reshape(count, 16, 16, 3).permute(0, 3, 1, 2)

    def forward(self, x):
        x = F.relu(self.first(self.patched(x)))
        x = F.relu(self.second(x))
        return self.head(F.relu(self.third(x)))


class NoStep(Plain):
    """A convolution that cannot be run: its stride is 0."""

    def __init__(self):
        super().__init__()
        self.second.stride = (0, 0)


class PutsAside(Plain):
    """Keeps a number that it makes of the first images, for all others."""

    kept: List[torch.Tensor]

    def __init__(self):
        super().__init__()
        self.kept = []

    def forward(self, x):
        x = F.relu(self.first(x))
        if len(self.kept) == 0:
            self.kept.append(torch.ones_like(x[:1]))
        x = F.relu(self.second(x * self.kept[0][0, 0, 0, 0]))
        return self.head(F.relu(self.third(x)))


class Pools(Plain):
    """Poolings that oneDNN has otherwise, or not at all."""

    def forward(self, x):
        x = F.avg_pool2d(F.relu(self.first(x)), 3, stride=2, padding=1, ceil_mode=True, count_include_pad=True)
        x = F.max_pool2d(F.relu(self.second(x)), 3, stride=1, padding=1, dilation=2)
        x = F.avg_pool2d(x, 3, stride=1, padding=1, divisor_override=5)
        x = F.relu(self.third(x))
        return self.head(F.adaptive_avg_pool2d(x, (3, 2)))


def stages(network, x):
    if isinstance(network, ScalesItsInput):
        x = x * 0.5
    if isinstance(network, Patched):
        x = network.patched(x)
    first = F.relu(network.first(x))
    second = F.relu(network.second(first))
    return first, second, F.relu(network.third(second))


def seeded(kind):
    torch.manual_seed(7)
    return kind().eval()


os.makedirs(FOLDER, exist_ok=True)
example = torch.rand(1, 3, 32, 32)
scripted = [InStatements, Folded, ComputedWeights, GateFirst, WithSoftmax, NotAPlainGate, PartInPlace, DropoutInPlace]
scripted += [ReluThroughView, ReluInBranch, ErasedAfterUse, ScalesItsInput, ByItem, Appending, PooledLayout, Flag, NoStep, Sine, TwoHeads, Patched, ChannelsLast]
for kind in scripted:
    save(torch.jit.script(seeded(kind)), os.path.join(FOLDER, kind.__name__ + ".pt"))
save(torch.jit.trace(seeded(PaddedInWords), example), os.path.join(FOLDER, "PaddedInWords.pt"))
save(torch.jit.script(seeded(PaddedInWords)), os.path.join(FOLDER, "PaddedInWordsScripted.pt"))
save(torch.jit.script(seeded(PutsAside)), os.path.join(FOLDER, "PutsAside.pt"))
save(torch.jit.script(seeded(Pools)), os.path.join(FOLDER, "Pools.pt"))
save(torch.jit.trace(seeded(OneImage), example, check_trace=False), os.path.join(FOLDER, "OneImage.pt"))
save(torch.jit.script(seeded(Plain).half()), os.path.join(FOLDER, "Half.pt"))

# As models/export.py writes what a network wants into its file.
told = {"image_size": [32, 48], "mean": [0.5, 0.25, 0.0], "std": [0.5, 0.25, 1.0], "labels": list("abcde")}
shutil.copyfile(os.path.join(FOLDER, "Flag.pt"), os.path.join(FOLDER, "Told.pt"))
with zipfile.ZipFile(os.path.join(FOLDER, "Told.pt"), "a") as archive:
    folder = archive.namelist()[0].split("/")[0]
    archive.writestr(f"{folder}/extra/prism.json", json.dumps(told))

torch.manual_seed(8)
images = torch.randn(2, 3, 32, 32)
arrays = {"input": images.numpy()}
with torch.no_grad():
    for name, kind in [("plain", Plain), ("scaled", ScalesItsInput), ("patched", Patched)]:
        network = seeded(kind)
        first, second, last = stages(network, images)
        arrays[f"{name}_guide_1"] = signed_sums(first).float().numpy()
        arrays[f"{name}_guide_2"] = signed_sums(second).float().numpy()
        arrays[f"{name}_excitation"] = last.numpy()
        arrays[f"{name}_logits"] = network.head(last).numpy()
    arrays["pools_logits"] = seeded(Pools)(images).numpy()
    # Where a class was seen, at the first stage: what enters the second convolution. Of a network that the
    # reference has no rule for, of one that computes the same.
    halved = seeded(Plain)
    halved.second.weight.mul_(0.5)
    halved.second.bias.zero_()
    with torch.enable_grad():
        for name, network in [
            ("Plain", seeded(Plain)),
            ("InStatements", seeded(InStatementsPlainly)),
            ("Folded", seeded(Folded)),
            ("ComputedWeights", halved),
            ("PaddedInWords", seeded(PaddedInWords)),
        ]:
            before = ("input", "second")
            arrays[f"{name}_gradcam"] = gradcam(network, images, before).detach().numpy()
            arrays[f"{name}_ebp"] = ebp(network, images, before).detach().numpy()
            arrays[f"{name}_cebp"] = ebp(network, images, before, contrastive=True).detach().numpy()
np.savez_compressed(os.path.join(FOLDER, "expected.npz"), **arrays)

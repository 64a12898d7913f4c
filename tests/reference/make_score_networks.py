"""Small networks that state their class scores in different ways -> tests/data/scores/*.pt and expected.npz.

    python tests/reference/make_score_networks.py

All have the same body, and a head each: logits, sigmoids, averaged softmaxes, one score, a tensor for each class,
several outputs, sorted scores. `NAME` in expected.npz is what the network itself states, as probabilities [N,K]; one
score is written as the two probabilities 1 - p and p. `NAME_gradcam_T` and `NAME_cebp_T` say where class T was seen, at
the last activation. Needs torch 2.13.0 and numpy.
"""
import json
import os
import shutil
import zipfile
from typing import Dict

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from make_networks import save_traced as save  # leaves out the paths of this machine
from saliency_reference import ebp

FOLDER = os.path.join(os.path.dirname(__file__), "..", "data", "scores")
NETWORKS = {}


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 2, 1)
        self.second = nn.Conv2d(4, 6, 3, 2, 1)
        self.third = nn.Conv2d(6, 8, 3, 2, 1)
        self.five = nn.Linear(8, 5)
        self.early = nn.Linear(6, 5)
        self.more = nn.Linear(8, 7)
        self.square = nn.Linear(8, 8)
        self.wide = nn.Linear(8, 64)
        self.one = nn.Linear(8, 1)
        self.two = nn.Linear(8, 2)
        self.heads = nn.ModuleList([nn.Linear(8, 1) for _ in range(3)])

    def stages(self, x):
        x = F.relu(self.second(F.relu(self.first(x))))
        return F.relu(self.third(x))

    def pooled(self, x):
        return self.stages(x).mean([2, 3])


def softmax(scores):
    return torch.softmax(scores, 1)


def binary(p):
    return torch.cat([1 - p, p], 1)


def network(expected):
    """Registers a forward with what it states: a function of the network and its pooled features."""
    def register(forward):
        name = forward.__name__
        NETWORKS[name] = (type(name, (Network,), {"forward": forward}), expected)
        return forward
    return register


@network(lambda n, p: binary(torch.sigmoid(n.one(p))))
def one_score(self, x):
    return self.one(self.pooled(x))


@network(lambda n, p: binary(torch.sigmoid(n.one(p))))
def one_score_squeezed(self, x):
    return self.one(self.pooled(x)).squeeze(1)


@network(lambda n, p: binary(torch.sigmoid(n.one(p))))
def one_probability(self, x):
    return torch.sigmoid(self.one(self.pooled(x)))


@network(lambda n, p: softmax(n.two(p)))
def second_of_two(self, x):
    return softmax(self.two(self.pooled(x)))[:, 1]


@network(lambda n, p: torch.sigmoid(n.five(p)))
def sigmoids(self, x):
    return torch.sigmoid(self.five(self.pooled(x)))


@network(lambda n, p: (torch.sigmoid(n.five(p)) + torch.sigmoid(n.five(2 * p))) / 2)
def mean_of_sigmoids(self, x):
    p = self.pooled(x)
    return (torch.sigmoid(self.five(p)) + torch.sigmoid(self.five(2 * p))) / 2


@network(lambda n, p: (softmax(n.five(p)) + softmax(n.five(2 * p))) / 2)
def mean_of_softmaxes(self, x):
    p = self.pooled(x)
    return (softmax(self.five(p)) + softmax(self.five(2 * p))) / 2


@network(lambda n, p: softmax(n.five(p)))
def softmax_by_hand(self, x):
    scores = self.five(self.pooled(x)).exp()
    return scores / scores.sum(1, keepdim=True)


@network(lambda n, p: softmax(softmax(n.five(p))))
def softmax_twice(self, x):
    return softmax(softmax(self.five(self.pooled(x))))


@network(lambda n, p: softmax(n.five(p)))
def log_softmax(self, x):
    return F.log_softmax(self.five(self.pooled(x)), -1)


@network(lambda n, p: softmax(n.five(p)))
def n1k(self, x):
    return softmax(self.five(self.pooled(x))).unsqueeze(1)


@network(lambda n, p: softmax(n.five(p)))
def nk11(self, x):
    return self.five(self.pooled(x))[:, :, None, None]


@network(lambda n, p: softmax(n.five(p)))
def squeezed(self, x):
    return self.five(self.pooled(x)).squeeze()


@network(lambda n, p: torch.sigmoid(torch.cat([head(p) for head in n.heads], 1)))
def heads(self, x):
    p = self.pooled(x)
    return [head(p) for head in self.heads]


@network(lambda n, p: torch.sigmoid(torch.cat([head(p) for head in n.heads], 1)))
def named_heads(self, x):
    p = self.pooled(x)
    return {"ant": torch.sigmoid(self.heads[0](p)), "bee": torch.sigmoid(self.heads[1](p)), "cat": torch.sigmoid(self.heads[2](p))}


@network(lambda n, p: softmax(n.more(p)))
def heads_and_more(self, x):
    p = self.pooled(x)
    return *[head(p) for head in self.heads], self.more(p)


@network(lambda n, p: softmax(n.five(p)))
def embedding_first(self, x):
    p = self.pooled(x)
    return self.square(p), self.five(p)


@network(lambda n, p: softmax(n.five(p)))
def embedding_last(self, x):
    p = self.pooled(x)
    return self.five(p), self.wide(p)


@network(lambda n, p: softmax(n.five(p)))
def unit_embedding(self, x):
    p = self.pooled(x)
    return F.normalize(self.more(p)), self.five(p)


@network(lambda n, p: torch.sigmoid(n.five(p)))
def logits_and_sigmoids(self, x):
    scores = self.five(self.pooled(x))
    return scores, torch.sigmoid(scores)


@network(lambda n, p: softmax(n.five(p)))
def exits(self, x):
    early = F.relu(self.second(F.relu(self.first(x))))
    return self.five(F.relu(self.third(early)).mean([2, 3])), self.early(early.mean([2, 3]))


@network(lambda n, p: softmax(n.more(p)))
def two_tasks(self, x):
    p = self.pooled(x)
    return self.five(p), self.more(p)


@network(lambda n, p: softmax(n.five(p)))
def best_three(self, x):
    return torch.topk(softmax(self.five(self.pooled(x))), 3)


@network(lambda n, p: softmax(n.five(p)))
def best_class(self, x):
    return self.five(self.pooled(x)).argmax(1)


class ByName(Network):
    """A dictionary filled item by item, auxiliary scores first."""

    def forward(self, x) -> Dict[str, torch.Tensor]:
        p = self.pooled(x)
        found: Dict[str, torch.Tensor] = {}
        found["aux_scores"] = self.more(p)
        found["scores"] = self.five(p)
        return found


class Normalising(Network):
    """Normalises pixels from 0 to 1 itself."""

    def forward(self, x):
        x = (x - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        return self.five(self.pooled(x))


class Grey(Network):
    """As `Normalising`, from one channel."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, 2, 1)

    def forward(self, x):
        return self.five(self.pooled((x - 0.5) / 0.25))


class Repeated(Network):
    """As `Normalising`, of one channel that is repeated."""

    def forward(self, x):
        x = x.repeat(1, 3, 1, 1)
        x = (x - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        return self.five(self.pooled(x))


class Undoing(Network):
    """As torchvision's googlenet: undoes ImageNet's normalisation, channel by channel."""

    def forward(self, x):
        red = x[:, 0:1] * (0.229 / 0.5) + (0.485 - 0.5) / 0.5
        green = x[:, 1:2] * (0.224 / 0.5) + (0.456 - 0.5) / 0.5
        blue = x[:, 2:3] * (0.225 / 0.5) + (0.406 - 0.5) / 0.5
        return self.five(self.pooled(torch.cat([red, green, blue], 1)))


class Thousand(Network):
    def __init__(self):
        super().__init__()
        self.thousand = nn.Linear(8, 1000)

    def forward(self, x):
        return self.thousand(self.pooled(x))


class Joined(Network):
    """As `heads`, by one layer."""

    def __init__(self):
        super().__init__()
        self.joined = nn.Linear(8, 3)

    def forward(self, x):
        return self.joined(self.pooled(x))


def seeded(kind):
    torch.manual_seed(31)
    network = kind().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)  # scores that differ
    return network


def without_unused(network, images):
    """The network without the layers that its forward does not call: the files are small."""
    called = set()
    hooks = [part.register_forward_pre_hook(lambda part, _: called.add(part)) for part in network.modules()]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    for name, part in list(network.named_children()):
        if not called.intersection(part.modules()):
            delattr(network, name)
    return network


def gradcam(network, images, score):
    """relu of the channels of the last activation, weighted by the mean gradient of a score."""
    last = network.stages(images).detach().requires_grad_()
    gradient, = torch.autograd.grad(score(last.mean([2, 3])).sum(), last)
    return (last * gradient.mean([2, 3], keepdim=True)).sum(1, keepdim=True).relu().detach()


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(FOLDER)
    torch.manual_seed(32)
    images = torch.randn(3, 3, 32, 32)
    arrays = {"input": images.numpy()}
    for name, (kind, expected) in NETWORKS.items():
        made = seeded(kind)
        with torch.no_grad():
            arrays[name] = expected(made, made.pooled(images)).numpy()
            traced = torch.jit.trace(without_unused(made, images), images[:1], check_trace=False, strict=False)
        save(traced, os.path.join(FOLDER, f"{name}.pt"))
    for name, kind in [("by_name", ByName), ("thousand", Thousand)]:
        made = seeded(kind)
        save(torch.jit.script(without_unused(made, images)), os.path.join(FOLDER, f"{name}.pt"))
        with torch.no_grad():
            scores = made(images)
            arrays[name] = softmax(scores["scores"] if name == "by_name" else scores).numpy()
    for name, kind in [("normalising", Normalising), ("undoing", Undoing)]:
        save(torch.jit.trace(without_unused(seeded(kind), images), images[:1], check_trace=False), os.path.join(FOLDER, f"{name}.pt"))

    grey = images[:, :1]
    for name, kind in [("normalising_grey", Grey), ("normalising_repeated", Repeated)]:
        save(torch.jit.trace(without_unused(seeded(kind), grey), grey[:1], check_trace=False), os.path.join(FOLDER, f"{name}.pt"))

    made = seeded(NETWORKS["one_score"][0])
    arrays["one_score_gradcam_0"] = gradcam(made, images, lambda p: -made.one(p)).numpy()
    arrays["one_score_gradcam_1"] = gradcam(made, images, lambda p: made.one(p)).numpy()
    made = seeded(NETWORKS["second_of_two"][0])
    arrays["second_of_two_gradcam_0"] = gradcam(made, images, lambda p: softmax(made.two(p))[:, 0]).numpy()
    made = seeded(NETWORKS["heads"][0])
    joined = seeded(Joined)
    joined.load_state_dict(made.state_dict(), strict=False)
    with torch.no_grad():
        joined.joined.weight.copy_(torch.cat([head.weight for head in made.heads]))
        joined.joined.bias.copy_(torch.cat([head.bias for head in made.heads]))
    targets = torch.full((3,), 2)
    arrays["heads_cebp_2"] = ebp(joined, images, ("output", "third"), targets, contrastive=True).detach().numpy()
    np.savez_compressed(os.path.join(FOLDER, "expected.npz"), **arrays)
    total = sum(os.path.getsize(os.path.join(FOLDER, name)) for name in os.listdir(FOLDER))
    print(f"{total / 1024:.0f} KiB in all")


if __name__ == "__main__":
    main()

"""Small networks whose heads are written in many ways -> tests/data/heads/*.pt and expected.npz.

    python tests/reference/make_heads.py

All share one convolutional body. What differs is what follows its last activation: poolings, attention, descriptors,
other layouts; or what comes before the body: flips, turns, crops. expected.npz holds the images and, for each network,
the activation that its head reads, upright and as [N,C,h,w], computed in PyTorch. Needs torch 2.13.0 and numpy.
"""
import os

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from make_networks import save_traced as save  # leaves out the paths of this machine

FOLDER = os.path.join(os.path.dirname(__file__), "..", "data", "heads")
SIDE, CHANNELS, CLASSES = 48, 8, 5
NETWORKS = {}


def network(expected=None):
    """Registers a forward pass, with the activation that is expected of it; the body's if there is none."""

    def register(forward):
        NETWORKS[forward.__name__] = (forward, expected or (lambda net, x: net.body(x)))
        return forward

    return register


class Parts(nn.Module):
    """The layers that the networks choose from."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, CHANNELS, 3, 2, 1), nn.ReLU()
        )  # fmt: skip
        self.other_body = nn.Sequential(nn.Conv2d(3, 4, 5, 4, 2), nn.ReLU(), nn.Conv2d(4, CHANNELS, 3, 2, 1), nn.ReLU())
        self.scores = nn.Linear(CHANNELS, CLASSES)
        self.pixel_scores = nn.Conv2d(CHANNELS, CLASSES, 1)
        self.attention = nn.Conv2d(CHANNELS, 1, 1)
        self.centres = nn.Parameter(torch.randn(4, CHANNELS))
        self.assign = nn.Conv2d(CHANNELS, 4, 1)
        self.of_centres = nn.Linear(4 * CHANNELS, CLASSES)
        self.of_pyramid = nn.Linear(5 * CHANNELS, CLASSES)
        self.of_two = nn.Linear(2 * CHANNELS, CLASSES)
        self.mix = nn.Conv2d(CHANNELS, 10, 1)
        self.of_mixed = nn.Linear(10, CLASSES)
        self.norm = nn.LayerNorm(CHANNELS)
        self.fully = nn.Linear(CHANNELS, CHANNELS)
        self.gate = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.heads = nn.MultiheadAttention(CHANNELS, 2)
        self.recurrent = nn.GRU(CHANNELS, CHANNELS, batch_first=True)
        self.selu_body = nn.Sequential(
            nn.Conv2d(3, 6, 3, 1, 1), nn.SELU(), nn.MaxPool2d(4), nn.Conv2d(6, CHANNELS, 3, 1, 1), nn.SELU(), nn.MaxPool2d(2)
        )  # fmt: skip


def mean(x):
    return x.mean((2, 3))


@network()
def pooled_in_two_steps(net, x):
    f = net.body(x)
    return net.scores(f.mean(3, keepdim=True).mean(2, keepdim=True).flatten(1))


@network()
def mixed_between_two_steps(net, x):
    rows = F.hardswish(net.mix(net.body(x).mean(3, keepdim=True)))
    return net.of_mixed(rows.mean((2, 3)))


@network()
def log_sum_exp(net, x):
    return net.scores((net.body(x) * 4).exp().mean((2, 3)).log() / 4)


@network()
def generalised_mean(net, x):
    f = net.body(x)
    return net.scores(F.avg_pool2d(f.clamp(min=1e-6).pow(3.0), (f.size(2), f.size(3))).pow(1 / 3).flatten(1))


@network()
def attention_by_bmm(net, x):
    f = net.body(x)
    weights = torch.softmax(net.attention(f).flatten(2), -1)
    return net.scores(torch.bmm(f.flatten(2), weights.transpose(1, 2)).squeeze(2))


@network()
def attention_by_einsum(net, x):
    f = net.body(x)
    weights = torch.softmax(net.attention(f).flatten(2), -1)
    return net.scores(torch.einsum("ncl,nkl->nck", f.flatten(2), weights).squeeze(2))


@network()
def attention_by_sigmoid(net, x):
    f = net.body(x)
    weights = torch.sigmoid(net.attention(f))
    return net.scores((f * weights).sum((2, 3)) / weights.sum((2, 3)))


@network()
def class_attention(net, x):
    scores = net.pixel_scores(net.body(x)).flatten(2)
    return scores.mean(2) + 0.3 * (scores * torch.softmax(2 * scores, -1)).sum(2)


@network()
def soft_assignment(net, x):
    f = F.normalize(net.body(x), dim=1)
    assigned = torch.softmax(net.assign(f).flatten(2), 1)
    offsets = f.flatten(2).unsqueeze(1) - net.centres[None, :, :, None]
    described = F.normalize((offsets * assigned.unsqueeze(2)).sum(3), dim=2)
    return net.of_centres(F.normalize(described.flatten(1)))


@network()
def spatial_pyramid(net, x):
    f = net.body(x)
    return net.of_pyramid(torch.cat([F.max_pool2d(f, side, side).flatten(1) for side in (6, 3)], 1))


@network()
def attention_over_tokens(net, x):
    tokens = net.body(x).flatten(2).permute(2, 0, 1)
    tokens = torch.cat([tokens.mean(0, keepdim=True), tokens])
    pooled, _ = net.heads(tokens[:1], tokens, tokens)
    return net.scores(pooled.squeeze(0))


def channels_last_expected(net, x):
    return F.gelu(net.fully(net.norm(net.body(x).permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)


@network(channels_last_expected)
def channels_last(net, x):
    return net.scores(F.gelu(net.fully(net.norm(net.body(x).permute(0, 2, 3, 1)))).mean((1, 2)))


@network(lambda net, x: net.norm(net.body(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
def pixels_in_a_row(net, x):
    return net.scores(net.norm(net.body(x).flatten(2).transpose(1, 2)).mean(1))


@network(lambda net, x: net.body(x) * torch.sigmoid(net.gate(mean(net.body(x))[:, :, None, None])))
def gated_channels(net, x):
    f = net.body(x)
    return net.scores(mean(f * torch.sigmoid(net.gate(f.mean((2, 3), keepdim=True)))))


@network(lambda net, x: net.other_body(x))
def two_bodies(net, x):
    return net.of_two(torch.cat([mean(net.body(x)), mean(net.other_body(x))], 1))


@network(lambda net, x: net.body(x.flip(3)).flip(3))
def mirrored(net, x):
    return net.scores(mean(net.body(x.flip(3))))


@network(lambda net, x: net.body(x.flip(2)).flip(2))
def upside_down_by_index(net, x):
    return net.scores(mean(net.body(x[:, :, torch.arange(SIDE - 1, -1, -1)])))


@network(lambda net, x: torch.rot90(net.body(torch.rot90(x, 1, [2, 3])), -1, [2, 3]))
def turned(net, x):
    return net.scores(mean(net.body(torch.rot90(x, 1, [2, 3]))))


@network()
def mirrored_as_well(net, x):
    return net.scores(mean(net.body(x)) + mean(net.body(x.flip(3))))


@network(lambda net, x: net.body(x[:, :, 8:40, 16:48]))
def cropped(net, x):
    return net.scores(mean(net.body(x[:, :, 8:40, 16:48])))


@network(lambda net, x: net.body(x[:, [2, 1, 0]]))
def blue_first(net, x):
    return net.scores(mean(net.body(x[:, [2, 1, 0]])))


@network()
def stacked_in_the_batch(net, x):
    return net.scores(mean(net.body(torch.cat([x, x.flip(3)])))).view(2, -1, CLASSES).mean(0)


@network()
def sampled(net, x):
    turn = torch.tensor([[[0.8, 0.1, 0.0], [-0.1, 0.8, 0.0]]]).expand(x.shape[0], -1, -1)
    grid = F.affine_grid(turn, x.shape, align_corners=False)
    return net.scores(mean(net.body(F.grid_sample(x, grid, align_corners=False))))


@network(lambda net, x: net.selu_body(x))
def selu(net, x):
    return net.scores(mean(net.selu_body(x)))


@network()
def soft_pool(net, x):
    f = net.body(x)
    return net.scores((f * f.exp()).sum((2, 3)) / f.exp().sum((2, 3)))


@network()
def centred_covariance(net, x):
    f = net.body(x)
    centred = (f - f.mean((2, 3), keepdim=True)).flatten(2)
    return net.scores(torch.bmm(centred, centred.transpose(1, 2)).mean(2))


@network()
def query_of_attention(net, x):
    tokens = net.body(x).flatten(2).permute(2, 0, 1)
    query = net.centres[:1, None].expand(1, x.shape[0], CHANNELS)
    pooled, _ = net.heads(query, tokens, tokens)
    return net.scores(pooled.squeeze(0))


@network()
def recurrent_over_pixels(net, x):
    states, _ = net.recurrent(net.body(x).flatten(2).transpose(1, 2))
    return net.scores(states.mean(1))


@network()
def several_attention_maps(net, x):
    f = net.body(x)
    maps = net.assign(f).relu()
    return net.of_centres(torch.einsum("nmhw,nchw->nmc", maps, f).flatten(1))


@network(lambda net, x: net.body(x)[:, :, 1:5, 1:5])
def cropped_features(net, x):
    return net.scores(mean(net.body(x)[:, :, 1:5, 1:5]))


@network(lambda net, x: net.body(x.mT).mT)
def transposed(net, x):
    return net.scores(mean(net.body(x.mT)))


@network()
def halves_exchanged(net, x):
    left, right = x.chunk(2, 3)
    return net.scores(mean(net.body(torch.cat([right, left], 3))))


# How these networks turn the image, and how to turn back.
TURNS = {
    "mirrored": (lambda x: x.flip(3), lambda f: f.flip(3)),
    "turned": (lambda x: torch.rot90(x, 1, [2, 3]), lambda f: torch.rot90(f, -1, [2, 3])),
}


def first_guide(net, x, name):
    """The six channels after the first ReLU, upright."""
    turn, back = TURNS[name]
    return back(net.body[:2](turn(x)))


def grad_cam(net, f, scores):
    """Grad-CAM of the top class, for a head that averages the pixels: the gradient is weight / pixels."""
    weights = net.scores.weight[scores.argmax(1)] / (f.shape[2] * f.shape[3])
    return (f * weights[:, :, None, None]).sum(1, keepdim=True).relu()


class Network(Parts):
    def __init__(self, run):
        super().__init__()
        self.run = run

    def forward(self, x):
        return self.run(self, x)


def without_unused(net, images):
    """Removes the layers that a forward pass does not reach, so that the file is small."""
    net(images).sum().backward()
    for name, layer in list(net.named_children()):
        if all(weights.grad is None for weights in layer.parameters()):
            delattr(net, name)
    if net.centres.grad is None:
        del net.centres
    return net


def main():
    os.makedirs(FOLDER, exist_ok=True)
    torch.manual_seed(5)
    images = F.interpolate(torch.rand(2, 3, 8, 8), size=(SIDE, SIDE), mode="bilinear")
    arrays = {"input": images.numpy()}
    for name, (forward, expected) in NETWORKS.items():
        torch.manual_seed(11)
        net = without_unused(Network(forward).eval(), images)
        with torch.no_grad():
            save(torch.jit.trace(net, images[:1], check_trace=False), os.path.join(FOLDER, f"{name}.pt"))
            if name not in ("stacked_in_the_batch", "sampled", "halves_exchanged"):
                arrays[name] = expected(net, images).numpy()
            if name in TURNS:
                arrays[f"{name}_guide"] = first_guide(net, images, name).numpy()
            if name in ("mirrored", "turned", "channels_last", "pixels_in_a_row"):
                arrays[f"{name}_grad_cam"] = grad_cam(net, expected(net, images), net(images)).numpy()
    np.savez_compressed(os.path.join(FOLDER, "expected.npz"), **arrays)


if __name__ == "__main__":
    main()

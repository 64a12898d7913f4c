"""Regression extrapolation in eager PyTorch: the independent computation of the rule.

    python quality/regression_reference.py MODEL_FOLDER COMPOSITES.npz OUT.npz [NETWORK]

writes reference arrays of the first two composites: `input`, `features`, `maps`, and for the graph's part `guides_L`
[N,k,h,w] (level L from the deepest; four numbers of each guide, in the order of execution) and `level_L`, the colours after it.

Guides are the activations that enter a spatial operator (a convolution or a max- or average-pool whose kernel is larger
than 1 in some direction), before padding, at the final excitation's resolution or above; of each resolution the last
three executed before the final excitation. The image is none. Of each only four numbers a pixel are kept: the means of
the four quarters of its channels.
"""
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

GROUPS = 4  # numbers per guide pixel
PER_LEVEL = 3  # guides of one resolution
RIDGE = 0.1  # of the standardised numbers' variance, 1
FLAT = 1e-6  # a number whose deviation is at most this share of its largest magnitude is constant


def norm(f):
    """As everywhere in PRISM: one mean, one unbiased deviation, clip, stretch."""
    if f.max() == f.min():
        return torch.zeros_like(f)
    z = ((f - f.mean()) / f.std(unbiased=True)).clamp(-1, 1)
    return (z - z.min()) / (z.max() - z.min())


def resize(f, size):
    return f if tuple(f.shape[-2:]) == tuple(size) else F.interpolate(f, size=size, mode="bilinear", align_corners=False)


def group_means(activation):
    """[N,C,h,w] -> [N,min(4,C),h,w]: channel c belongs to group floor(c * 4 / C)."""
    channels = activation.shape[1]
    groups = min(GROUPS, channels)
    edges = [-(-g * channels // groups) for g in range(groups + 1)]  # ceil(g C / groups)
    return torch.stack([activation[:, a:b].mean(1) for a, b in zip(edges, edges[1:])], 1)


def levels(guides, final_size):
    """`guides`: [N,k,h,w] in the order of execution -> per resolution, the deepest first, the last three joined."""
    sizes = {}
    for guide in guides:
        size = tuple(guide.shape[-2:])
        if size[0] >= final_size[0] and size[1] >= final_size[1]:
            sizes.setdefault(size, []).append(guide)
    return [torch.cat(sizes[size][-PER_LEVEL:], 1) for size in sorted(sizes, key=lambda s: s[0] * s[1])]


def step(f, guide):
    """One level: half the resized colours, half what a ridge regression of them on the guide's numbers says.
    Each image by itself; in float64."""
    u = resize(f, guide.shape[-2:]).double()
    g = guide.double().flatten(2)
    centred = g - g.mean(2, keepdim=True)
    deviation = centred.pow(2).mean(2, keepdim=True).sqrt()
    constant = deviation <= FLAT * g.abs().amax(2, keepdim=True)
    z = torch.where(constant, 0.0, centred / torch.where(constant, 1.0, deviation))
    mean = u.mean((2, 3), keepdim=True)
    y = (u - mean).flatten(2)
    pixels = y.shape[2]
    scatter = z @ z.transpose(1, 2) / pixels + RIDGE * torch.eye(z.shape[1], dtype=z.dtype)
    weights = torch.linalg.solve(scatter, z @ y.transpose(1, 2) / pixels)
    fitted = (weights.transpose(1, 2) @ z).view_as(u) + mean
    return (0.5 * (u + fitted)).to(f.dtype)


def restore(f, reference):
    """Gives each component of each image the mean and the deviation that it has in `reference`."""
    f, reference = f.double(), reference.double()
    m, r = f.mean((2, 3), keepdim=True), reference.mean((2, 3), keepdim=True)
    s = (f - m).pow(2).mean((2, 3), keepdim=True).sqrt()
    t = (reference - r).pow(2).mean((2, 3), keepdim=True).sqrt()
    gain = torch.where(s > 0, t / torch.where(s > 0, s, 1.0), 0.0)
    return ((f - m) * gain + r).float()


def extrapolate(features, guides, size, trace=None):
    """features [N,3,h,w] (scores, or quantised colours), guides from `levels` -> [N,3,H,W], before the last norm."""
    start = norm(features)
    f = start
    for guide in guides:
        f = step(f, guide)
        if trace is not None:
            trace.append(f)
    return restore(resize(f, size), resize(start, size))


def components(excitation):
    """Scores of the first three principal components over all images; the largest magnitude is positive."""
    n, c, h, w = excitation.shape
    rows = excitation.double().permute(0, 2, 3, 1).reshape(-1, c)
    u, s, _ = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    scores = u[:, :3] * s[:3]
    scores = scores * torch.sign(scores[scores.abs().argmax(0), torch.arange(3)])
    return scores.reshape(n, h, w, 3).permute(0, 3, 1, 2).float().contiguous()


class Tapped:
    """A network of efficientnet_lite_pytorch: final excitation and the group means of what enters spatial operators."""

    def __init__(self, network):
        self.network, self.guides, self.sources = network, [], []
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1 and module.in_channels > 3:
                module.register_forward_pre_hook(lambda _m, given, name=name: self.keep(name, given[0]))

    def keep(self, name, activation):
        self.sources.append(name)
        self.guides.append(group_means(activation))

    @torch.no_grad()
    def __call__(self, images):
        self.guides, self.sources = [], []
        final = self.network.extract_features(images)
        return final, levels(self.guides, final.shape[-2:])


def lite(name, folder):
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(name.replace("efficientnet_lite", "efficientnet-lite"))
    network.load_state_dict(torch.load(f"{folder}/{name}.pth", map_location="cpu", weights_only=True))
    return network.eval()


def prism_map(tapped, images, trace=None):
    final, guides = tapped(images)
    features = components(final)
    return norm(extrapolate(features, guides, images.shape[-2:], trace)), features, guides


if __name__ == "__main__":
    folder, composites, out, *name = sys.argv[1:]
    tapped = Tapped(lite(name[0] if name else "efficientnet_lite0", folder))
    images = torch.from_numpy(np.load(composites)["input"][:2])
    trace = []
    maps, features, guides = prism_map(tapped, images, trace)
    arrays = {f"guides_{k}": g.numpy() for k, g in enumerate(guides)} | {f"level_{k}": f.numpy() for k, f in enumerate(trace)}
    np.savez_compressed(out, input=images.numpy(), features=features.numpy(), maps=maps.numpy(), **arrays)
    print([tuple(g.shape) for g in guides], tapped.sources)

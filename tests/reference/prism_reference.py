"""PRISM in eager PyTorch and NumPy: the independent computation that the Rust tests compare with.

Nothing here is part of the product. It reads like the method's definition, takes the slow and obvious
way everywhere (a full SVD, one tensor for the whole batch), and finds layers with plain forward hooks.

    python tests/reference/prism_reference.py --arrays FOLDER --torch-home FOLDER [--save TABLE.txt]

compares it with stored TorchPRISM output: FOLDER/*.npz of torchvision networks, whose weights lie in
TORCH_HOME/hub/checkpoints. Needs torch 2.13.0 and torchvision 0.28.0. Exit status 1 on disagreement.

T. Szandala, "PRISM: Principal Image Sections Mapping", ICCS 2022; "Gradual Extrapolation", IEEE Access 2021.
"""
import argparse
import os
import sys
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

LEVELS = 0.5  # spacing of the quantised colours: 0, 0.5, 1 per channel, so 27 colours


# --- which tensors are captured ------------------------------------------------------------------


@dataclass
class Capture:
    """One captured tensor [N, C, h, w] and where it was taken ("output of features.4")."""

    place: str
    tensor: torch.Tensor


@dataclass
class Excitations:
    """What one forward pass leaves: `guides` in the order of execution, so the shallowest comes first."""

    logits: torch.Tensor
    final: Capture
    guides: list
    input_size: tuple = None  # (H, W) where the guides are regressed on, up to that size, else None

    def kept(self, guide):
        """What is kept of a guide: its channel mean, or the means of four runs of its channels, positive parts alone."""
        return guide.mean(1, keepdim=True) if self.input_size is None else group_means(guide)

    def described(self):
        """The captured tensors in the order of execution, as the `layers` of an expected file; `means` are of
        each of the numbers that are kept of a pixel."""
        rows = [("guide", guide, self.kept(guide.tensor)) for guide in self.guides]
        rows.append(("final", self.final, self.final.tensor))
        return [
            {
                "role": role,
                "name": capture.place,
                "shape": list(capture.tensor.shape[1:]),
                "means": kept.double().mean((0, 2, 3)).tolist(),
            }
            for role, capture, kept in rows
        ]


def scores_of(output):
    """The first [N, K] tensor of a network's output (a tensor, tuple or dict)."""
    if isinstance(output, torch.Tensor):
        return output
    values = output.values() if isinstance(output, dict) else output
    return next(value for value in values if value is not None and value.dim() == 2)


def torchprism_layers(network):
    """(name, module) of every 2-d max-pool and of every 2-d convolution with a stride above 1."""
    for name, module in network.named_modules():
        strided = isinstance(module, nn.Conv2d) and max(module.stride) > 1
        if strided or isinstance(module, nn.MaxPool2d):
            yield name, module


def torchprism_excitations(network, images):
    """TorchPRISM's rule. Hooks keep references, as TorchPRISM's do, and never copies: an in-place ReLU
    behind a strided convolution changes what was captured."""
    captures, handles = [], []

    def hook(name):
        def keep(_module, inputs, output):
            if not captures:
                captures.append(Capture(f"input of {name}", inputs[0]))
            captures.append(Capture(f"output of {name}", output))

        return keep

    for name, module in torchprism_layers(network):
        handles.append(module.register_forward_hook(hook(name)))
    with torch.no_grad():
        logits = scores_of(network(images))
    for handle in handles:
        handle.remove()
    return Excitations(logits, captures[-1], captures[:-1])


@dataclass(frozen=True)
class AutoLayers:
    """The `auto` rule's tensors of one network, found by a person reading the network, not by a search.

    `final` and `guides` are (side, module path), side "input" or "output"; guides in the order of execution.
    None stands for "the TorchPRISM rule, unchanged" (the VGG family).
    """

    final: tuple
    guides: tuple


def auto_excitations(network, images, layers):
    """The `auto` rule with the hand-written `layers` (None: TorchPRISM's). Each tensor is copied when it
    is seen: the named places already lie behind the non-linearity."""
    if layers is None:
        return torchprism_excitations(network, images)
    modules, seen, handles = dict(network.named_modules()), {}, []

    def before(key):
        def keep(_module, inputs):
            seen[key] = Capture(f"input of {key[1]}", inputs[0].clone())

        return keep

    def after(key):
        def keep(_module, _inputs, output):
            seen[key] = Capture(f"output of {key[1]}", output.clone())

        return keep

    for key in (*layers.guides, layers.final):
        side, path = key
        module = modules[path]
        if side == "input":
            handles.append(module.register_forward_pre_hook(before(key)))
        else:
            handles.append(module.register_forward_hook(after(key)))
    with torch.no_grad():
        logits = scores_of(network(images))
    for handle in handles:
        handle.remove()
    guides = [seen[key] for key in layers.guides]
    return Excitations(logits, seen[layers.final], guides, tuple(images.shape[2:]))


# --- from excitations to colours ------------------------------------------------------------------


def pca(rows):
    """Scores [n, 3] of the first three principal components of `rows` [n, C] and the variance ratio of all
    min(n, C). In each component the score of largest magnitude is positive; components beyond min(n, C)
    are zeros, and so is everything for constant rows."""
    rows = np.asarray(rows, dtype=np.float64)
    centred = rows - rows.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    power = (s**2).sum()
    ratio = s**2 / power if power > 0 else np.zeros_like(s)
    scores = np.zeros((len(rows), 3))
    for k in range(min(3, len(s))):
        column = u[:, k] * s[k]
        scores[:, k] = column if column[np.abs(column).argmax()] >= 0 else -column
    return scores, ratio


def features_of(excitation):
    """PCA of an excitation [N, C, h, w] over all images together: features [N, 3, h, w], variance ratio."""
    array = excitation.double().numpy()
    n, c, h, w = array.shape
    scores, ratio = pca(array.transpose(0, 2, 3, 1).reshape(-1, c))
    features = scores.reshape(n, h, w, 3).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(features)).to(excitation.dtype), ratio


def norm(f):
    """Standardise with one mean and one unbiased deviation, clip to [-1, 1], stretch to [0, 1]; all over
    the whole tensor. A constant tensor gives zeros."""
    if f.max() == f.min():
        return torch.zeros_like(f)
    z = ((f - f.mean()) / f.std(unbiased=True)).clamp(-1, 1)
    return (z - z.min()) / (z.max() - z.min())


def colours(f):
    """One integer 0..26 per pixel of `f` [N, 3, h, w], quantised: [N, h, w]."""
    digits = torch.round(f / LEVELS).long()
    return digits[:, 0] * 9 + digits[:, 1] * 3 + digits[:, 2]


def quantise(f, inclusive, exclusive):
    """Quantised colours of `f` [N, 3, h, w]; `inclusive` keeps those that every image has, `exclusive`
    those that not every image has, both keep all."""
    q = LEVELS * torch.round(norm(f) / LEVELS)  # torch.round rounds half to even
    if inclusive and exclusive:
        return q
    code = colours(q)
    common = set.intersection(*(set(image.flatten().tolist()) for image in code))
    shared = torch.isin(code, torch.tensor(sorted(common), dtype=torch.long))
    zeroed = ~shared if inclusive else shared
    return q * (~zeroed)[:, None].to(q.dtype)


def resize(f, size):
    return F.interpolate(f, size=size, mode="bilinear", align_corners=False)


def gradual_extrapolation(f, guides):
    """`guides` [N, C_i, h_i, w_i] in the order of execution; they are applied from the deepest up."""
    for guide in reversed(guides):
        f = resize(f, guide.shape[2:]) * guide.mean(dim=1, keepdim=True)
    return f


GROUPS = 4  # numbers kept of a pixel of a guide that is regressed on
RIDGE = 0.1  # of the standardised numbers' variance, 1
FLAT = 1e-6  # a number whose deviation is at most this share of its largest magnitude is constant


def group_means(activation):
    """[N, C, h, w] -> [N, min(4, C), h, w]: the means of the positive parts of four runs of channels; channel c
    belongs to run floor(c * 4 / C)."""
    channels = activation.shape[1]
    groups = min(GROUPS, channels)
    runs = [[c for c in range(channels) if c * groups // channels == run] for run in range(groups)]
    return torch.stack([activation[:, run].clamp(min=0).mean(1) for run in runs], 1)


def regressed(f, guide):
    """Half of `f` resized to `guide` [N, k, h, w], half of what a ridge regression of it on the guide's k
    numbers says, for each image by itself. In float64; as least squares with a row more for each number
    (Hoerl and Kennard, 1970)."""
    u = f.double() if f.shape[2:] == guide.shape[2:] else resize(f.double(), guide.shape[2:])
    results = []
    for colours, numbers in zip(u.numpy(), guide.double().numpy()):
        y, x = colours.reshape(3, -1).T, numbers.reshape(len(numbers), -1).T
        deviation, largest = x.std(0), np.abs(x).max(0)
        varies = deviation > FLAT * largest
        z = (x - x.mean(0))[:, varies] / deviation[varies]
        rows = np.concatenate([z, np.sqrt(RIDGE * len(z)) * np.eye(z.shape[1])])
        wanted = np.concatenate([y - y.mean(0), np.zeros((z.shape[1], 3))])
        weights = np.linalg.lstsq(rows, wanted, rcond=None)[0]
        fitted = (z @ weights + y.mean(0)).T.reshape(colours.shape)
        results.append(0.5 * (colours + fitted))
    return torch.from_numpy(np.stack(results))


def restore(f, reference):
    """Gives each component of each image the mean and the deviation that it has in `reference`."""
    results = torch.zeros_like(f)
    for image, (own, wanted) in enumerate(zip(f, reference)):
        for k in range(3):
            spread = own[k].std(unbiased=False)
            gain = wanted[k].std(unbiased=False) / spread if spread > 0 else 0.0
            results[image, k] = (own[k] - own[k].mean()) * gain + wanted[k].mean()
    return results


def regression(f, guides, size):
    """`guides` [N, k_i, h_i, w_i], as `group_means` leaves them: `f` [N, 3, h, w] brought up to `size` by the
    guides of each resolution together, the coarsest first."""
    start = norm(f).double()
    f = start
    for shape in sorted({tuple(guide.shape[2:]) for guide in guides}):
        f = regressed(f, torch.cat([guide for guide in guides if tuple(guide.shape[2:]) == shape], 1))
    return restore(resize(f, size), resize(start, size))


def prism_map(excitations, inclusive=False, exclusive=False, extrapolate=True):
    """The map [N, 3, H, W] in [0, 1]."""
    f, _ = features_of(excitations.final.tensor)
    dtype = f.dtype
    if inclusive or exclusive:
        f = quantise(f, inclusive, exclusive)
    if extrapolate and excitations.input_size is None:
        f = gradual_extrapolation(f, [guide.tensor for guide in excitations.guides])
    elif extrapolate:
        guides = [group_means(guide.tensor) for guide in excitations.guides]
        f = regression(f, guides, excitations.input_size).to(dtype)
    return norm(f)


MODES = {
    "maps_default": {},
    "maps_inclusive": {"inclusive": True},
    "maps_exclusive": {"exclusive": True},
    "maps_both": {"inclusive": True, "exclusive": True},
}
MODES = {
    name + suffix: {**options, "extrapolate": not suffix}
    for name, options in MODES.items()
    for suffix in ("", "_no_ge")
}
MODES["maps_no_ge"] = MODES.pop("maps_default_no_ge")


# --- comparison with stored TorchPRISM output -------------------------------------------------------

# logits and variance ratio: share of the reference's largest magnitude; continuous maps: worst and mean;
# quantised maps: share of pixels that may be off at all
VECTOR, WORST, MEAN, PIXELS = 1e-3, 1e-3, 1e-4, 0.005


def torchvision_network(name, torch_home):
    """A torchvision network with the weights that lie under torchvision's own file name."""
    from torchvision import models

    options = {"init_weights": False, "aux_logits": True, "transform_input": True} if name == "googlenet" else {}
    network = getattr(models, name)(weights=None, **options)
    url = models.get_model_weights(name).IMAGENET1K_V1.url
    path = os.path.join(torch_home, "hub", "checkpoints", os.path.basename(url))
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


def compare_vector(ours, reference):
    """(worst, mean, None, agrees); differences as a share of the reference's largest magnitude."""
    if ours.shape != reference.shape:
        return float("nan"), float("nan"), None, False
    difference = np.abs(ours.astype(np.float64) - reference) / np.abs(reference).max()
    return difference.max(), difference.mean(), None, difference.max() <= VECTOR


def compare_map(ours, reference, quantised):
    """(worst, mean, share of pixels off, agrees). NaN in the reference means 'constant': zeros here."""
    if ours.shape != reference.shape:
        return float("nan"), float("nan"), float("nan"), False
    if np.isnan(reference).any():
        agrees = bool(np.isnan(reference).all() and not ours.any())
        return 0.0 if agrees else float("nan"), 0.0, 0.0 if agrees else 1.0, agrees
    difference = np.abs(ours.astype(np.float64) - reference)
    off = (difference > WORST).any(axis=1)
    if quantised:
        # at feature resolution one pixel: there one pixel may be more than the share allows
        at_feature_size = ours.shape[2] < 100
        agrees = off.sum() <= 1 if at_feature_size else off.mean() <= PIXELS
    else:
        agrees = difference.max() <= WORST and difference.mean() <= MEAN
    return difference.max(), difference.mean(), off.mean(), bool(agrees)


def compare_network(name, arrays, torch_home):
    """Rows (network, array, worst, mean, share of pixels off or None, agrees)."""
    images = torch.from_numpy(arrays["input"])
    excitations = torchprism_excitations(torchvision_network(name, torch_home), images)
    yield (name, "logits", *compare_vector(excitations.logits.numpy(), arrays["logits"]))
    ratio = features_of(excitations.final.tensor)[1]
    yield (name, "variance_ratio", *compare_vector(ratio, arrays["variance_ratio"]))
    for mode in sorted(MODES):
        ours = prism_map(excitations, **MODES[mode]).numpy()
        quantised = "clusive" in mode or "both" in mode
        yield (name, mode, *compare_map(ours, arrays[mode], quantised))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arrays", required=True, help="folder of NETWORK.npz with stored TorchPRISM output")
    parser.add_argument("--torch-home", required=True, help="folder with hub/checkpoints/*.pth")
    parser.add_argument("--save", help="also write the table to this file")
    options = parser.parse_args()

    lines = [f"{'network':14} {'array':24} {'worst':>10} {'mean':>10} {'pixels off':>11}  agrees"]
    failures = 0
    for file in sorted(os.listdir(options.arrays)):
        name, extension = os.path.splitext(file)
        if extension != ".npz" or name == "saliency":
            continue
        with np.load(os.path.join(options.arrays, file)) as arrays:
            known = {"input", "logits", "variance_ratio", *MODES}
            unknown = set(arrays.files) - known
            if unknown:
                sys.exit(f"{file}: arrays that nothing compares with: {sorted(unknown)}")
            for row in compare_network(name, arrays, options.torch_home):
                network, array, worst, mean, off, agrees = row
                share = "-" if off is None else f"{100 * off:.3f} %"
                constant = agrees and off is not None and np.isnan(arrays[array]).all()
                verdict = ("yes (constant)" if constant else "yes") if agrees else "NO"
                lines.append(f"{network:14} {array:24} {worst:10.2e} {mean:10.2e} {share:>11}  {verdict}")
                failures += not agrees
    lines.append(f"{failures} disagree")
    table = "\n".join(lines)
    print(table)
    if options.save:
        with open(options.save, "w", encoding="utf-8") as out:
            out.write(table + "\n")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()

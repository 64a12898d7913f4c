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
    input_size: tuple  # (H, W)
    products: bool  # TorchPRISM's rule: features are multiplied by the guides

    def kept(self, guide):
        """What is kept of a guide: its channel mean for a product, else its signed sums."""
        return guide.mean(1, keepdim=True) if self.products else signed_sums(guide)

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
    return Excitations(logits, captures[-1], captures[:-1], tuple(images.shape[2:]), products=True)


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
    return Excitations(logits, seen[layers.final], guides, tuple(images.shape[2:]), products=False)


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


def chosen_colours(code, inclusive, exclusive):
    """Which of the 27 colours are kept, given those of the images, `code` [N, h, w]: `inclusive` keeps those that
    every image has, `exclusive` those that not every image has, both keep all."""
    common = set.intersection(*(set(image.flatten().tolist()) for image in code))
    kept = [True if inclusive and exclusive else (k in common) == inclusive for k in range(27)]
    return torch.tensor(kept)


def rounded_colours(f):
    return LEVELS * torch.round(norm(f) / LEVELS)  # torch.round rounds half to even


def quantise(f, inclusive, exclusive):
    """Quantised colours of `f` [N, 3, h, w]; those that are not kept are zero."""
    q = rounded_colours(f)
    code = colours(q)
    return q * chosen_colours(code, inclusive, exclusive)[code][:, None].to(q.dtype)


def resize(f, size):
    return F.interpolate(f, size=size, mode="bilinear", align_corners=False)


def gradual_extrapolation(f, guides):
    """`guides` [N, C_i, h_i, w_i] in the order of execution; they are applied from the deepest up."""
    for guide in reversed(guides):
        f = resize(f, guide.shape[2:]) * guide.mean(dim=1, keepdim=True)
    return f


# --- the bilateral rule ---------------------------------------------------------------------------------

KEPT = 16  # numbers kept of a pixel of a guide
FLAT = 1e-6  # a number whose deviation is at most this share of its largest magnitude is constant
STEPS = 25  # of a stored number, in one deviation
CELL = 0.6  # deviation, in cells, of the weights by which a cell's guides are a mean over pixels
NEAR, ALIKE = 2.0, 0.2  # deviations of the weights by distance in cells and by difference of the guides
REACH = 6  # cells farther away on an axis have no weight


def signs(channels):
    """[16, channels] of +1 and -1: bit k of the output of splitmix64 (Steele, Lea and Flood, 2014) for channel c."""
    z = np.arange(1, channels + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    bits = (z[None] >> np.arange(KEPT, dtype=np.uint64)[:, None]) & np.uint64(1)
    return torch.from_numpy(bits.astype(np.float64) * 2 - 1)


def signed_sums(guide):
    """[N, C, h, w] -> [N, min(16, C), h, w] float64: 16 sums of all channels with random signs, divided by sqrt(C),
    which keep the distances between pixels (Achlioptas, 2003). Up to 16 channels are kept as they are."""
    guide = guide.double()
    channels = guide.shape[1]
    if channels <= KEPT:
        return guide
    return torch.einsum("kc,nchw->nkhw", signs(channels), guide) / channels**0.5


def standardised(kept):
    """`kept` [N, k, h, w], each number of each image standardised over its pixels and rounded to 1/25 of a deviation
    within 127/25; constant numbers are zero."""
    centred = kept - kept.mean((2, 3), keepdim=True)
    deviation = centred.square().mean((2, 3), keepdim=True).sqrt()
    varies = deviation > FLAT * kept.abs().amax((2, 3), keepdim=True)
    z = torch.where(varies, centred / deviation, torch.zeros_like(centred))
    stored = torch.round(STEPS * z).clamp(-127, 127).to(torch.int8)
    return stored.double() / STEPS


def working_size(cells, guides, size):
    """Where the weights are computed: at most the finest guide and half the image, at least the cells."""
    finest = max((guide.shape[2:] for guide in guides), key=lambda shape: shape[0] * shape[1])
    return tuple(max(cells[a], min(finest[a], (size[a] + 1) // 2)) for a in (0, 1))


def brought_to(guide, size):
    """`guide` [N, k, h, w] at another size: interpolated, or if it is larger, pooled."""
    if guide.shape[2] <= size[0] and guide.shape[3] <= size[1]:
        return resize(guide, size)
    return F.adaptive_avg_pool2d(guide, size)


def places(pixels, cells):
    """The centres of `pixels` pixels in cells: [pixels], cell i has its centre at i."""
    return (np.arange(pixels) + 0.5) * cells / pixels - 0.5


def bilateral_weights(guides, cells, size):
    """Weights [N, h * w, H', W'] of the cells at each pixel, which sum to 1; None if no guide is finer than the cells.
    `guides` [N, C_i, h_i, w_i] as captured, `cells` (h, w), `size` that of the image."""
    guides = [guide for guide in guides if guide.shape[2] > cells[0] or guide.shape[3] > cells[1]]
    if not guides:
        return None
    height, width = working_size(cells, guides, size)
    g = torch.cat([brought_to(standardised(signed_sums(guide)), (height, width)) for guide in guides], 1).numpy()
    u, v = places(height, cells[0]), places(width, cells[1])
    rows, columns = np.divmod(np.arange(cells[0] * cells[1]), cells[1])
    down = u[None, :, None] - rows[:, None, None]
    across = v[None, None, :] - columns[:, None, None]
    d2 = down**2 + across**2  # [h * w, H', W']
    near = np.exp(-d2 / (2 * CELL**2))
    far = (abs(down) > REACH) | (abs(across) > REACH)
    weights = []
    for image in g:  # [D, H', W']
        of_cells = np.einsum("cyx,dyx->cd", near, image) / near.sum((1, 2))[:, None]
        unlike = ((image[None] - of_cells[:, :, None, None]) ** 2).sum(1)
        e = d2 / (2 * NEAR**2) + unlike / (2 * ALIKE**2 * len(image))
        e[far] = np.inf
        w = np.exp(e.min(0) - e)  # the nearest has 1: nothing is divided by zero
        weights.append(w / w.sum(0))
    return torch.from_numpy(np.stack(weights))


def nearest(f, size):
    """The pixel whose area has the new pixel's centre."""
    return F.interpolate(f, size=size, mode="nearest-exact")


def bilateral(f, weights, size):
    """`f` [N, 3, h, w] at `size`: at each pixel the mean of the cells by `weights`."""
    return resize(torch.einsum("nkc,ncyx->nkyx", f.double().flatten(2), weights), size)


def votes(code, weights, size):
    """`code` [N, h, w] at `size`: at each pixel the colour whose cells have the largest sum of `weights`, of equal
    sums the first colour's."""
    winners = []
    for cells, w in zip(code.flatten(1).numpy(), weights.numpy()):
        sums = np.stack([w[cells == k].sum(0) for k in range(27)])
        winners.append(sums.argmax(0))  # the first of equal ones
    return nearest(torch.from_numpy(np.stack(winners))[:, None].double(), size)[:, 0].long()


def weights_of(excitations, cells, upsampling):
    """The bilateral weights if they are asked for and there are guides for them, else None."""
    guides = [guide.tensor for guide in excitations.guides]
    return bilateral_weights(guides, cells, excitations.input_size) if upsampling == "bilateral" else None


def pixel_colours(f, excitations, upsampling):
    """Colours [N, 3, H, W] in [0, 1] of features `f`, otherwise than by a product."""
    f, size = norm(f), excitations.input_size
    if upsampling == "none":
        return f
    weights = weights_of(excitations, tuple(f.shape[2:]), upsampling)
    return resize(f, size) if weights is None else bilateral(f, weights, size).to(f.dtype)


def pixel_codes(f, excitations, upsampling, inclusive, exclusive):
    """Quantised colours of features `f`, otherwise than by a product: one of 27 per pixel [N, H, W], and whether it
    is left out."""
    code, size = colours(rounded_colours(f)), excitations.input_size
    kept = chosen_colours(code, inclusive, exclusive)
    weights = weights_of(excitations, tuple(f.shape[2:]), upsampling)
    if weights is not None:
        code = votes(code, weights, size)
    elif upsampling != "none":
        code = nearest(code[:, None].double(), size)[:, 0].long()
    return code, ~kept[code]


def map_and_left_out(excitations, inclusive=False, exclusive=False, upsampling=None):
    """The map [N, 3, H, W] in [0, 1] and which pixels are left out of it [N, H, W]. `upsampling` is product,
    bilateral, bilinear or none; None is the rule's own."""
    f, _ = features_of(excitations.final.tensor)
    quantised = inclusive or exclusive
    upsampling = upsampling or ("product" if excitations.products else "bilateral")
    if upsampling == "product" or upsampling == "none" and excitations.products:
        if quantised:
            f = quantise(f, inclusive, exclusive)
        if upsampling == "product":
            f = gradual_extrapolation(f, [guide.tensor for guide in excitations.guides])
        f = norm(f)
        return f, torch.zeros_like(f[:, 0], dtype=torch.bool)
    if not quantised:
        f = pixel_colours(f, excitations, upsampling)
        return f, torch.zeros_like(f[:, 0], dtype=torch.bool)
    code, left_out = pixel_codes(f, excitations, upsampling, inclusive, exclusive)
    digits = torch.stack([code // 9, code // 3 % 3, code % 3], 1)
    return (digits * LEVELS * ~left_out[:, None]).to(f.dtype), left_out


def prism_map(excitations, **options):
    return map_and_left_out(excitations, **options)[0]


MODES = {
    "maps_default": {},
    "maps_inclusive": {"inclusive": True},
    "maps_exclusive": {"exclusive": True},
    "maps_both": {"inclusive": True, "exclusive": True},
}
MODES = {
    name + suffix: {**options, "upsampling": "none" if suffix else None}
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

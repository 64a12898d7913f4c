"""Writes what saliency must give for the tiny networks: tests/data/expected/saliency.npz and saliency.json.

    python tests/reference/make_saliency.py     # after make_networks.py and make_expected.py, whose files it reads

saliency.npz holds per network, for the `input` of its own expected file, float32 `[N, 1, h, w]`:
`NETWORK/gradcam`, `NETWORK/ebp` (the first pass alone), `NETWORK/cebp` (contrastive, the contrast taken at the
auto rule's final excitation) at the final excitation, and `_early` at an earlier layer that every way to the
scores passes. The target is each image's own top class; with `_class3` it is class 3.

saliency.json: NETWORK -> `layer` and `early_layer` (named as `prism layers` names them; a traced
tiny_inception puts `network.` before), `place` and `early_place` (in the eager network), `targets`, `sum_ebp`
and `sum_ebp_early` (the sum of p per image: 1 but for what units without any positive input lose), `lost` (where,
when more than 1e-4 on the way to the early layer: fx node -> largest share of an image) and `zero`: arrays that
are zero but for rounding, written as zeros. So is the contrast right before a 1x1 convolution that makes the
scores: at every pixel both passes hand on all they get there, and their sums over the channels are the same.

The script stops where a figure would not be worth comparing with: a map is not finite, zero everywhere or
changes by more than a tenth of what is asked for when computed in float64.
"""
import json
import os

import numpy as np
import torch
import torch.nn.functional as F

from make_expected import AUTO, EXPECTED, check, readable
from make_networks import DATA, NETWORKS, build
from saliency_reference import excitation_probability, gradcam, top_classes
from prism_reference import scores_of

AGREEMENT = 1e-4  # float32 against float64, of the largest magnitude
FIXED_NETWORK, FIXED_CLASS = "tiny_resnet", 3
SUM = 1e-3  # p keeps its sum
LOST = 1e-4
ZERO = 1e-9  # a map below this share of the first pass's is nothing but rounding

# network: final excitation as `prism layers` names it, the early place and its name there
LAYERS = {
    "tiny_vgg": ("features.10", ("output", "features.5"), "features.5"),
    "tiny_resnet": ("layer2.1.relu.relu_2", ("output", "layer1"), "layer1.1.relu.relu_2"),
    "tiny_bottleneck": ("layer2.1.relu.relu_3", ("output", "layer1"), "layer1.1.relu.relu_3"),
    "tiny_inception": ("inception3b.cat", ("output", "inception3a"), "inception3a.cat"),
    "tiny_mobilenet": ("head.2", ("output", "blocks.1"), "blocks.1.add"),
    "tiny_squeezenet": ("features.6.cat", ("output", "features.4"), "features.4.cat"),
    "tiny_dict": ("relu3", ("output", "pool"), "pool"),
    "tiny_gated": ("head.2", ("output", "blocks.1"), "blocks.1.add"),
    "tiny_dense": ("relu", ("output", "transition"), "transition.3"),
    "tiny_shuffle": ("conv5.2", ("output", "stage2"), "stage2.1.view_2"),
    "tiny_convnext": ("stage2.1.add", ("output", "stage1"), "stage1.1.add"),
}
TINY_VGG_FINAL = ("output", "features.10")  # its auto rule is the TorchPRISM rule


def load(name, dtype):
    """The network with the weights of the file, and the stored images."""
    network = build(name)
    scripted = torch.jit.load(os.path.join(DATA, "networks", f"{name}_scripted.pt"))
    network.load_state_dict(scripted.state_dict())
    with np.load(os.path.join(EXPECTED, f"{name}.npz")) as arrays:
        images, logits = torch.from_numpy(arrays["input"]), torch.from_numpy(arrays["logits"])
    network = network.to(dtype).eval()
    with torch.no_grad():
        scores = scores_of(network(images.to(dtype)))
    check(torch.allclose(scores, logits.to(dtype), atol=1e-4), f"{name}: other scores than stored")
    return network, images.to(dtype), top_classes(scores)


def maps(network, images, places, targets):
    """{array: [N, 1, h, w]} at the places {suffix: place}, p's sum per image and what was lost where."""
    arrays, sums, lost = {}, {}, {}
    for suffix, place in places.items():
        p, lost[suffix] = excitation_probability(network, images, place, targets)
        q, _ = excitation_probability(network, images, place, targets, True, places[""])
        arrays["gradcam" + suffix] = gradcam(network, images, place, targets)
        arrays["ebp" + suffix] = F.relu(p.sum(dim=1, keepdim=True))
        arrays["cebp" + suffix] = F.relu(q.sum(dim=1, keepdim=True))
        sums[suffix] = p.flatten(1).sum(1)
    return arrays, sums, lost


def saliency_of(name, fixed=None):
    """Arrays in float32 and the network's entry of saliency.json."""
    layer, early, early_layer = LAYERS[name]
    final = AUTO[name].final if AUTO[name] else TINY_VGG_FINAL
    places = {"": final, "_early": early}
    found = {}
    for dtype in (torch.float32, torch.float64):
        network, images, targets = load(name, dtype)
        if fixed is not None:
            targets = torch.full_like(targets, fixed)
        found[dtype] = maps(network, images, places, targets)
    arrays, sums, _ = found[torch.float32]
    exact, exact_sums, lost = found[torch.float64]
    worst, zero = {}, []
    for key, array in arrays.items():
        if exact[key].max() < ZERO * exact["ebp"].max():
            array.zero_()
            zero.append(key)
            continue
        check(torch.isfinite(array).all(), f"{name}: {key} is not finite")
        check((array.amax(dim=(1, 2, 3)) > 0).all(), f"{name}: {key} is zero for an image")
        difference = float((array - exact[key]).abs().max() / exact[key].abs().max())
        check(difference < AGREEMENT, f"{name}: {key}: float64 differs by {difference:.1e}")
        worst[key] = difference
    entry = {
        "layer": layer,
        "place": " of ".join(final),
        "early_layer": early_layer,
        "early_place": " of ".join(early),
        "targets": targets.tolist(),
        "sum_ebp": [round(float(total), 6) for total in exact_sums[""]],
        "sum_ebp_early": [round(float(total), 6) for total in exact_sums["_early"]],
    }
    if zero:
        entry["zero"] = zero
    largest = {node: float(share.abs().max()) for node, share in lost["_early"].items()}
    places_lost = {node: round(share, 6) for node, share in largest.items() if share > LOST}
    if places_lost:
        entry["lost"] = places_lost
    kept = all(abs(total - 1) < SUM for key in ("sum_ebp", "sum_ebp_early") for total in entry[key])
    check(kept or places_lost, f"{name}: p loses its sum, nobody knows where")
    figures = " ".join(f"{key} {value:.0e}" for key, value in worst.items())
    print(f"{name:16} {'kept' if kept else 'LOST'} {entry['sum_ebp']} {entry['sum_ebp_early']}")
    print(f"{'':16} float64 differs by: {figures}")
    for node, share in places_lost.items():
        print(f"{'':16} {share:8.4f} lost at {node}")
    return {key: array.numpy().astype(np.float32) for key, array in arrays.items()}, entry


def main():
    torch.set_num_threads(1)  # sums in one order
    arrays, entries = {}, {}
    for name in NETWORKS:
        found, entries[name] = saliency_of(name)
        arrays.update({f"{name}/{key}": array for key, array in found.items()})
    found, _ = saliency_of(FIXED_NETWORK, FIXED_CLASS)
    arrays.update({f"{FIXED_NETWORK}/{key}_class{FIXED_CLASS}": array for key, array in found.items()})
    path = os.path.join(EXPECTED, "saliency.npz")
    np.savez_compressed(path, **arrays)
    with open(os.path.join(EXPECTED, "saliency.json"), "w", encoding="utf-8") as out:
        out.write(readable(entries) + "\n")
    print(f"{os.path.getsize(path) / 1024:7.1f} KiB  {os.path.relpath(path)}, {len(arrays)} arrays")


if __name__ == "__main__":
    main()

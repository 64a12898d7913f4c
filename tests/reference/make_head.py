"""Class scores of given final excitations: tests/data/head.npz, for the tests of the key.

    python tests/reference/make_head.py

For each tiny network, `NAME_input` [4, C, h, w] float32 holds excitations in place of those of the `auto` rule's layer,
and `NAME_scores` [4, K] the scores that eager PyTorch computes with them: a hook returns them as the layer's output (or
changes the input of the layer after it) while the network sees zeros. Two of the excitations are means that are spread
over the map, two vary over it. `tiny_resnet` has average pooling and a linear layer: `tiny_resnet_weight` [K, C] is its
matrix. Needs torch 2.13.0.
"""
import os

import numpy as np
import torch

from make_expected import AUTO, DATA
from make_networks import NETWORKS, SIZE, build
from prism_reference import auto_excitations, scores_of, torchprism_layers


def check(condition, message):
    if not condition:
        raise SystemExit(message)


def place_of(name, network):
    """(side, module path) of the final excitation."""
    layers = AUTO[name]
    return layers.final if layers else ("output", list(torchprism_layers(network))[-1][0])


def scores_with(network, place, excitations):
    """The scores with `excitations` in place of the values at `place`."""
    side, path = place
    module = dict(network.named_modules())[path]
    if side == "input":
        handle = module.register_forward_pre_hook(lambda _module, _inputs: (excitations,))
    else:
        handle = module.register_forward_hook(lambda _module, _inputs, _output: excitations)
    with torch.no_grad():
        scores = scores_of(network(torch.zeros(len(excitations), 3, SIZE, SIZE)))
    handle.remove()
    return scores


def main():
    arrays = {}
    for name in NETWORKS:
        if name not in AUTO:
            continue
        network = build(name)
        scripted = torch.jit.load(os.path.join(DATA, "networks", f"{name}_scripted.pt"))
        network.load_state_dict(scripted.state_dict())
        network.eval()
        images = torch.from_numpy(np.load(os.path.join(DATA, "expected", f"{name}.npz"))["input"])
        final = auto_excitations(network, images, AUTO[name]).final.tensor.detach()
        place = place_of(name, network)
        own = auto_excitations(network, images, AUTO[name]).logits
        check(torch.allclose(scores_with(network, place, final), own, atol=1e-5), f"{name}: the hook changes the scores")
        spread = final[:2].mean((2, 3), keepdim=True).expand_as(final[:2])
        weights = torch.linspace(0.5, 1.5, final.shape[1])[:, None, None]
        given = torch.cat([spread, final[:2].flip(3) * weights]).contiguous()
        scores = scores_with(network, place, given)
        check((scores[0] - scores[2]).abs().max() > 1e-3, f"{name}: the excitation hardly matters")
        arrays[f"{name}_input"], arrays[f"{name}_scores"] = given.numpy(), scores.numpy()
        print(f"{name:18} {place[0]} of {place[1]}, {list(given.shape)}")
        if name == "tiny_resnet":
            arrays["tiny_resnet_weight"] = network.fc.weight.detach().numpy()
    np.savez_compressed(os.path.join(DATA, "head.npz"), **arrays)


if __name__ == "__main__":
    main()

"""The features of an EfficientNet-Lite by PyTorch: of the images, of places four times finer, of twice the input size."""
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

FINER = 4
PAIRS = 20000
SEED = 4
TOLERANCE = 1e-3  # deviations by which prism's features may differ from those computed here

# The last activation, which `auto` analyses, and the output of the last strided convolution, which TorchPRISM's rule does.
LAYERS = ("last", "strided")


def lite(name, folder):
    """An EfficientNet-Lite of efficientnet_lite_pytorch with the weights in `folder`."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(name.replace("efficientnet_lite", "efficientnet-lite"))
    network.load_state_dict(torch.load(f"{folder}/{name}.pth", map_location="cpu", weights_only=True))
    return network.eval()


class Network:
    """An EfficientNet-Lite that shows its inner activations."""

    def __init__(self, name, folder):
        self.eager = lite(name, folder)
        self._guides, self._strided = [], None
        for block in self.eager._blocks:
            block._depthwise_conv.register_forward_pre_hook(self._enters)
            if max(block._depthwise_conv.stride) > 1:
                strided = block
        strided._depthwise_conv.register_forward_hook(self._leaves)

    def _enters(self, _, inputs):
        self._guides.append(inputs[0])

    def _leaves(self, _, inputs, output):
        self._strided = output

    @torch.no_grad()
    def activations(self, images):
        """{layer: [B,C,n,n]}, of LAYERS."""
        self._guides.clear()
        last = self.eager.extract_features(images)
        return dict(zip(LAYERS, (last, self._strided)))

    def guides(self, images):
        """The activations that enter a spatial convolution after the first one, in order."""
        self.activations(images)
        return list(self._guides)


class Basis:
    """Three principal components of activations [B,C,n,n], with prism's norm: cut at one deviation."""

    def __init__(self, activations, prism):
        rows = activations.permute(0, 2, 3, 1).flatten(0, 2).double()
        self.mean = rows.mean(0)
        self.components = torch.linalg.svd(rows - self.mean, full_matrices=False).Vh[:3]
        scores = self.scores(activations)
        prism = torch.from_numpy(prism).double()
        # The decomposition leaves the signs open.
        signs = (scores * prism).sum((0, 2, 3)).sign()
        self.components *= signs[:, None]
        scores *= signs[:, None, None]
        self.level, self.deviation = scores.mean(), scores.std()
        self.error = ((scores - prism).abs().max() / self.deviation).item()

    def scores(self, activations):
        return torch.einsum("kc,bchw->bkhw", self.components, activations.double() - self.mean[:, None, None])

    def features(self, activations):
        return ((self.scores(activations) - self.level) / self.deviation).clamp(-1, 1).float()


@dataclass
class Truth:
    """What a map is compared with; features are cut at one deviation, -1 to 1."""

    cells: torch.Tensor  # [B,3,n,n]: features
    dense: torch.Tensor  # [B,3,4n,4n]: features of finer places
    double: torch.Tensor  # [B,3,m,m]: features at twice the input size
    pairs: tuple  # two lists of places of `dense`, within and across images
    cosine: torch.Tensor  # of all channels of each pair, from the mean of the cells


def stitched(network, images, cells):
    """{layer: [B,C,4n,4n]}: features of images shifted by quarters of a cell, stitched (Long et al. 2015, section 3.2)."""
    size = images.shape[-1]
    shifts = [round((step + 0.5) / FINER * size / cells - 0.5 * size / cells) for step in range(FINER)]
    border = -min(shifts)
    wide = F.pad(images, (border,) * 4, mode="reflect")
    grids = {}
    for i, y in enumerate(shifts):
        for j, x in enumerate(shifts):
            top, left = border + y, border + x
            moved = network.activations(wide[:, :, top : top + size, left : left + size])
            for layer, values in moved.items():
                grid = grids.setdefault(layer, values.new_empty(*values.shape[:3], FINER, values.shape[3], FINER))
                grid[:, :, :, i, :, j] = values
    return {layer: grid.flatten(4).flatten(2, 3) for layer, grid in grids.items()}


def truths(network, images, prism):
    """{layer: Truth} of a batch; `prism` holds the program's own features of each layer [B,3,n,n], the components to use."""
    images = torch.from_numpy(images)
    plain = network.activations(images)
    dense = stitched(network, images, plain["last"].shape[-1])
    size = 2 * images.shape[-1]
    double = network.activations(F.interpolate(images, size=(size, size), mode="bicubic", align_corners=False))
    found = {}
    for layer, features in prism.items():
        basis = Basis(plain[layer], features)
        if not basis.error < TOLERANCE:
            raise SystemExit(f"layer '{layer}': prism's features differ from PyTorch's by {basis.error:.2g} deviations")
        places = (dense[layer] - basis.mean.float()[:, None, None]).permute(0, 2, 3, 1).flatten(0, 2)
        first, second = np.random.default_rng(SEED).integers(0, len(places), (2, PAIRS))
        found[layer] = Truth(
            cells=basis.features(plain[layer]),
            dense=basis.features(dense[layer]),
            double=basis.features(double[layer]),
            pairs=(first, second),
            cosine=F.cosine_similarity(places[first], places[second]),
        )
    return found

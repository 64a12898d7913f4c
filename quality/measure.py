"""How true maps are to the features of the network, and how well they separate an animal from the background.

    python quality/measure.py COMPOSITES_FOLDER --prism target/release/prism --models models
        [--page docs/quality.md --tables docs/quality-tables.md]

Maps come from the `prism` binary, 8 composites with known masks per run, and the photographs of samples/ in one more
run: the PCA and the norm are over these images, the same ones for every row. The measures a to f (MEASURES) are in
fidelity.py and separation.py; PyTorch computes the features that maps are compared with (features.py), on the
components of the run.

AUC per image: a logistic regression from the colours of the map to the mask, fitted on some random pixels and
evaluated on others (the same for all rows). AUC per batch: the same with ONE regression for all images of a batch:
equal colours must then mean similar features in all of them. Maps smaller than the mask are evaluated as they are
drawn, in blocks.

Controls are the red, green and blue of the image itself, and the mean colour of the batch everywhere.
pytorch-grad-cam 1.5.7 gives Grad-CAM (top class) and Deep Feature Factorization of the last activation, per batch and
per image.
"""
import argparse
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import pages
import program
import regression
import tables
from composites import SIZES
from features import Network, truths
from fidelity import correlation, rank_correlation, squared_error, within_object
from separation import PIXELS, auc_of

BATCH = 8
SEED = 4

# Row -> (options of prism, the layer whose features its map shows).
RULES = {
    "bilateral (auto)": (["--hooks", "auto"], "last"),
    "bilinear": (["--hooks", "auto", "--upsampling", "bilinear"], "last"),
    "none (blocks)": (["--hooks", "auto", "--upsampling", "none"], "last"),
    "torchprism": (["--hooks", "torchprism"], "strided"),
    "torchprism, bilinear": (["--hooks", "torchprism", "--upsampling", "bilinear"], "strided"),
}
BEFORE, MEAN = "regression (before)", "mean of regression and bilinear"
IMAGE, CONSTANT = "control: RGB of the image", "control: one colour, the mean"


@dataclass
class Row:
    """Maps [B,K,h,w] of a batch, and what can be asked of them: all, or only what needs no features."""

    maps: torch.Tensor
    layer: str = "last"
    measures: str = "abcdef"


def program_rows(options, network, images):
    """{row: Row} of the binary's maps, and {layer: the binary's features}."""
    found, features = {}, {}
    for name, (flags, layer) in RULES.items():
        saved = program.arrays(options, network, images, flags)
        found[name] = Row(torch.from_numpy(2 * saved["maps"] - 1), layer)
        features[layer] = saved["features"]
    return found, features


def regression_rows(network, images, cells):
    size = images.shape[-1]
    before = regression.upsampled(cells, network.guides(torch.from_numpy(images)), size)
    smooth = regression.resized(cells, size)
    return {BEFORE: Row(regression.normalised(before)), MEAN: Row((before + smooth) / 2)}


class WithLastLayer(torch.nn.Module):
    """EfficientNet-Lite shares one ReLU6 among all layers; this adds a module to hook after its last use."""

    def __init__(self, network):
        super().__init__()
        self.network, self.last = network, torch.nn.Identity()

    def forward(self, images):
        return self.network._fc(self.last(self.network.extract_features(images)).mean((2, 3)))


def peer_rows(network, images):
    """{row: Row} of the maps of pytorch-grad-cam."""
    from pytorch_grad_cam import DeepFeatureFactorization, GradCAM

    wrapped = WithLastLayer(network.eager).eval()
    batch = torch.from_numpy(images)
    found = {}
    with GradCAM(model=wrapped, target_layers=[wrapped.last]) as cam:
        found["Grad-CAM"] = cam(batch, targets=None)[:, None]
    for count in (3, 5):
        factorization = DeepFeatureFactorization(wrapped, wrapped.last)
        found[f"DFF, {count} components, per batch"] = np.stack(factorization(batch, count)[1])
        singles = [factorization(batch[i : i + 1], count)[1][0] for i in range(len(batch))]
        found[f"DFF, {count} components, per image"] = np.stack(singles)
    return {name: Row(torch.from_numpy(np.ascontiguousarray(maps)), measures="e") for name, maps in found.items()}


def rows_of(options, name, network, images, peers=True):
    """({row: Row}, {layer: Truth}) of one batch of images [B,3,S,S]."""
    rows, features = program_rows(options, name, images)
    found = truths(network, images, features)
    cells = found["last"].cells
    rows |= regression_rows(network, images, cells)
    if peers:
        rows |= peer_rows(network, images)
    rows[IMAGE] = Row(torch.from_numpy(images), measures="de")
    rows[CONSTANT] = Row(cells.mean((0, 2, 3), keepdim=True).expand_as(cells), measures="abc")
    return rows, found


def measured(row, truth, masks=None, pixels=None):
    """{measure: [(sum, count)]} of one batch; per image (e, f) or per batch."""
    found = {}
    for measure, features in (("a", truth.cells), ("b", truth.dense), ("c", truth.double)):
        if measure in row.measures:
            found[measure] = [(squared_error(row.maps, features), 1)]
    if "d" in row.measures and "c" in row.measures:
        found["follows"] = [(correlation(row.maps, truth.double), 1)]
    if "d" in row.measures:
        found["d"] = [(rank_correlation(row.maps, truth), 1)]
    if masks is None:
        return found
    if "e" in row.measures:
        size = masks.shape[-1]
        full = row.maps if row.maps.shape[-1] == size else F.interpolate(row.maps, size=(size, size), mode="nearest")
        single, batch = auc_of(full.numpy(), masks, pixels)
        found["image"] = [(value, 1) for value in single]
        found["batch"] = [(batch, 1)]
    if "f" in row.measures:
        found["f"] = within_object(row.maps, truth, torch.from_numpy(masks))
    return found


def collected(results, rows, truth, *scene):
    for name, row in rows.items():
        for measure, sums in measured(row, truth[row.layer], *scene).items():
            results.setdefault(name, {}).setdefault(measure, []).extend(sums)


def of_composites(options, name, network):
    """({row: {measure: [(sum, count)]}}, cut-out of each image)."""
    size, results = SIZES[name], {}
    with np.load(Path(options.composites) / f"composites_{size}.npz") as arrays:
        half = np.flatnonzero(arrays["half"] == options.half)[: BATCH * options.batches if options.batches else None]
        images, masks, cutouts = (arrays[key][half] for key in ("input", "mask", "cutout"))
    rng = np.random.default_rng(SEED)
    pixels = [rng.permutation(size * size)[: 2 * PIXELS] for _ in images]
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        rows, truth = rows_of(options, name, network, images[part])
        collected(results, rows, truth, masks[part], pixels[part])
        print(f"{name} {min(start + BATCH, len(images))}/{len(images)}", file=sys.stderr, flush=True)
    return results, cutouts


def of_samples(options, name, network):
    """{row: {measure: [(sum, count)]}} of the photographs, which have no masks."""
    images = program.arrays(options, name, options.samples, ["--hooks", "auto"])["input"]
    rows, truth = rows_of(options, name, network, images, peers=False)
    results = {}
    collected(results, rows, truth)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("composites")
    parser.add_argument("--prism", default="target/release/prism")
    parser.add_argument("--models", default="models")
    parser.add_argument("--samples", default="samples")
    parser.add_argument("--half", default="reporting", choices=("reporting", "choosing"))
    parser.add_argument("--batches", type=int, help="only so many of each network")
    parser.add_argument("--page", help="Markdown file of the short table; the part between the markers is replaced")
    parser.add_argument("--tables", help="Markdown file of the long tables, likewise")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")

    composites, samples, cutouts = {}, {}, None
    for name in SIZES:
        network = Network(name, options.models)
        samples[name] = of_samples(options, name, network)
        composites[name], cutouts = of_composites(options, name, network)
    title = f"{len(cutouts)} composites ({options.half} half), {len(set(cutouts))} cut-outs.\n\n"
    short, long = title + tables.short(composites), title + tables.long(composites, samples, cutouts)
    print(short, long, sep="\n\n")
    if options.page:
        pages.put(options.page, short)
    if options.tables:
        pages.put(options.tables, long)


if __name__ == "__main__":
    main()

"""How well the colours of a map separate an animal from the background, on composites with known masks.

    python quality/measure.py COMPOSITES_FOLDER --prism target/release/prism --models models [--page docs/quality.md]

AUC per image: a logistic regression from the three colours of the map to the mask, fitted on PIXELS random pixels and
evaluated on PIXELS others (the same for all methods). AUC per batch: the same with ONE regression for all images of a
batch: equal colours must then mean similar features in all of them. A map smaller than the mask is evaluated as it is
drawn, in blocks, and bilinearly smoothed.

Maps come from the `prism` binary, 8 composites per run: the PCA and the norm are over these 8, the same 8 for every
method. The red, green and blue of the image itself are the control. pytorch-grad-cam 1.5.7 gives Grad-CAM (top class)
and Deep Feature Factorization of the last activation, per batch and per image. Intervals: 95 % of a paired bootstrap
of the differences, over cut-outs.
"""
import argparse
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata

import pages
from composites import SIZES

BATCH = 8
PIXELS = 2500  # per image for fitting, and as many others for evaluation
PENALTY = 1.0  # L2, on standardised colours, added to a sum over PIXELS
RESAMPLES = 10000
SEED = 4

# Name in the table -> options of prism.
RULES = {
    "auto": ["--hooks", "auto"],
    "auto, no extrapolation": ["--hooks", "auto", "--no-gradual-extrapolation"],
    "torchprism": ["--hooks", "torchprism"],
    "torchprism, no extrapolation": ["--hooks", "torchprism", "--no-gradual-extrapolation"],
}


def auc(scores, truth):
    """Share of (inside, outside) pixel pairs that the scores order correctly; ties count half."""
    ranks = rankdata(scores)
    inside = truth.sum()
    outside = len(truth) - inside
    return (ranks[truth].sum() - inside * (inside + 1) / 2) / (inside * outside)


def logistic(x, y):
    """Weights of a logistic regression by Newton's method; the last one is the intercept."""
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    penalty = PENALTY * np.eye(x.shape[1])
    penalty[-1, -1] = 1e-6
    w = np.zeros(x.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -40, 40)))
        slope = x.T @ (p - y) + penalty @ w
        step = np.linalg.solve((x * (p * (1 - p) + 1e-9)[:, None]).T @ x + penalty, slope)
        step *= min(1, 5 / max(np.linalg.norm(step), 1e-12))
        w -= step
        if np.abs(step).max() < 1e-6:
            break
    return w


def read(fit_x, fit_y, read_x, read_y):
    mean, deviation = fit_x.mean(0), fit_x.std(0) + 1e-12
    w = logistic((fit_x - mean) / deviation, fit_y)
    return auc(((read_x - mean) / deviation) @ w[:-1], read_y)


def auc_of(maps, masks, pixels):
    """maps [B,K,h,w] at the resolution of the masks -> (AUC per image, AUC of the batch)."""
    colours = maps.reshape(*maps.shape[:2], -1).transpose(0, 2, 1).astype(np.float64)
    masks = masks.reshape(len(masks), -1)
    parts = []
    for colour, mask, chosen in zip(colours, masks, pixels):
        fit, rest = chosen[:PIXELS], chosen[PIXELS:]
        parts.append((colour[fit], mask[fit].astype(float), colour[rest], mask[rest]))
    return [read(*part) for part in parts], read(*(np.concatenate(column) for column in zip(*parts)))


def enlarged(maps, size, mode):
    maps = torch.from_numpy(np.ascontiguousarray(maps))
    if maps.shape[-1] == size:
        return maps.numpy()
    corners = {} if mode == "nearest" else {"align_corners": False}
    return F.interpolate(maps, size=(size, size), mode=mode, **corners).numpy()


def prism_maps(options, network, images, prism):
    """{name of the row: maps [B,3,S,S]} of one batch, by the binary."""
    size, found = images.shape[-1], {}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/batch.npz", input=images)
        weights = Path(options.models).resolve() / f"{network}.pth"
        for rule, flags in RULES.items():
            command = [prism, "--model", network, "--weights", str(weights), "--input", f"{folder}/batch.npz", *flags]
            command += ["--output-dir", folder, "--save-arrays", f"{folder}/out.npz", "--quiet", "--device", "cpu"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            with np.load(f"{folder}/out.npz") as arrays:
                maps = arrays["maps"]
            if maps.shape[-1] < size:
                found[f"{rule} (blocks)"] = enlarged(maps, size, "nearest")
                found[f"{rule} (smoothed)"] = enlarged(maps, size, "bilinear")
            else:
                found[rule] = maps
    return found


def lite(name, folder):
    """An EfficientNet-Lite of efficientnet_lite_pytorch with the weights in `folder`."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(name.replace("efficientnet_lite", "efficientnet-lite"))
    network.load_state_dict(torch.load(f"{folder}/{name}.pth", map_location="cpu", weights_only=True))
    return network.eval()


class WithLastLayer(torch.nn.Module):
    """EfficientNet-Lite shares one ReLU6 among all layers; this adds a module to hook after its last use."""

    def __init__(self, network):
        super().__init__()
        self.network, self.last = network, torch.nn.Identity()

    def forward(self, images):
        return self.network._fc(self.last(self.network.extract_features(images)).mean((2, 3)))


def peer_maps(network, images):
    """{name of the row: maps [B,K,S,S]} of one batch, by pytorch-grad-cam."""
    from pytorch_grad_cam import DeepFeatureFactorization, GradCAM

    wrapped = WithLastLayer(network).eval()
    batch = torch.from_numpy(images)
    found = {}
    with GradCAM(model=wrapped, target_layers=[wrapped.last]) as cam:
        found["Grad-CAM"] = cam(batch, targets=None)[:, None]
    for count in (3, 5):
        factorization = DeepFeatureFactorization(wrapped, wrapped.last)
        found[f"DFF, {count} components, per batch"] = np.stack(factorization(batch, count)[1])
        singles = [factorization(batch[i : i + 1], count)[1][0] for i in range(len(batch))]
        found[f"DFF, {count} components, per image"] = np.stack(singles)
    return found


def interval(difference, groups, rng):
    """95 % interval of the mean of `difference`, by resampling whole groups."""
    names, index = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(index, difference), np.bincount(index)
    drawn = rng.integers(0, len(names), (RESAMPLES, len(names)))
    return np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), [2.5, 97.5])


def measured(options):
    """{network: {row: (AUC of each image, AUC of each batch)}}, cut-out of each image."""
    results, cutouts = {}, None
    for network, size in SIZES.items():
        with np.load(Path(options.composites) / f"composites_{size}.npz") as arrays:
            half = arrays["half"] == options.half
            images, masks, cutouts = (arrays[name][half] for name in ("input", "mask", "cutout"))
        rng = np.random.default_rng(SEED)
        pixels = [rng.permutation(size * size)[: 2 * PIXELS] for _ in images]
        eager = lite(network, options.models)
        rows = {}
        for start in range(0, len(images), BATCH):
            part = slice(start, start + BATCH)
            maps = prism_maps(options, network, images[part], options.prism)
            maps |= peer_maps(eager, images[part])
            maps["control: RGB of the image"] = images[part]
            for name, values in maps.items():
                single, batch = auc_of(values, masks[part], pixels[part])
                rows.setdefault(name, ([], []))
                rows[name][0].extend(single)
                rows[name][1].append(batch)
            print(f"{network} {min(start + BATCH, len(images))}/{len(images)}", file=sys.stderr, flush=True)
        results[network] = {name: (np.array(a), np.array(b)) for name, (a, b) in rows.items()}
    return results, cutouts


def table(results, cutouts, winner):
    networks = list(results)
    titles = [network.replace("efficientnet_lite", "Lite") for network in networks]
    lines = ["AUC per image / AUC per batch; rows with one number have no AUC per batch.", ""]
    lines += ["| map | " + " | ".join(titles) + " |", "|---|" + "---|" * len(networks)]
    for row in results[networks[0]]:
        alone = row.endswith("per image") or row == "Grad-CAM"
        cells = [f"{results[n][row][0].mean():.3f}" + ("" if alone else f" / {results[n][row][1].mean():.3f}") for n in networks]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    lines += ["", f"Difference of `{winner}` minus the row, AUC per image, with 95 % intervals:", ""]
    lines += ["| map | " + " | ".join(titles) + " |", "|---|" + "---|" * len(networks)]
    for row in results[networks[0]]:
        if row == winner:
            continue
        cells = []
        for n in networks:
            difference = results[n][winner][0] - results[n][row][0]
            low, high = interval(difference, cutouts, np.random.default_rng(SEED))
            cells.append(f"{difference.mean():+.3f} [{low:+.3f}, {high:+.3f}]")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("composites")
    parser.add_argument("--prism", default="target/release/prism")
    parser.add_argument("--models", default="models")
    parser.add_argument("--half", default="reporting", choices=("reporting", "choosing"))
    parser.add_argument("--page", help="Markdown file; the part between the markers is replaced")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.prism = str(Path(options.prism).resolve())
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")

    results, cutouts = measured(options)
    text = f"{len(cutouts)} composites ({options.half} half), {len(set(cutouts))} cut-outs.\n\n"
    text += table(results, cutouts, "auto")
    print(text)
    if options.page:
        pages.put(options.page, text)


if __name__ == "__main__":
    main()

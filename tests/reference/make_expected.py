"""Writes what PRISM must give for the tiny networks: tests/data/expected/NETWORK.npz, and units.json.

    python tests/reference/make_expected.py     # after make_networks.py, whose files it reads
    python tests/reference/make_expected.py tiny_gated tiny_dense     # these networks alone

Each NETWORK.npz holds for the scripted and the traced file alike: `input`, `logits`, and by the TorchPRISM
rule `features`, `variance_ratio`, `maps_torchprism`, `maps_torchprism_no_ge` (tiny_vgg and tiny_resnet: also
`maps_inclusive`, `maps_exclusive`, `maps_both` and their `_no_ge`, and `maps_auto_exclusive`), by the auto rule `features_auto`,
`variance_ratio_auto`, `maps_auto`, `maps_auto_no_ge`; `layers` is UTF-8 JSON,
{"torchprism": [{"role": "guide"|"final", "name", "shape": [C, h, w], "means": [...]}], "auto": ...}, in the order of
execution. All float32; the 64x64 maps are rounded to 2^-16, which makes the files a quarter smaller and moves nothing by
more than 8e-6. units.json comes from NumPy and written-out formulas alone.

The script stops where a figure would not be worth comparing with: TorchScript and eager scores differ, an
array is constant, float64 gives another map than float32 does, or a sign or a colour is on the edge.
"""
import json
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F

from make_networks import DATA, NETWORKS, SCRIPTED_ONLY, SIZE, build
from prism_reference import (
    LEVELS,
    MODES,
    RIDGE,
    AutoLayers,
    auto_excitations,
    features_of,
    norm,
    pca,
    prism_map,
    scores_of,
    torchprism_excitations,
)

EXPECTED = os.path.join(DATA, "expected")
IMAGES = 3
MAP_STEP = 2.0**-16
QUANTISED = {"tiny_vgg", "tiny_resnet"}


def inputs(*modules):
    return tuple(("input", module) for module in modules)



# Read off the networks by hand: what enters a spatial operator (a convolution or a pooling of more than a pixel), of
# each resolution the three made last.
AUTO = {
    # every reduction is a max-pool and the last one ends the features: the TorchPRISM rule
    "tiny_vgg": None,
    # 32x32; then the last three of the five that enter the 3x3 convolutions at 16x16; then 8x8
    "tiny_resnet": AutoLayers(
        final=("output", "layer2"),
        guides=inputs(
            "maxpool", "layer1.1.conv1", "layer1.1.conv2", "layer2.0.conv1",
            "layer2.0.conv2", "layer2.1.conv1", "layer2.1.conv2",
        ),
    ),
    # the 3x3 convolutions see the bottleneck's own channels, never the stream; projections see a pixel
    "tiny_bottleneck": AutoLayers(
        final=("output", "layer2"),
        guides=inputs("maxpool", "layer1.0.conv2", "layer1.1.conv2", "layer2.0.conv2", "layer2.1.conv2"),
    ),
    # pooling of stride 1 gathers over space as well; the first block's input is the fourth last at 8x8
    "tiny_inception": AutoLayers(
        final=("output", "inception3b"),
        guides=inputs(
            "maxpool1", "conv2", "maxpool2", "inception3a.branch2.1", "inception3b.branch3.0", "inception3b.branch2.1"
        ),
    ),
    # expanded activations; the third one before it is padded
    "tiny_mobilenet": AutoLayers(
        final=("output", "head"),
        guides=inputs("blocks.0.depthwise.0", "blocks.1.depthwise.0", "blocks.2.pad", "blocks.3.depthwise.0"),
    ),
    # the convolution to K channels is the classifier, so its input is the final excitation
    "tiny_squeezenet": AutoLayers(
        final=("input", "classifier.1"),
        guides=inputs(
            "features.2", "features.3.expand3x3", "features.4.expand3x3", "features.5", "features.6.expand3x3"
        ),
    ),
    # an average pooling gathers as well
    "tiny_dict": AutoLayers(final=("output", "relu3"), guides=inputs("pool", "conv2", "conv3")),
    # expanded activations, before the gate, whose pooling is global
    "tiny_gated": AutoLayers(
        final=("output", "head"), guides=inputs(*(f"blocks.{block}.depthwise.0" for block in range(4)))
    ),
    # the transition's convolution goes into the average pooling; the last ReLU is functional
    "tiny_dense": AutoLayers(
        final=("input", "avgpool"),
        guides=inputs(
            "pool0", "block1.1.conv2", "block1.2.conv2", "transition.3", "block2.0.conv2", "block2.1.conv2"
        ),
    ),
    # both depthwise convolutions of a unit of stride 2, at the resolution that they halve
    "tiny_shuffle": AutoLayers(
        final=("output", "conv5"),
        guides=inputs(
            "maxpool", "stage2.0.branch1.0", "stage2.0.branch2.3",
            "stage2.1.branch2.3", "stage3.0.branch1.0", "stage3.0.branch2.3", "stage3.1.branch2.3",
        ),
    ),
    # the stem sees the image, which is no guide; 18 channels are no multiple of four
    "tiny_convnext": AutoLayers(
        final=("output", "stage2"),
        guides=inputs(
            "stage1.0.depthwise", "stage1.1.depthwise", "downsample.1", "stage2.0.depthwise", "stage2.1.depthwise"
        ),
    ),
}  # fmt: skip


def smooth_images():
    """Three images [3, 3, SIZE, SIZE] of a few seeded plane waves and one soft blob each, about as large as
    normalised photographs; in steps of 1/32, so that they pack well."""
    random = np.random.default_rng(7)
    y, x = np.meshgrid(np.linspace(0, 1, SIZE), np.linspace(0, 1, SIZE), indexing="ij")
    images = np.zeros((IMAGES, 3, SIZE, SIZE))
    for image in images:
        for channel in image:
            for _ in range(4):
                fy, fx = random.uniform(-4, 4, 2)
                channel += random.uniform(0.3, 0.8) * np.cos(2 * np.pi * (fy * y + fx * x + random.uniform()))
        cy, cx, radius = random.uniform(0.25, 0.75), random.uniform(0.25, 0.75), random.uniform(0.1, 0.25)
        blob = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * radius**2))
        image += 2.5 * random.choice([-1, 1], 3)[:, None, None] * blob
    return torch.from_numpy((np.round(images * 32) / 32).astype(np.float32))


def check(condition, message):
    if not condition:
        sys.exit(message)


def check_torchscript(name, logits, images):
    """The stored files give the eager network's scores."""
    for kind in ("scripted", "traced"):
        if kind == "traced" and name in SCRIPTED_ONLY:
            continue
        module = torch.jit.load(os.path.join(DATA, "networks", f"{name}_{kind}.pt")).eval()
        with torch.no_grad():
            difference = (scores_of(module(images)) - logits).abs().max() / logits.abs().max()
        check(difference < 1e-6, f"{name} {kind}: scores differ from eager's by {difference:.1e}")


def check_decided(where, features):
    """No sign and no quantised colour of `features` [N, 3, h, w] hangs on the last digits."""
    for k, component in enumerate(features.unbind(1)):
        high, low = component.max(), -component.min()
        check(abs(high - low) > 0.03 * max(high, low), f"{where}: the sign of component {k} is on the edge")
    levels = norm(features) / LEVELS
    distance = (levels - levels.floor() - 0.5).abs().min()
    check(distance > 1e-4, f"{where}: a quantised colour is on the edge, {distance:.1e} from the next")


def expected_arrays(name, images):
    """All arrays of one network at the precision of `images`, and its layers."""
    network = build(name)
    # the weights of the file, should another machine seed others
    scripted = torch.jit.load(os.path.join(DATA, "networks", f"{name}_scripted.pt"))
    network.load_state_dict(scripted.state_dict())
    network = network.to(images.dtype).eval()
    rules = {
        "torchprism": torchprism_excitations(network, images),
        "auto": auto_excitations(network, images, AUTO[name]),
    }
    arrays = {"input": images, "logits": rules["torchprism"].logits}
    for rule, excitations in rules.items():
        suffix = "" if rule == "torchprism" else "_auto"
        features, ratio = features_of(excitations.final.tensor)
        check_decided(f"{name}, {rule}", features)
        arrays["features" + suffix] = features
        arrays["variance_ratio" + suffix] = torch.from_numpy(ratio)
        arrays[f"maps_{rule}"] = prism_map(excitations)
        arrays[f"maps_{rule}_no_ge"] = prism_map(excitations, extrapolate=False)
    if name in QUANTISED:
        for mode, options in MODES.items():
            if "clusive" in mode or "both" in mode:
                arrays[mode] = prism_map(rules["torchprism"], **options)
        arrays["maps_auto_exclusive"] = prism_map(rules["auto"], exclusive=True)
    arrays = {key: array.numpy() for key, array in arrays.items()}
    return arrays, {rule: excitations.described() for rule, excitations in rules.items()}


def network_expected(name, images):
    arrays, layers = expected_arrays(name, images)
    check_torchscript(name, torch.from_numpy(arrays["logits"]), images)
    exact, _ = expected_arrays(name, images.double())
    worst = 0.0
    for key, array in arrays.items():
        check(np.isfinite(array).all(), f"{name}: {key} is not finite")
        check(array.min() < array.max(), f"{name}: {key} is constant")
        scale = 1.0 if key.startswith("maps") else np.abs(exact[key]).max()
        difference = np.abs(array - exact[key]).max() / scale
        check(difference < 5e-5, f"{name}: {key} is badly conditioned, float64 differs by {difference:.1e}")
        worst = max(worst, difference)
    for key in list(arrays):
        if key.startswith("maps") and arrays[key].shape[-1] == SIZE:
            arrays[key] = np.round(arrays[key] / MAP_STEP) * MAP_STEP
        arrays[key] = arrays[key].astype(np.float32)
    text = json.dumps(layers, ensure_ascii=False)
    arrays["layers"] = np.frombuffer(text.encode("utf-8"), dtype=np.uint8)
    path = os.path.join(EXPECTED, f"{name}.npz")
    np.savez_compressed(path, **arrays)
    print(f"{os.path.getsize(path) / 1024:7.1f} KiB  {os.path.relpath(path)}  (float64 differs by {worst:.1e})")
    for rule, rows in layers.items():
        for row in rows:
            print(f"             {rule:10} {row['role']:5} {str(row['shape']):14} {row['means'][0]:9.4f}  {row['name']}")


# --- figures small enough to read, from written-out formulas ---------------------------------------------


def norm_by_hand(values):
    """((f - mean) / unbiased deviation, clipped to [-1, 1]) stretched to [0, 1]."""
    mean = sum(values) / len(values)
    deviation = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    z = [min(1.0, max(-1.0, (v - mean) / deviation)) for v in values]
    return {
        "values": values,
        "mean": mean,
        "std": deviation,
        "clipped": z,
        "result": [(v - min(z)) / (max(z) - min(z)) for v in z],
    }


def resize_by_hand(array, height, width):
    """Bilinear, align_corners=False, no antialiasing: the target's pixel centre y + 1/2 lies at
    (y + 1/2) * h / H of the source; left of the first centre the first value holds, right of the last the
    last."""
    h, w = len(array), len(array[0])

    def weights(target, length, target_length):
        centre = max(0.0, (target + 0.5) * length / target_length - 0.5)
        low = min(int(centre), length - 1)
        high = min(low + 1, length - 1)
        return low, high, centre - low

    result = []
    for y in range(height):
        y0, y1, fy = weights(y, h, height)
        row = []
        for x in range(width):
            x0, x1, fx = weights(x, w, width)
            top = (1 - fx) * array[y0][x0] + fx * array[y0][x1]
            bottom = (1 - fx) * array[y1][x0] + fx * array[y1][x1]
            row.append((1 - fy) * top + fy * bottom)
        result.append(row)
    given = F.interpolate(
        torch.tensor(array, dtype=torch.float64)[None, None],
        size=(height, width),
        mode="bilinear",
        align_corners=False,
    )[0, 0]
    check(np.allclose(result, given.numpy(), rtol=0, atol=1e-12), "the written-out resize is not torch's")
    return result


def extrapolation_by_hand(feature, guides):
    """`feature` [h][w]; `guides` [C][h_i][w_i], shallowest first."""
    steps = []
    for guide in reversed(guides):
        channels, height, width = len(guide), len(guide[0]), len(guide[0][0])
        resized = resize_by_hand(feature, height, width)
        mean = [[sum(guide[c][y][x] for c in range(channels)) / channels for x in range(width)] for y in range(height)]
        feature = [[resized[y][x] * mean[y][x] for x in range(width)] for y in range(height)]
        steps.append({"resized": resized, "channel_mean": mean, "result": feature})
    return steps


def regression_by_hand(colours, guides):
    """One level: `colours` [3][h][w] at the guides' resolution, `guides` [k][h][w]. The ridge regression by
    gradient descent on what it makes smallest: mean squared error plus RIDGE times the squared weights."""
    y = np.array(colours, dtype=np.float64).reshape(3, -1)
    x = np.array(guides, dtype=np.float64).reshape(len(guides), -1)
    z = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    centred = y - y.mean(1, keepdims=True)
    weights = np.zeros((3, len(z)))
    for _ in range(20000):
        error = weights @ z - centred
        weights -= 0.1 * (error @ z.T / z.shape[1] + RIDGE * weights)
    fitted = weights @ z + y.mean(1, keepdims=True)
    half = (y + fitted) / 2
    # the mean is kept by the fit; the deviation is given back
    gain = y.std(1, keepdims=True) / half.std(1, keepdims=True)
    result = (half - half.mean(1, keepdims=True)) * gain + y.mean(1, keepdims=True)
    return {"colours": colours, "guides": guides, "result": result.reshape(np.shape(colours)).tolist()}


def pca_figures(rows):
    """Scores and ratios, checked against the eigenvalues of the covariance matrix: another way to them."""
    rows = np.asarray(rows, dtype=np.float64)
    scores, ratio = pca(rows)
    centred = rows - rows.mean(axis=0)
    eigenvalues, axes = np.linalg.eigh(centred.T @ centred)
    eigenvalues, axes = eigenvalues[::-1], axes[:, ::-1]
    if eigenvalues.sum() > 0:
        check(np.allclose(ratio, (eigenvalues / eigenvalues.sum())[: len(ratio)], atol=1e-12), "pca: ratio")
    for k in range(min(3, len(ratio))):
        check(np.allclose(np.abs(scores[:, k]), np.abs(centred @ axes[:, k]), atol=1e-6), "pca: scores")
        largest = np.sort(np.abs(scores[:, k]))[-2:]
        check(ratio[k] < 1e-12 or len(rows) == 2 or largest[1] - largest[0] > 0.05, "pca: a sign on the edge")
    scores, ratio = np.round(scores, 12) + 0.0, np.round(ratio, 12) + 0.0
    return {"rows": rows.tolist(), "scores": scores.tolist(), "variance_ratio": ratio.tolist()}


def units():
    random = np.random.default_rng(11)
    generic = np.round(random.normal(size=(12, 4)) * [3.0, 2.0, 1.0, 0.5] + [10.0, -1.0, 0.5, 0.0], 2)
    two_by_two = [[1.0, 2.0], [4.0, -8.0]]
    three_by_two = [[0.0, 1.0], [2.0, 5.0], [-3.0, 7.0]]
    feature = [[1.0, -2.0], [3.0, 0.5]]
    deep = [[[1.0, 2.0, 0.0], [0.0, 1.0, 4.0]], [[3.0, 0.0, 2.0], [2.0, 1.0, -2.0]]]
    shallow = [[[0.5, 1.0, 1.5, 2.0], [1.0, 0.0, 1.0, 0.0], [2.0, 2.0, -1.0, 1.0]]]
    return {
        "pca": pca_figures(generic),
        "pca_two_columns": pca_figures([[1.0, 5.0], [4.0, 1.0], [0.0, 0.5], [2.0, -3.0]]),
        # two rows lie equally far from their mean: here the sign rule leaves the sign open
        "pca_two_rows_either_sign": pca_figures([[1.0, 5.0, -2.0, 0.0], [4.0, 1.0, -2.0, 0.0]]),
        "pca_constant": pca_figures([[1.5, -2.0, 0.25]] * 4),
        "norm": norm_by_hand([-10.0, 0.0, 1.0, 2.0, 9.0]),
        "norm_unclipped_below": norm_by_hand([0.0, 0.0, 1.0, 1.5, 6.0]),
        "resize": [
            {"array": array, "size": list(size), "result": resize_by_hand(array, *size)}
            for array in (two_by_two, three_by_two)
            for size in ((4, 5), (1, 1))
        ],
        "gradual_extrapolation": {
            "feature": feature,
            "guides": [shallow, deep],
            "steps": extrapolation_by_hand(feature, [shallow, deep]),
        },
        "regression": regression_by_hand(
            np.round(random.normal(size=(3, 3, 4)), 2).tolist(),
            np.round(random.normal(size=(2, 3, 4)) * [[[5.0]], [[0.1]]] - 3.0, 2).tolist(),
        ),
    }


def readable(value, indent=""):
    """JSON with one line per row of numbers."""
    flat = json.dumps(value)
    if len(flat) + len(indent) <= 110:
        return flat
    inner = indent + "  "
    if isinstance(value, dict):
        items = [f"{inner}{json.dumps(key)}: {readable(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + readable(item, inner) for item in value) + f"\n{indent}]"


def main():
    os.makedirs(EXPECTED, exist_ok=True)
    torch.set_num_threads(1)  # sums in one order
    images = smooth_images()
    for name in sys.argv[1:] or NETWORKS:
        network_expected(name, images)
    if sys.argv[1:]:
        return
    path = os.path.join(EXPECTED, "units.json")
    with open(path, "w", encoding="utf-8") as out:
        out.write(readable(units()) + "\n")
    print(f"{os.path.getsize(path) / 1024:7.1f} KiB  {os.path.relpath(path)}")


if __name__ == "__main__":
    main()

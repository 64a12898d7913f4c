"""Writes what PRISM must give for the tiny networks: tests/data/expected/NETWORK.npz, and units.json.

    python tests/reference/make_expected.py     # after make_networks.py, whose files it reads
    python tests/reference/make_expected.py tiny_gated tiny_dense     # these networks alone

Each NETWORK.npz holds for the scripted and the traced file alike: `input`, `logits`, and by the TorchPRISM
rule `features`, `variance_ratio`, `maps_torchprism`, `maps_torchprism_no_ge` (tiny_vgg and tiny_resnet: also
`maps_inclusive`, `maps_exclusive`, `maps_both` and their `_no_ge`, and `maps_auto_exclusive`), by the auto rule
`features_auto`, `variance_ratio_auto`, `maps_auto`, `maps_auto_no_ge`. tiny_resnet has all quantised maps of the auto
rule, `maps_auto_MODE` and `maps_auto_MODE_no_ge`, and of `inclusive` and `exclusive` the pixels that are left out,
`left_out_auto_MODE` and `left_out_auto_MODE_no_ge`, [N, h, w] bool; tiny_vgg has `maps_auto_bilateral`, its auto
features by the bilateral rule. `layers` is UTF-8 JSON,
{"torchprism": [{"role": "guide"|"final", "name", "shape": [C, h, w], "means": [...]}], "auto": ...}, in the order of
execution. All else float32; the 64x64 maps are rounded to 2^-16, which makes the files a quarter smaller and moves
nothing by more than 8e-6. units.json comes from NumPy and written-out formulas alone.

The script stops where a figure would not be worth comparing with: TorchScript and eager scores differ, an
array is constant, float64 gives another map than float32 does, or a sign or a colour is on the edge. Guides are
rounded for storage, so by the bilateral rule single pixels may differ a little.
"""
import json
import math
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F

from make_networks import DATA, NETWORKS, SCRIPTED_ONLY, SIZE, build
from prism_reference import (
    LEVELS,
    MODES,
    AutoLayers,
    auto_excitations,
    features_of,
    map_and_left_out,
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


def quantised_by_auto(excitations):
    """Quantised maps of the auto rule and the pixels that are left out of them; one map where it is TorchPRISM's."""
    if excitations.products:
        return {"maps_auto_exclusive": prism_map(excitations, exclusive=True)}
    arrays = {}
    for mode, options in MODES.items():
        if "clusive" in mode or "both" in mode:
            mode = mode.removeprefix("maps_")
            arrays[f"maps_auto_{mode}"], left_out = map_and_left_out(excitations, **options)
            if "both" in mode:
                check(not left_out.any(), f"{mode}: a pixel is left out")
            else:
                arrays[f"left_out_auto_{mode}"] = left_out
    return arrays


def off(key, array, exact):
    """The largest difference of an array from that of float64, as a share of its range. By the bilateral rule pixels
    may differ a little more, because guides are rounded: there the mean difference."""
    difference = np.abs(array.astype(np.float64) - exact)
    if key.startswith("left_out"):
        return difference.mean()
    if key in ("maps_auto", "maps_auto_bilateral"):
        check(difference.max() < 1e-3, f"{key}: a pixel differs by {difference.max():.1e}")
        return difference.mean()
    return difference.max() / (1.0 if key.startswith("maps") else np.abs(exact).max())


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
        arrays[f"maps_{rule}_no_ge"] = prism_map(excitations, upsampling="none")
    if name in QUANTISED:
        for mode, options in MODES.items():
            if "clusive" in mode or "both" in mode:
                arrays[mode] = prism_map(rules["torchprism"], **options)
        arrays.update(quantised_by_auto(rules["auto"]))
    if name == "tiny_vgg":
        arrays["maps_auto_bilateral"] = prism_map(rules["auto"], upsampling="bilateral")
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
        difference = off(key, array, exact[key])
        check(difference < 5e-5, f"{name}: {key} is badly conditioned, float64 differs by {difference:.1e}")
        worst = max(worst, difference)
    for key in list(arrays):
        if key.startswith("maps") and arrays[key].shape[-1] == SIZE:
            arrays[key] = np.round(arrays[key] / MAP_STEP) * MAP_STEP
        if arrays[key].dtype != bool:
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


def splitmix64(state):
    """The next output of the generator in this state, in Python's integers."""
    whole = 2**64
    z = (state + 0x9E3779B97F4A7C15) % whole
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % whole
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % whole
    return z ^ (z >> 31)


def signs_by_hand(channels):
    """[16][channels]: row k has the sign of each channel in sum k. The state grows by the same step each time."""
    outputs = [splitmix64(c * 0x9E3779B97F4A7C15 % 2**64) for c in range(channels)]
    # the generator's first outputs, as its authors' code gives them
    check(outputs[:3] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F], "splitmix64 is another one")
    return [[1 if (output >> k) & 1 else -1 for output in outputs] for k in range(16)]


def signed_sums_by_hand(guide):
    """`guide` [C][h][w], C above 16 -> [16][h][w]."""
    channels, height, width = len(guide), len(guide[0]), len(guide[0][0])
    return [
        [
            [sum(row[c] * guide[c][y][x] for c in range(channels)) / channels**0.5 for x in range(width)]
            for y in range(height)
        ]
        for row in signs_by_hand(channels)
    ]


def stored_by_hand(plane):
    """[h][w] standardised and rounded: whole numbers of 1/25 of a deviation, at most 127 of them."""
    values = [v for row in plane for v in row]
    mean = sum(values) / len(values)
    deviation = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
    if deviation <= 1e-6 * max(abs(v) for v in values):
        return [[0 for _ in row] for row in plane]
    steps = [[25 * (v - mean) / deviation for v in row] for row in plane]
    edge = min(abs(v % 1 - 0.5) for row in steps for v in row)
    check(edge > 1e-4, f"a guide is rounded on the edge, {edge:.1e}")
    return [[max(-127, min(127, round(v))) for v in row] for row in steps]


def pooled_by_hand(array, height, width):
    """Means of areas that share pixels where they do not divide the array (adaptive average pooling)."""

    def span(target, length, target_length):
        return range(target * length // target_length, -(-(target + 1) * length // target_length))

    h, w = len(array), len(array[0])
    result = []
    for y in range(height):
        rows = span(y, h, height)
        result.append([])
        for x in range(width):
            columns = span(x, w, width)
            area = [array[i][j] for i in rows for j in columns]
            result[-1].append(sum(area) / len(area))
    return result


def weights_by_hand(cells, guides, size, reach=6):
    """({"stored", "working_size"}, weights [H'][W'][h][w]) of the bilateral rule, pixel by pixel and cell by cell."""
    (h, w), stored = cells, [[stored_by_hand(plane) for plane in guide] for guide in guides]
    used = [guide for guide in stored if len(guide[0]) > h or len(guide[0][0]) > w]
    _, rows, columns = max((len(guide[0]) * len(guide[0][0]), len(guide[0]), len(guide[0][0])) for guide in used)
    height = max(h, min(rows, (size[0] + 1) // 2))
    width = max(w, min(columns, (size[1] + 1) // 2))
    g = []
    for plane in (plane for guide in used for plane in guide):
        smaller = len(plane) <= height and len(plane[0]) <= width
        check(smaller or len(plane) > height and len(plane[0]) > width, "a guide is larger on one axis alone")
        plane = (resize_by_hand if smaller else pooled_by_hand)(plane, height, width)
        g.append([[v / 25 for v in row] for row in plane])

    def apart(y, x, i, j):
        return (y + 0.5) * h / height - 0.5 - i, (x + 0.5) * w / width - 0.5 - j

    pixels = [(y, x) for y in range(height) for x in range(width)]
    of_cells = {}
    for i in range(h):
        for j in range(w):
            near = {p: math.exp(-(apart(*p, i, j)[0] ** 2 + apart(*p, i, j)[1] ** 2) / 0.72) for p in pixels}
            whole = sum(near.values())
            of_cells[i, j] = [sum(near[y, x] * plane[y][x] for y, x in pixels) / whole for plane in g]
    weights = [[None] * width for _ in range(height)]
    for y, x in pixels:
        weight = {}
        for (i, j), values in of_cells.items():
            du, dv = apart(y, x, i, j)
            unlike = sum((plane[y][x] - value) ** 2 for plane, value in zip(g, values))
            within = abs(du) <= reach and abs(dv) <= reach
            weight[i, j] = math.exp(-(du**2 + dv**2) / 8 - unlike / (0.08 * len(g))) if within else 0.0
        whole = sum(weight.values())
        weights[y][x] = [[weight[i, j] / whole for j in range(w)] for i in range(h)]
    return {"stored": stored, "working_size": [height, width]}, weights


def bilateral_by_hand(colours, guides, size):
    """`colours` [3][h][w] of the cells, `guides` [C][h_i][w_i] of up to 16 channels; the map [3][H][W] at `size`."""
    cells = len(colours[0]), len(colours[0][0])

    def at_working_size(weights):
        return [
            [
                [sum(ws[i][j] * plane[i][j] for i in range(cells[0]) for j in range(cells[1])) for ws in row]
                for row in weights
            ]
            for plane in colours
        ]

    parts, weights = weights_by_hand(cells, guides, size)
    small = at_working_size(weights)
    if max(cells) > 7:
        unlimited = at_working_size(weights_by_hand(cells, guides, size, reach=99)[1])
        moved = np.abs(np.array(small) - unlimited).max()
        check(moved > 1e-3, f"far cells hardly matter: {moved:.1e}")
    large = [resize_by_hand(plane, *size) for plane in small]
    rounded = {"at_working_size": np.round(small, 9).tolist(), "result": np.round(large, 9).tolist()}
    return {"colours": colours, "guides": guides, "size": list(size), **parts, **rounded}


def votes_by_hand(codes, guides, size, ties):
    """`codes` [h][w], one of 27 for each cell; the winner at each pixel. The winner is clear, or with `ties` somewhere
    exactly equal to another one."""
    cells = len(codes), len(codes[0])
    parts, weights = weights_by_hand(cells, guides, size)
    small, equal, overruled = [], 0, 0
    for row in weights:
        small.append([])
        for ws in row:
            sums = {}
            for i in range(cells[0]):
                for j in range(cells[1]):
                    sums[codes[i][j]] = sums.get(codes[i][j], 0.0) + ws[i][j]
            best = max(sums.values())
            rest = [best - value for value in sums.values()]
            check(all(lead == 0 or lead > 0.01 for lead in rest), "a winner is on the edge")
            equal += rest.count(0) > 1
            small[-1].append(min(code for code, value in sums.items() if value == best))
            _, heaviest = max((ws[i][j], codes[i][j]) for i in range(cells[0]) for j in range(cells[1]))
            overruled += heaviest != small[-1][-1]
    check(bool(equal) == ties, f"{equal} ties")
    check(ties or overruled, "the cell of largest weight always wins")
    height, width = parts["working_size"]
    # the pixel whose area has the new pixel's centre
    rows = [(2 * y + 1) * height // (2 * size[0]) for y in range(size[0])]
    columns = [(2 * x + 1) * width // (2 * size[1]) for x in range(size[1])]
    large = [[small[y][x] for x in columns] for y in rows]
    return {"codes": codes, "guides": guides, "size": list(size), **parts, "at_working_size": small, "result": large}


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
    many = np.round(random.normal(size=(20, 1, 2)), 2).tolist()

    def uniform(*shape):
        return np.round(random.uniform(size=shape), 2).tolist()

    def normal(*shape):
        return np.round(random.normal(size=shape), 2).tolist()

    def scaled(guide, factors):
        return [[[round(v * factor - 3.0, 3) for v in row] for row in plane] for plane, factor in zip(guide, factors)]

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
        "signs": signs_by_hand(20),
        "signed_sums": {"guide": many, "result": np.round(signed_sums_by_hand(many), 12).tolist()},
        # the second number varies little, the third not at all
        "bilateral": bilateral_by_hand(
            uniform(3, 2, 2), [scaled(normal(3, 4, 4), [5.0, 0.1, 0.0])], (8, 8)
        ),
        # eight cells in a row: a guide no finer than the cells, one that is interpolated, one that is pooled; odd sizes
        "bilateral_of_several": bilateral_by_hand(
            uniform(3, 1, 8), [normal(1, 1, 8), scaled(normal(2, 2, 10), [2.0, 1.0]), normal(1, 4, 20)], (5, 21)
        ),
        "votes": votes_by_hand([[5, 14, 5], [14, 20, 0]], [normal(2, 4, 6)], (7, 11), ties=False),
        # the middle pixel is as far from both cells, and the guide does not vary
        "votes_tied": votes_by_hand([[22, 13]], [[[[1.5] * 3]]], (2, 6), ties=True),
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

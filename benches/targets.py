"""Measures what `prism` is to reach beside the table of compare.py, and says what falls short.

    python benches/targets.py FOLDER --prism target/release/prism --forward target/release/examples/forward
        [--page docs/performance.md]

Light networks: a further image of a whole run, with figures and without, against the bare forward pass (see
compare.py). Large photographs: those of samples/ at 12 and at half a million pixels, the large ones with the noise of a
sensor (standard deviation 3 of 255), through EfficientNet-Lite0, then the large ones by the Python job (baseline.py).
Start: commands that need no network. These are medians of several runs, the first of which is left out; the Python job
is run once after that.
Arithmetic: the time of the forward pass in bf16 against float32, the least of three runs each.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy
from PIL import Image

import compare

LARGE, SMALL = (4000, 3000), (816, 612)
MEGAPIXELS = {LARGE: "12 million", SMALL: "half a million"}
COPIES = 8
STARTS = {"--version": 0, "--help": 0, "completions bash": 0, "--not-an-option": 2}
LIGHT = ("mobilenet_v2", "efficientnet_lite0")
BF16 = ("vgg16", "resnet50", "mobilenet_v2", "efficientnet_lite0")
BF16_IMAGES = 16


def photographs(folder, size):
    """The first photographs of samples/ at that size, each COPIES times."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = numpy.random.default_rng(0)
    files = []
    for number, source in enumerate(sorted((compare.ROOT / "samples").glob("*.jpg"))[:COPIES]):
        file = folder / f"{number}.jpg"
        if not file.exists():
            picture = Image.open(source).convert("RGB").resize(size, Image.LANCZOS)
            if size == LARGE:
                pixels = numpy.asarray(picture) + noise.normal(0, 3, (size[1], size[0], 1))
                picture = Image.fromarray(pixels.round().clip(0, 255).astype("uint8"))
            picture.save(file, quality=90)
        for copy in range(COPIES):
            link = folder / f"{copy}_{number}.jpg"
            if not link.exists():
                link.symlink_to(file.name)
            files.append(str(link))
    return sorted(files)


def medians(commands, runs):
    """Median seconds of each command, alternating."""
    seconds = {key: [] for key in commands}
    for run in range(runs + 1):
        for key, command in commands.items():
            took = compare.measured(command)[0]
            if run > 0:
                seconds[key].append(took)
    return {key: statistics.median(took) for key, took in seconds.items()}


def forward_pass(command):
    """Seconds of the bare forward pass of one image."""
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def start(command, status):
    """Median milliseconds of a command that ends with that status."""
    took = []
    for _ in range(21):
        begin = time.perf_counter()
        ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        took.append(time.perf_counter() - begin)
        if ended.returncode != status:
            sys.exit(f"{command} ended with {ended.returncode}")
    return 1000 * statistics.median(took)


def forwarding(command, json_file):
    """Seconds of the forward passes of a run: the least of three."""
    seconds = []
    for _ in range(3):
        subprocess.run([*command, "--json", str(json_file)], check=True, stdout=subprocess.DEVNULL)
        seconds.append(json.loads(json_file.read_text())["seconds"]["forwarding"])
    return min(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--prism", default="target/release/prism")
    parser.add_argument("--forward", default="target/release/examples/forward")
    parser.add_argument("--page", help="Markdown file; the part between the markers is replaced")
    options = parser.parse_args()
    folder = Path(options.folder)
    rows = []

    def row(what, measured, target=None, most=True):
        shown = f"{measured:.2f}" if measured < 10 else f"{measured:.0f}"
        aim = "" if target is None else f"{'at most' if most else 'at least'} {target}"
        reached = "" if target is None else "yes" if (measured <= target) == most else "**no**"
        rows.append(f"| {what} | {shown} | {aim} | {reached} |")

    files = compare.photographs(folder / "photographs")
    for name in LIGHT:
        weights = str(compare.weights_of(name, folder))
        command = [options.prism, "--model", name, "--weights", weights, "--quiet", "--output-dir", str(folder / "out")]
        kinds = {"further image": [], "further image without figures": ["--figures", "none"]}
        commands = {
            (kind, count): [*command, *flags, "--input", *files[:count]]
            for kind, flags in kinds.items()
            for count in (compare.FEW, compare.MANY)
        }
        bare = [options.forward, name, weights, compare.AT_ONCE]
        passes = [forward_pass(bare) for _ in range(3)]
        seconds = medians(commands, 5)
        forward = statistics.median([*passes, *(forward_pass(bare) for _ in range(3))])
        row(f"{name}: bare forward pass of one image, ms", 1000 * forward)
        for kind, target in zip(kinds, (2.5, None)):
            further = (seconds[kind, compare.MANY] - seconds[kind, compare.FEW]) / (compare.MANY - compare.FEW)
            row(f"{name}: {kind} / bare forward pass", further / forward, target)

    weights = str(compare.weights_of("efficientnet_lite0", folder))
    network = ["--model", "efficientnet_lite0", "--weights", weights, "--quiet", "--output-dir", str(folder / "out")]
    python = [sys.executable, str(compare.ROOT / "benches/baseline.py"), "efficientnet_lite0", weights, str(folder / "out")]
    ours, theirs = {}, {}
    for size, name in MEGAPIXELS.items():
        files = photographs(folder / f"photographs_{size[0]}", size)
        for count in (compare.FEW, compare.MANY):
            ours[name, count] = [options.prism, *network, "--input", *files[:count]]
            theirs[name, count] = [*python, *files[:count]]
    large, small = MEGAPIXELS[LARGE], MEGAPIXELS[SMALL]
    mine = medians(ours, 3)
    job = medians({key: command for key, command in theirs.items() if key[0] == large}, 1)
    further = {
        (who, name): (times[name, compare.MANY] - times[name, compare.FEW]) / (compare.MANY - compare.FEW)
        for who, times, name in (("prism", mine, large), ("prism", mine, small), ("Python", job, large))
    }
    for name in (small, large):
        row(f"{name} pixels: 64 images, s", mine[name, compare.MANY])
        row(f"{name} pixels: further image, ms", 1000 * further["prism", name])
    row(f"further image: {large} / {small} pixels", further["prism", large] / further["prism", small], 1.6)
    row(f"{large} pixels: 64 images by the Python job, s", job[large, compare.MANY])
    row(f"{large} pixels: further image by the Python job / prism", further["Python", large] / further["prism", large], 3, most=False)
    for words, status in STARTS.items():
        row(f"`prism {words}`, ms", start([options.prism, *words.split()], status), 30)
    files = photographs(folder / f"photographs_{SMALL[0]}", SMALL)[:BF16_IMAGES]
    for name in BF16:
        command = [options.prism, "--model", name, "--weights", str(compare.weights_of(name, folder)), "--quiet"]
        command += ["--output-dir", str(folder / "out"), "--figures", "none", "--input", *files, "--precision"]
        exact, rounded = (forwarding([*command, precision], folder / "run.json") for precision in ("f32", "bf16"))
        row(f"{name}: forwarding in bf16 / in float32", rounded / exact)
    text = "\n".join(["| | measured | target | reached |", "|---|---|---|---|", *rows])
    print(text)
    if options.page:
        compare.pages.put(options.page, text, "targets")


if __name__ == "__main__":
    main()

"""Times whole commands: `prism` and the same job in Python (baseline.py), alternating on one machine.

    python benches/compare.py FOLDER --prism target/release/prism --forward target/release/examples/forward
        [--page docs/performance.md] [--only NETWORK ...]

For each network, with 4 and with 64 photographs of at most half a megapixel: seconds of the whole command (median of
several runs, A B A B ...) and peak memory (resident, and private, i.e. anonymous, read every 10 ms). The two counts
give time and private memory of a further image. The bare forward pass of one image runs alternating with `prism`, on
photographs and on the same images in a file of arrays (without decoding). Weights are seeded (EfficientNet-Lite's are
its own); both programs read the same files. Private memory of a further image is also measured beyond 64 images (128).
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "quality"))
import pages  # noqa: E402

NETWORKS = ("vgg16", "resnet50", "mobilenet_v2", "efficientnet_lite0")
FEW, MANY, MORE = 4, 64, 128
RUNS = {FEW: 5, MANY: 3, MORE: 3}
AT_ONCE = "4"  # images per forward pass, of prism on four cores and of the bare forward pass
LARGEST = 500_000  # pixels of a photograph


def photographs(folder):
    """64 photographs made from samples/, each with another crop, of at most half a megapixel."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = sorted((ROOT / "samples").glob("*.jpg"))
    files = []
    for k in range(MANY):
        file = folder / f"photo_{k:02}.jpg"
        files.append(str(file))
        if file.exists():
            continue
        picture = Image.open(sources[k % len(sources)]).convert("RGB")
        trim = k // len(sources) / 40
        box = (trim * picture.width, trim * picture.height, (1 - trim / 2) * picture.width, (1 - trim / 2) * picture.height)
        picture = picture.crop(tuple(map(int, box)))
        scale = min(1, (LARGEST / (picture.width * picture.height)) ** 0.5)
        picture.resize((int(picture.width * scale), int(picture.height * scale)), Image.LANCZOS).save(file, quality=90)
    return files


def weights_of(name, folder):
    if name.startswith("efficientnet_lite"):
        return ROOT / "models" / f"{name}.pth"
    file = folder / f"{name}.pth"
    if not file.exists():
        import torch
        import torchvision

        torch.manual_seed(0)
        torch.save(getattr(torchvision.models, name)(weights=None).state_dict(), file)
    return file


def measured(command):
    """Seconds, peak resident MB, peak private MB of a whole command."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    private, resident = 0, 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        found = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith(("RssAnon", "VmHWM"))}
        private = max(private, int(found.get("RssAnon", 0)))
        resident = max(resident, int(found.get("VmHWM", 0)))
        time.sleep(0.01)
    seconds = time.perf_counter() - begin
    error = process.stderr.read().decode()
    if process.wait() != 0:
        sys.exit(f"{command[0]} failed: {error}")
    return seconds, resident / 1024, private / 1024


def arrays(folder, files):
    """The pixels of the files, [N,3,224,224], as an array that prism takes instead of them."""
    import numpy

    made = folder / f"input_{len(files)}.npz"
    if not made.exists():
        pixels = [numpy.asarray(Image.open(file).convert("RGB").resize((224, 224))) for file in files]
        numpy.savez(made, input=numpy.stack(pixels).transpose(0, 3, 1, 2).astype("float32") / 255)
    return [str(made)]


def stages_and_bare(prism, bare, inputs, json_file):
    """Seconds of each stage of prism for each input, and of the bare forward pass of one image: alternating, medians of three."""
    runs, seconds = {key: [] for key in inputs}, []
    for _ in range(3):
        for key, files in inputs.items():
            subprocess.run([*prism, *files, "--json", str(json_file)], check=True, stdout=subprocess.DEVNULL)
            runs[key].append(json.loads(json_file.read_text())["seconds"])
        seconds.append(float(subprocess.run(bare, check=True, capture_output=True, text=True).stdout))
    stages = {key: {stage: statistics.median(run[stage] for run in got) for stage in got[0]} for key, got in runs.items()}
    return stages, statistics.median(seconds)


def network_rows(name, options, files):
    folder = Path(options.folder)
    weights = str(weights_of(name, folder))
    ours = [options.prism, "--model", name, "--weights", weights, "--quiet", "--output-dir", str(folder / "out"), "--input"]
    theirs = [sys.executable, str(ROOT / "benches/baseline.py"), name, weights, str(folder / "out")]
    kinds = {"prism": ours, "Python": theirs}
    results = {}
    for count in (FEW, MANY):
        runs = {kind: [] for kind in kinds}
        for run in range(RUNS[count] + 1):
            for kind, command in kinds.items():
                got = measured([*command, *files[:count]])
                if run > 0:  # the first warms the page cache
                    runs[kind].append(got)
        for kind, got in runs.items():
            results[kind, count] = [statistics.median(column) for column in zip(*got)]
        print(name, count, {kind: [round(x, 2) for x in results[kind, count]] for kind in kinds}, file=sys.stderr, flush=True)
    again = folder / "again"
    again.mkdir(exist_ok=True)
    for file in files:
        if not (copy := again / Path(file).name).exists():
            copy.symlink_to(Path(file).resolve())
    more = [*files, *map(str, sorted(again.iterdir()))]
    results["prism", MORE] = [statistics.median(column) for column in zip(*(measured([*ours, *more]) for _ in range(RUNS[MORE])))]
    inputs = {FEW: files[:FEW], MANY: files[:MANY]}
    inputs |= {("arrays", count): arrays(folder, files[:count]) for count in (FEW, MANY)}
    stages, bare = stages_and_bare(ours, [options.forward, name, weights, AT_ONCE], inputs, folder / "run.json")
    further = {
        kind: [(many - few) / (MANY - FEW) for few, many in zip(results[kind, FEW], results[kind, MANY])] for kind in kinds
    }
    return results, further, bare, stages


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--prism", default="target/release/prism")
    parser.add_argument("--forward", default="target/release/examples/forward")
    parser.add_argument("--page", help="Markdown file; the part between the markers is replaced")
    parser.add_argument("--only", nargs="+", default=NETWORKS, choices=NETWORKS)
    options = parser.parse_args()
    files = photographs(Path(options.folder) / "photographs")
    head = ["| | " + " | ".join(options.only) + " |", "|---|" + "---|" * len(options.only)]
    names = []
    table = {}

    def row(label, text):
        if label not in table:
            names.append(label)
        table.setdefault(label, []).append(text)

    for name in options.only:
        results, further, bare, stages = network_rows(name, options, files)
        for count in (FEW, MANY):
            mine, python = results["prism", count], results["Python", count]
            row(f"{count} images: prism / Python, s", f"{mine[0]:.2f} / {python[0]:.2f}")
            row(f"{count} images: speed-up", f"**{python[0] / mine[0]:.1f}**")
        row("further image: prism / Python, ms", f"{1000 * further['prism'][0]:.0f} / {1000 * further['Python'][0]:.0f}")
        row("further image: speed-up", f"**{further['Python'][0] / further['prism'][0]:.1f}**")
        row("bare forward pass of one image, ms", f"{1000 * bare:.0f}")
        row("further image / bare forward pass", f"{further['prism'][0] / bare:.2f}")
        more, alone = (
            {stage: (many[stage] - few[stage]) / (MANY - FEW) for stage in few}
            for few, many in ((stages[FEW], stages[MANY]), (stages["arrays", FEW], stages["arrays", MANY]))
        )
        for image, ratio, of in (
            ("further image", "", more),
            ("further image without decoding", "without decoding: ", alone),
        ):
            forward = of["forwarding"] + of["collecting"]
            row(f"{image}: forwarding and collecting, ms", f"{1000 * forward:.0f}")
            row(f"{ratio}forwarding and collecting / bare forward pass", f"**{forward / bare:.2f}**")
        row("further image: decoding / analysing / drawing, ms", " / ".join(f"{1000 * more[s]:.0f}" for s in ("decoding", "analysing", "drawing")))
        for count in (FEW, MANY):
            row(f"{count} images: " + ", ".join(stages[count]) + ", s", " ".join(f"{seconds:.2f}" for seconds in stages[count].values()))
        size = weights_of(name, Path(options.folder)).stat().st_size / 2**20
        row("weights, MB", f"{size:.0f}")
        row(f"peak private memory at {MANY} images: prism / Python, MB", f"{results['prism', MANY][2]:.0f} / {results['Python', MANY][2]:.0f}")
        row("private memory of a further image: prism / Python, MB", f"{further['prism'][2]:.2f} / {further['Python'][2]:.1f}")
        row(
            f"private memory of a further image beyond {MANY}: prism, MB",
            f"{(results['prism', MORE][2] - results['prism', MANY][2]) / (MORE - MANY):.2f}",
        )
        row(f"peak resident memory at {MANY} images: prism / Python, MB", f"{results['prism', MANY][1]:.0f} / {results['Python', MANY][1]:.0f}")
    processor = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    text = f"{os.cpu_count()} cores ({processor}), {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') >> 30} GiB.\n"
    text += f"Medians of {RUNS[FEW]} alternating runs with {FEW} images and {RUNS[MANY]} with {MANY}.\n\n"
    text += "\n".join(head + [f"| {label} | " + " | ".join(table[label]) + " |" for label in names])
    print(text)
    if options.page:
        pages.put(options.page, text)


if __name__ == "__main__":
    main()

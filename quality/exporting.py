"""Tests models/export.py on small networks: which file it writes, what it says, and that prism takes the file.

    python quality/exporting.py FOLDER --prism target/release/prism

Needs torch 2.9 or later and numpy.
"""
import argparse
import json
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PHOTOGRAPHS = [ROOT / "samples" / f"{name}.jpg" for name in ("cat", "dog")]

NETWORKS = '''
import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        first, second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.features = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), second, nn.ReLU())
        self.classifier = nn.Linear(16, 10)

    def forward(self, images):
        return self.classifier(self.features(images).mean([2, 3]))


class Several(Plain):
    def forward(self, *inputs):
        return super().forward(inputs[0])


class OneByOne(Plain):
    def forward(self, images):
        return torch.cat([super(OneByOne, self).forward(image[None]) for image in images])


class Autocast(Plain):
    def forward(self, images):
        with torch.autocast("cpu", enabled=False):
            return super().forward(images)


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.plain = Plain()

    def forward(self, images):
        if bool(images.sum() > 1e9):
            images = images - 1
        return self.plain(images)


class Condition(Plain):
    def forward(self, images):
        images = torch.cond(images.sum() > 1e9, lambda x: x - 1, lambda x: x * 1, (images,))
        return super().forward(images)


class Draws(Plain):
    def forward(self, images):
        return super().forward(nn.functional.dropout(images, 0.5, True))


class Picture(Plain):
    def forward(self, images):
        return images
'''
# Arguments -> the file, what is said about it (standard output), and notes or the error (standard error).
WRITTEN = [
    ("Plain", "Plain.pt2", "Plain.pt2: exported, 10 classes, images of 64x64", ""),
    ("Plain --format torchscript", "Plain.pt", "Plain.pt: scripted, 10 classes", ""),
    ("Plain --trace", "Plain.pt", "Plain.pt: traced, 10 classes", ""),
    ("Plain --output other.pt", "other.pt", "other.pt: scripted", ""),
    ("Plain --output other.pt2", "other.pt2", "other.pt2: exported", ""),
    ("Plain --output other.net", "other.net", "other.net: exported", ""),
    ("Several", "Several.pt2", "Several.pt2: exported, ", ""),
    ("Autocast", "Autocast.pt2", "Autocast.pt2: exported, ", ""),
    ("OneByOne", "OneByOne.pt2", "exported for one image", "a batch of any size: the network's forward makes it a fixed number"),
    ("Branches", "Branches.pt", "Branches.pt: scripted", "branches on values that it computes; this is TorchScript instead"),
]  # fmt: skip
REFUSED = [
    ("Plain --format pt2 --output other.pt", "--format pt2 does not fit --output other.pt"),
    ("Plain --format torchscript --output other.pt2", "--format torchscript does not fit --output other.pt2"),
    ("Plain --format pt2 --trace", "--trace is for TorchScript"),
    ("Branches --format pt2", "torch.export refuses the network: the network's forward branches"),
    ("Condition --format pt2", "operator cond"),
    ("Draws", "does its forward draw random numbers?"),
    ("Picture", "no class scores"),
    ("Plain --labels two.txt", "there are 2 labels for 10 classes"),
    ("Plain --output nowhere/other.pt2", "No such file or directory"),
]  # fmt: skip


def export(folder, arguments):
    name, *rest = arguments.split()
    command = [sys.executable, ROOT / "models" / "export.py", f"networks.py:{name}", "--image-size", "64", *rest]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def run(prism, file):
    """What prism says that fails, and the arrays that it writes."""
    import numpy as np

    command = [prism, "--model", f"./{file.name}", "--output-dir", "results", "--save-arrays", "arrays.npz", "--quiet"]
    done = subprocess.run([*command, "--input", *PHOTOGRAPHS], cwd=file.parent, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip(), None
    with np.load(file.parent / "arrays.npz") as arrays:
        return None, dict(arrays)


def eager(folder, name, images):
    sys.path.insert(0, str(folder))
    import networks
    import torch

    with torch.no_grad():
        return getattr(networks, name)().eval()(torch.from_numpy(images)).numpy()


def failures(folder, prism):
    import numpy as np

    for arguments, file, said, noted in WRITTEN:
        for old in folder.glob("*.pt*"):
            old.unlink()
        done = export(folder, arguments)
        if done.returncode or said not in done.stdout or (noted not in done.stderr if noted else done.stderr):
            yield f"{arguments}: status {done.returncode}, {done.stdout!r}, {done.stderr!r}"
            continue
        with zipfile.ZipFile(folder / file) as archive:
            entries = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
        if json.loads(entries["extra/prism.json"])["image_size"] != [64, 64]:
            yield f"{arguments}: prism.json says {entries['extra/prism.json']}"
        program = entries.get("models/model.json", b"")
        if str(folder).encode() in program or b"networks.py" in program:
            yield f"{arguments}: the file names the folder of the source"
        failure, arrays = run(prism, folder / file)
        if failure:
            yield f"{arguments}: {failure}"
            continue
        images, found = arrays["input"], arrays["logits"]
        wanted = eager(folder, arguments.split()[0], images)
        if images.shape[2:] != (64, 64) or not np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max():
            yield f"{arguments}: prism's scores are off by {np.abs(found - wanted).max():.2g}, for images of {images.shape}"
    for arguments, said in REFUSED:
        done = export(folder, arguments)
        lines = done.stderr.splitlines()
        if done.returncode != 1 or len(lines) != 1 or said not in lines[0] or len(lines[0]) > 300:
            yield f"{arguments}: status {done.returncode}, {done.stderr!r}"
    for part in folder.glob("*.part"):
        yield f"{part.name} was left"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--prism", default=str(ROOT / "target/release/prism"))
    options = parser.parse_args()
    folder = Path(options.folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "networks.py").write_text(NETWORKS)
    (folder / "two.txt").write_text("one\ntwo\n")
    found = list(failures(folder, str(Path(options.prism).resolve())))
    print("\n".join(found) or f"{len(WRITTEN) + len(REFUSED)} exports are right")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()

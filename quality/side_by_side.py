"""The photographs of samples/ beside their features and maps, as one picture.

    python quality/side_by_side.py docs/gallery/upsampling.jpg --prism target/release/prism --models models
"""
import argparse

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import program
import regression
from composites import MEAN, STD
from features import Network

SIDE, GAP, LABEL = 128, 4, 20  # pixels
QUALITY = 88
RULES = {"features": "none", "bilinear": "bilinear", "bilateral": "bilateral"}  # of `--upsampling`


def pictures(options):
    """{title of the row: pictures [B,3,h,w] in [0,1]}."""
    runs = {
        title: program.arrays(options, options.network, options.samples, ["--upsampling", rule])
        for title, rule in RULES.items()
    }
    images = next(iter(runs.values()))["input"]
    cells = torch.from_numpy(2 * runs["features"]["maps"] - 1)
    guides = Network(options.network, options.models).guides(torch.from_numpy(images))
    before = regression.normalised(regression.upsampled(cells, guides, images.shape[-1]))
    maps = {title: run["maps"] for title, run in runs.items()}
    return {
        "input": images * np.reshape(STD, (3, 1, 1)) + np.reshape(MEAN, (3, 1, 1)),
        "features, one colour for each cell: --upsampling none": maps["features"],
        "bilinear: --upsampling bilinear": maps["bilinear"],
        "regression on the guides, the rule before": (before.numpy() + 1) / 2,
        "bilateral: --upsampling bilateral": maps["bilateral"],
    }


def drawn(values):
    """[3,h,w] in [0,1] -> picture; what is coarser than the picture is drawn in blocks."""
    pixels = (np.clip(values, 0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    coarse = len(pixels) < SIDE
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.NEAREST if coarse else Image.LANCZOS)


def sheet(rows):
    count = max(len(row) for row in rows.values())
    picture = Image.new("RGB", (count * (SIDE + GAP) + GAP, len(rows) * (SIDE + LABEL + GAP)), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for i, (title, row) in enumerate(rows.items()):
        top = i * (SIDE + LABEL + GAP)
        draw.text((GAP, top + 2), title, "black", font)
        for j, values in enumerate(row):
            picture.paste(drawn(values), (GAP + j * (SIDE + GAP), top + LABEL))
    return picture


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture")
    parser.add_argument("--network", default="efficientnet_lite0")
    parser.add_argument("--prism", default="target/release/prism")
    parser.add_argument("--models", default="models")
    parser.add_argument("--samples", default="samples")
    options = parser.parse_args()
    sheet(pictures(options)).save(options.picture, quality=QUALITY)


if __name__ == "__main__":
    main()

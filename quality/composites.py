"""Makes composites with known masks: animals cut out of photographs, pasted on other photographs and on textures.

    python quality/composites.py FOLDER

It fetches three Debian packages into FOLDER (`apt-get download`, unpacked without root, never installed) and writes
FOLDER/composites_SIZE.npz for the input sizes of EfficientNet-Lite0, 1 and 2: `input` [N,3,S,S] float32 (normalised
with ImageNet's mean and deviation), `mask` [N,S,S] bool (alpha > 0.5), `cutout` [N], `half` [N] ("choosing" or
"reporting").

Rules and one seed decide everything before any network runs. No animal species and no background photograph is in
both halves. The layout (place, size, mirroring, background) is the same at every input size.
"""
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

SEED = 20221
PER_CUTOUT = 3  # composites of each cut-out
SHARE = (0.08, 0.45)  # of the picture that the mask covers
FILL = 0.97  # of the picture's side that the cut-out's frame may take at most
SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Tux Paint's stamps (GPL-2) for the animals; wallpapers (GPL-2+, CC-BY and CC-BY-SA 3.0 and 4.0, CC0, by the packages' own
# copyright files) for the backgrounds. None of them is part of this repository.
PACKAGES = ("tuxpaint-stamps-default", "mate-backgrounds", "lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04")
STAMPS = "usr/share/tuxpaint/stamps/animals"
MIN_COLOURS = 200  # fewer (of 32 levels a channel) is a drawing, not a photograph
MIN_SIDE = 150  # pixels: smaller cut-outs would be enlarged to a blur

# The photographs of the wallpaper packages that show no animal; the rest is abstract or drawn.
PHOTOGRAPHS = (
    "Aqua", "Blinds", "Dune", "FreshFlower", "Garden", "GreenMeadow", "RainDrops", "Storm", "TwoWings", "Wood",
    "YellowFlower", "Bridge_by_Sander_Klootwijk", "Picture_0B_by_freespace", "Picture_1A_by_freespace",
    "Wine_by_Jakkub_Mede", "aitzgorri_by_Aitzol_Berasategi", "life_by_Aitzol_Berasategi",
    "picosdeeuropa_by_Aitzol_Berasategi", "seeding_by_Clements_Engelhardt", "sunset_by_Aitzol_Berasategi",
)  # fmt: skip


def fetch(folder):
    """The packages, unpacked into folder/packages."""
    tree = folder / "packages"
    for package in PACKAGES:
        stamp = tree / f"{package}.unpacked"
        if stamp.exists():
            continue
        tree.mkdir(parents=True, exist_ok=True)
        for old in tree.glob(f"{package}_*.deb"):
            old.unlink()
        try:
            subprocess.run(["apt-get", "-qq", "download", package], cwd=tree, check=True)
            archive = next(tree.glob(f"{package}_*.deb"))
            subprocess.run(["dpkg-deb", "-x", archive.name, "."], cwd=tree, check=True)
        except (OSError, StopIteration, subprocess.CalledProcessError) as error:
            sys.exit(f"composites: cannot fetch Debian's {package} ({error}); on Debian run `apt-get update` first")
        archive.unlink()
        stamp.touch()
    return tree


def cutouts(tree):
    """{path below the stamps: RGBA image, cropped to what is not transparent}, by name."""
    found = {}
    root = tree / STAMPS
    for path in sorted(root.rglob("*.png")):
        name = path.relative_to(root).as_posix()
        if re.search(r"cartoon|toys", name):
            continue
        image = Image.open(path).convert("RGBA")
        pixels = np.asarray(image)
        inside = pixels[..., 3] > 127
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        image = image.crop(tuple(int(edge) for edge in box))
        many_colours = len(np.unique(pixels[inside][:, :3] // 8, axis=0)) >= MIN_COLOURS
        if many_colours and max(image.size) >= MIN_SIDE and largest_share(image) >= 2 * SHARE[0]:
            found[name[: -len(".png")]] = image
    return found


def filled(image):
    """Share of the image's frame that its mask covers."""
    return float((np.asarray(image)[..., 3] > 127).mean())


def largest_share(image):
    """Share of a square picture that the mask covers where the frame is as large as FILL lets it be."""
    width, height = image.size
    return filled(image) * FILL**2 * width * height / max(width, height) ** 2


def species(name):
    """First word of a cut-out's file name: pictures of the same kind of animal stay in the same half."""
    return re.split(r"[-_0-9]", name.split("/")[-1].lower())[0]


def photographs(tree):
    root = tree / "usr/share/backgrounds"
    found = {path.stem: path for path in sorted(root.rglob("*.jpg")) if path.stem in PHOTOGRAPHS}
    missing = set(PHOTOGRAPHS) - set(found)
    if missing:
        sys.exit(f"composites: the wallpaper packages lack {sorted(missing)}")
    return found


@dataclass
class Layout:
    """One composite; lengths are shares of the picture's side."""

    cutout: str
    half: str
    share: float
    x: float  # of the room left beside the cut-out
    y: float
    mirrored: bool
    jitter: tuple  # brightness, contrast, saturation of the cut-out
    background: str  # a photograph's name, or a texture's
    seed: int  # of the background's crop or noise


TEXTURES = ("noise", "landscape", "blocks")


def layouts(animals, photos, rng):
    """Half of the species and of the photographs to each half; half of the backgrounds are textures."""
    kinds = sorted({species(name) for name in animals})
    rng.shuffle(kinds)
    names = sorted(photos)
    rng.shuffle(names)
    # species are dealt out so that the halves hold equally many cut-outs
    half_of, count = {}, {"choosing": 0, "reporting": 0}
    for kind in kinds:
        half = min(count, key=count.get)
        half_of[kind] = half
        count[half] += sum(species(name) == kind for name in animals)
    photos_of = {"choosing": names[::2], "reporting": names[1::2]}
    made = []
    for name in animals:
        half = half_of[species(name)]
        most = min(SHARE[1], largest_share(animals[name]))
        for k in range(PER_CUTOUT):
            photo = bool(rng.random() < 0.5) if k == 2 else k == 0
            background = str(rng.choice(photos_of[half] if photo else TEXTURES))
            made.append(
                Layout(
                    cutout=name,
                    half=half,
                    share=float(rng.uniform(SHARE[0], most)),
                    x=float(rng.random()),
                    y=float(rng.random()),
                    mirrored=bool(rng.random() < 0.5),
                    jitter=tuple(float(rng.uniform(0.85, 1.15)) for _ in range(3)),
                    background=background,
                    seed=int(rng.integers(2**31)),
                )
            )
    rng.shuffle(made)  # batches are then made of different animals
    return made


def smooth_noise(rng, size, octaves, falloff):
    """[size, size] in [0, 1]: random grids of 2^o cells, enlarged and summed."""
    total = np.zeros((size, size))
    for octave in octaves:
        cells = rng.random((2**octave + 1, 2**octave + 1)).astype(np.float32)
        layer = Image.fromarray(cells, "F").resize((size, size), Image.BICUBIC)
        total += falloff**octave * np.asarray(layer)
    return (total - total.min()) / (total.max() - total.min())


def colours(rng, count):
    return rng.uniform(0.05, 0.95, (count, 3))


def texture(kind, seed, size=520):
    """A seeded picture without anything in it."""
    rng = np.random.default_rng(seed)
    if kind == "noise":
        a, b, c = colours(rng, 3)
        first, second = (smooth_noise(rng, size, range(1, 8), f)[..., None] for f in rng.uniform(0.4, 0.9, 2))
        picture = a * first + b * (1 - first)
        picture = picture * second + c * (1 - second)
    elif kind == "landscape":
        sky, haze, *ground = colours(rng, 5)
        down = np.linspace(0, 1, size)[:, None, None]
        clouds = smooth_noise(rng, size, range(1, 7), 0.6)[..., None]
        picture = sky * (1 - down) + haze * down
        picture = picture + 0.5 * (1 - picture) * np.clip(2 * clouds - 1, 0, 1)
        horizon = rng.uniform(0.25, 0.5)
        for k, colour in enumerate(ground):
            ridge = smooth_noise(rng, size, range(1, 7), 0.5)[0] * 0.2 + horizon + 0.2 * k
            rough = smooth_noise(rng, size, range(3, 8), 0.9)[..., None]
            land = np.linspace(0, 1, size)[:, None] > ridge
            picture = np.where(land[..., None], colour * (0.5 + 0.7 * rough), picture)
    else:  # walls with rows of windows
        picture = np.ones((size, size, 3)) * colours(rng, 1)[0]
        left = 0
        while left < size:
            width = int(rng.integers(size // 8, size // 2))
            top = int(rng.integers(0, size // 2))
            wall, window = colours(rng, 2)
            picture[top:, left : left + width] = wall
            step, gap = int(rng.integers(18, 60)), rng.uniform(0.3, 0.7)
            for y in range(top + step // 2, size, step):
                for x in range(left + step // 4, left + width - step // 2, step):
                    picture[y : y + int(step * gap), x : x + int(step * gap)] = window
            left += width
        picture *= 0.7 + 0.4 * smooth_noise(rng, size, range(2, 8), 0.8)[..., None]
    picture = picture + rng.normal(0, rng.uniform(0, 0.04), picture.shape)
    return Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))


def crop(path, seed):
    """A seeded square of a photograph, a half to all of its shorter side, mirrored or not."""
    rng = np.random.default_rng(seed)
    image = Image.open(path).convert("RGB")
    image.thumbnail((1200, 1200), Image.BILINEAR)
    side = int(min(image.size) * rng.uniform(0.5, 1))
    x, y = (int(rng.integers(0, room - side + 1)) for room in image.size)
    image = image.crop((x, y, x + side, y + side))
    return image.transpose(Image.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def render(layout, animal, background, size):
    """(RGB [size,size,3] uint8, mask [size,size] bool)."""
    picture = background.resize((size, size), Image.LANCZOS)
    if layout.mirrored:
        animal = animal.transpose(Image.FLIP_LEFT_RIGHT)
    colour = animal.convert("RGB")
    for enhance, factor in zip((ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), layout.jitter):
        colour = enhance(colour).enhance(factor)
    scale = (layout.share * size**2 / (filled(animal) * animal.width * animal.height)) ** 0.5
    shape = [min(size, max(1, round(scale * side))) for side in animal.size]
    # colours are resized times alpha, so that what hides behind transparent pixels does not bleed into the edge
    alpha = np.asarray(animal.getchannel("A"), np.float32) / 255
    planes = [alpha] + [np.asarray(plane, np.float32) * alpha for plane in colour.split()]
    planes = [np.asarray(Image.fromarray(plane, "F").resize(shape, Image.BICUBIC, reducing_gap=None)) for plane in planes]
    alpha = np.clip(planes[0], 0, 1)
    left, top = (round(share * (size - side)) for share, side in zip((layout.x, layout.y), shape))
    out = np.asarray(picture, np.float32).copy()
    area = out[top : top + shape[1], left : left + shape[0]]
    area[:] = np.stack(planes[1:], -1) + area * (1 - alpha[..., None])
    mask = np.zeros((size, size), bool)
    mask[top : top + shape[1], left : left + shape[0]] = alpha > 0.5
    return np.clip(out, 0, 255).round().astype(np.uint8), mask


def main():
    folder = Path(sys.argv[1])
    tree = fetch(folder)
    animals, photos = cutouts(tree), photographs(tree)
    plan = layouts(animals, photos, np.random.default_rng(SEED))
    backgrounds = [
        texture(layout.background, layout.seed)
        if layout.background in TEXTURES
        else crop(photos[layout.background], layout.seed)
        for layout in plan
    ]
    for size in SIZES.values():
        pairs = [render(layout, animals[layout.cutout], ground, size) for layout, ground in zip(plan, backgrounds)]
        pictures = np.stack([pair[0] for pair in pairs])
        values = (pictures / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
        np.savez_compressed(
            folder / f"composites_{size}.npz",
            input=np.ascontiguousarray(values.astype(np.float32).transpose(0, 3, 1, 2)),
            mask=np.stack([pair[1] for pair in pairs]),
            cutout=np.array([layout.cutout for layout in plan]),
            half=np.array([layout.half for layout in plan]),
            background=np.array([layout.background for layout in plan]),
        )
    shares = np.array([pair[1].mean() for pair in pairs])
    halves = [layout.half for layout in plan]
    print(
        f"{len(animals)} cut-outs of {len({species(name) for name in animals})} species, {len(photos)} photographs;"
        f" composites: {halves.count('choosing')} choosing, {halves.count('reporting')} reporting;"
        f" masks cover {shares.min():.2f} to {shares.max():.2f}, {np.median(shares):.2f} in the middle"
    )


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Makes tests/data/images: small files of every kind, each with what Pillow or
NumPy makes of it as NAME.expected.png, and pictures resized by Pillow.

    pip install numpy==2.4.6 Pillow==13.0.0
    python tests/reference/make_images.py PHOTO.jpg

PHOTO.jpg is the cat of samples/ (public domain).
"""

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

OUT = Path(__file__).resolve().parent.parent / "data" / "images"


def png(path, array, colour_type, extra=b""):
    """Writes 8- or 16-bit samples as PNG: Pillow writes no 16-bit colour."""

    def chunk(name, data):
        crc = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)

    height, width = array.shape[:2]
    depth = array.dtype.itemsize * 8
    big_endian = array.astype(array.dtype.newbyteorder(">")).reshape(height, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in big_endian)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra
    body += chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def expect(name, picture):
    """The RGB picture that decoding the file of that name must give."""
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture.astype(np.uint8), "RGB")
    picture.save(OUT / f"{name}.expected.png", optimize=True)


def over_white(colour, alpha, top):
    """colour * alpha + white * (1 - alpha), in float64, as 8-bit RGB; samples in 0..top."""
    colour, alpha = colour.astype(np.float64), alpha.astype(np.float64)[..., None] / top
    mixed = colour * alpha + top * (1 - alpha)
    mixed = np.floor(mixed * 255 / top + 0.5)
    return mixed if mixed.shape[-1] == 3 else np.repeat(mixed, 3, axis=-1)


def jpeg(picture, **options):
    data = io.BytesIO()
    picture.save(data, "JPEG", **options)
    return bytearray(data.getvalue())


def pillow(name, data=None):
    """Writes the data and keeps what Pillow's convert("RGB") makes of the file."""
    if data is not None:
        (OUT / name).write_bytes(data)
    expect(name, Image.open(OUT / name).convert("RGB"))


def renamed_components(data):
    """A JPEG whose components are called 1, 2, 3 instead of R, G, B."""
    data = bytearray(data)
    frame = data.index(b"\xff\xc0")
    scan = data.index(b"\xff\xda")
    for i in range(3):
        data[frame + 10 + 3 * i] = i + 1
        data[scan + 5 + 2 * i] = i + 1
    return data


def without_adobe_marker(data):
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 2 + struct.unpack(">H", data[at + 2 : at + 4])[0] :]


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.iterdir():
        old.unlink()
    full = Image.open(sys.argv[1]).convert("RGB")
    photo = full.resize((96, 72), Image.LANCZOS)
    small = full.resize((26, 19), Image.LANCZOS)
    rng = np.random.default_rng(7)

    # Resizing: the source and Pillow's bilinear results, WIDTHxHEIGHT in the name.
    photo.save(OUT / "photo.png", optimize=True)
    for width, height in [(33, 21), (64, 64), (131, 97), (7, 200), (1, 1)]:
        photo.resize((width, height), Image.BILINEAR).save(OUT / f"photo_{width}x{height}.png", optimize=True)
    column, row = photo.crop((40, 0, 41, 72)), photo.crop((0, 30, 96, 31))
    column.resize((5, 40), Image.BILINEAR).save(OUT / "column_5x40.png")
    row.resize((41, 3), Image.BILINEAR).save(OUT / "row_41x3.png")
    # A large source, made by a formula in the test as well.
    y, x = np.mgrid[0:1500, 0:2000].astype(np.int64)
    formula = np.stack([(x * 7 + y * 13) % 256, (x * y // 64) % 256, (x // 3 ^ y // 5) % 256], -1)
    Image.fromarray(formula.astype(np.uint8), "RGB").resize((24, 20), Image.BILINEAR).save(OUT / "formula_24x20.png")

    # Orientation.
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        name = f"orientation_{orientation}.jpg"
        small.save(OUT / name, quality=95, subsampling=0, exif=exif)
        expect(name, ImageOps.exif_transpose(Image.open(OUT / name)).convert("RGB"))
    exif = Image.Exif()
    exif[0x0112] = 6
    small.save(OUT / "orientation_6.png", exif=exif)
    small.save(OUT / "orientation_6.webp", lossless=True, exif=exif)
    small.save(OUT / "orientation_6.tiff", tiffinfo={0x0112: 6})
    for name in ("orientation_6.png", "orientation_6.webp", "orientation_6.tiff"):
        expect(name, small.transpose(Image.ROTATE_270))

    # JPEG in its varieties.
    pillow("plain.jpg", jpeg(photo, quality=90))
    pillow("progressive.jpg", jpeg(photo, quality=90, progressive=True))
    pillow("restart.jpg", jpeg(photo, quality=90, restart_marker_blocks=3))
    pillow("grey.jpg", jpeg(small.convert("L"), quality=95))
    rgb = jpeg(small, quality=95, keep_rgb=True, subsampling=0)
    pillow("rgb.jpg", rgb)
    pillow("rgb_adobe.jpg", renamed_components(rgb))
    samples = np.asarray(small.convert("CMYK")).copy()
    samples[..., 3] = rng.integers(0, 3, samples.shape[:2]) * 20 + 30
    cmyk = jpeg(Image.fromarray(samples, "CMYK"), quality=95, subsampling=0)
    pillow("cmyk.jpg", cmyk)
    pillow("cmyk_plain.jpg", without_adobe_marker(cmyk))
    at = cmyk.index(b"Adobe") + 11
    ycck = bytearray(cmyk)
    ycck[at] = 2
    pillow("ycck.jpg", ycck)
    extra = jpeg(small, quality=95)
    extra[20:20] = b"\0\0\0\0\0\0\0\0"
    pillow("extra_bytes.jpg", extra)

    # Grey, palette, 16 bits and alpha.
    rgb8 = np.asarray(small)
    grey8 = np.asarray(small.convert("L"))
    alpha8 = rng.integers(0, 256, grey8.shape).astype(np.uint8)
    alpha8[:3] = 0
    alpha8[3:6] = 255
    noise = rng.integers(0, 257, rgb8.shape)
    rgb16 = np.clip(rgb8.astype(np.int64) * 257 + noise - 128, 0, 65535).astype(np.uint16)
    grey16, alpha16 = rgb16[..., 0], np.clip(alpha8.astype(np.int64) * 257 + noise[..., 1] - 128, 0, 65535).astype(np.uint16)
    eight = lambda v: np.floor(v / 257 + 0.5)
    png(OUT / "grey8.png", grey8, 0)
    expect("grey8.png", np.stack([grey8] * 3, -1))
    png(OUT / "grey16.png", grey16, 0)
    expect("grey16.png", np.stack([eight(grey16)] * 3, -1))
    png(OUT / "rgb16.png", rgb16, 2)
    expect("rgb16.png", eight(rgb16))
    png(OUT / "grey_alpha8.png", np.stack([grey8, alpha8], -1), 4)
    expect("grey_alpha8.png", over_white(grey8[..., None], alpha8, 255))
    png(OUT / "grey_alpha16.png", np.stack([grey16, alpha16], -1), 4)
    expect("grey_alpha16.png", over_white(grey16[..., None], alpha16, 65535))
    png(OUT / "rgba8.png", np.dstack([rgb8, alpha8]), 6)
    expect("rgba8.png", over_white(rgb8, alpha8, 255))
    png(OUT / "rgba16.png", np.dstack([rgb16, alpha16]), 6)
    expect("rgba16.png", over_white(rgb16, alpha16, 65535))
    palette = small.quantize(16)
    levels = bytes(range(0, 256, 17))
    palette.save(OUT / "palette_alpha.png", transparency=levels)
    rgba = np.asarray(Image.open(OUT / "palette_alpha.png").convert("RGBA"))
    expect("palette_alpha.png", over_white(rgba[..., :3], rgba[..., 3], 255))
    palette.save(OUT / "palette.bmp")
    pillow("palette.bmp")
    small.convert("1").save(OUT / "bilevel.png")
    pillow("bilevel.png")
    key = tuple(int(v) for v in rgb8[0, 0])
    small.save(OUT / "colour_key.png", transparency=key)
    expect("colour_key.png", np.where((rgb8 == key).all(-1, keepdims=True), 255, rgb8))

    # The other formats; a name in .png may hold another format.
    tiny = small.crop((0, 0, 16, 12))
    for name in ("lossless.bmp", "lossless.tga", "lossless.qoi", "lossless.tiff", "lossless.ppm"):
        tiny.save(OUT / name)
        expect(name, tiny)
    tiny.save(OUT / "lossless.webp", lossless=True)
    expect("lossless.webp", tiny)
    tiny.save(OUT / "lzw.tif", compression="tiff_lzw")
    expect("lzw.tif", tiny)
    tiny.save(OUT / "in_truth.bmp", "PNG")
    (OUT / "in_truth.bmp").rename(OUT / "png_named.jpg")
    expect("png_named.jpg", tiny)
    pillow("lossy.webp", (tiny.save(b := io.BytesIO(), "WEBP", quality=90), b.getvalue())[1])
    icon = tiny.resize((16, 16))
    icon.putalpha(Image.fromarray(alpha8[:16, :16]))
    icon.save(OUT / "icon.ico", sizes=[(16, 16)])
    icon = np.asarray(icon)
    expect("icon.ico", over_white(icon[..., :3], icon[..., 3], 255))
    Image.fromarray(samples[:12, :16], "CMYK").save(OUT / "cmyk.tiff")
    pillow("cmyk.tiff")
    Image.fromarray(grey16[:12, :16]).save(OUT / "grey16.tiff")
    expect("grey16.tiff", np.stack([eight(grey16[:12, :16])] * 3, -1))
    (OUT / "grey16.pgm").write_bytes(b"P5 16 12 65535\n" + grey16[:12, :16].astype(">u2").tobytes())
    expect("grey16.pgm", np.stack([eight(grey16[:12, :16])] * 3, -1))
    (OUT / "maxval.pgm").write_bytes(b"P5 16 12 15\n" + (grey8[:12, :16] // 16).tobytes())
    expect("maxval.pgm", np.stack([grey8[:12, :16] // 16 * 17] * 3, -1))

    # Animations: the first frame counts.
    second = tiny.transpose(Image.FLIP_LEFT_RIGHT)
    frames = [f.quantize(32) for f in (tiny, second)]
    frames[0].save(OUT / "animation.gif", save_all=True, append_images=frames[1:], duration=100)
    expect("animation.gif", frames[0].convert("RGB"))
    tiny.save(OUT / "animation.png", save_all=True, append_images=[second], duration=100)
    expect("animation.png", tiny)
    tiny.save(OUT / "animation.webp", save_all=True, append_images=[second], duration=100, lossless=True)
    expect("animation.webp", tiny)


if __name__ == "__main__":
    main()

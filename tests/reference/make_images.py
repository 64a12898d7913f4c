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


def tiff(path, samples, photometric, extra=(), orientation=None, order="<"):
    """Writes samples [h, w] or [h, w, c] as an uncompressed TIFF file; the orientation as a LONG."""
    pixels = samples if samples.ndim == 3 else samples[..., None]
    height, width, count = pixels.shape
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    bits = [pixels.dtype.itemsize * 8] * count
    short, long = ("H", 3), ("I", 4)
    tags = [(256, long, [width]), (257, long, [height]), (258, short, bits), (259, short, [1])]
    tags += [(262, short, [photometric]), (273, long, [8]), (277, short, [count]), (278, long, [height])]
    tags += [(279, long, [len(data)])]
    tags += [(274, long, [orientation])] if orientation else []
    tags += [(338, short, list(extra))] if extra else []
    tags.sort()
    start = 8 + len(data) + len(data) % 2
    beyond = start + 2 + 12 * len(tags) + 4
    entries, rest = b"", b""
    for number, (letter, kind), values in tags:
        field = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(field) > 4:
            field, rest = struct.pack(f"{order}I", beyond + len(rest)), rest + field
        entries += struct.pack(f"{order}HHI", number, kind, len(values)) + field.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + rest
    path.write_bytes(head + data.ljust(start - 8, b"\0") + directory)


def exif_with_long(orientation, order):
    """EXIF data with an orientation of four bytes, which EXIF does not allow but programs write."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return head + struct.pack(f"{order}HHHIII", 1, 274, 4, 1, orientation, 0)


def bmp32(path, rgba):
    """A BMP with an alpha mask (BITMAPV4HEADER)."""
    height, width, _ = rgba.shape
    data = rgba[::-1, :, [2, 1, 0, 3]].tobytes()
    head = struct.pack("<IiiHHII", 108, width, height, 1, 32, 3, len(data)) + bytes(16)
    head += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    path.write_bytes(b"BM" + struct.pack("<III", 14 + len(head) + len(data), 0, 14 + len(head)) + head + data)


def meant_otherwise(small):
    """Files whose samples mean something else than their format says."""
    tiny = small.crop((0, 0, 16, 12))
    rgb = np.asarray(tiny)
    # 12 bits in a file of 16, with and without a level of white; NAME.white.png is for white = 4095.
    ramp = np.asarray(small.convert("L")).astype(np.uint16) * 16 + 7
    eight = lambda v: np.stack([np.floor(v / 257 + 0.5)] * 3, -1)
    white = np.stack([np.floor(np.minimum(ramp.astype(np.int64), 4095) * 255 / 4095 + 0.5)] * 3, -1)
    for name, write in [
        ("twelve_bits.png", lambda path: png(path, ramp, 0)),
        ("twelve_bits.tiff", lambda path: tiff(path, ramp, 1, order=">")),
        ("twelve_bits.pgm", lambda path: path.write_bytes(b"P5 26 19 65535\n" + ramp.astype(">u2").tobytes())),
    ]:
        write(OUT / name)
        expect(name, eight(ramp))
        Image.fromarray(white.astype(np.uint8), "RGB").save(OUT / f"{name}.white.png", optimize=True)
    # The header says that 4095 is white.
    (OUT / "maxval12.pgm").write_bytes(b"P5 26 19 4095\n" + ramp.astype(">u2").tobytes())
    expect("maxval12.pgm", white)
    Image.fromarray(white.astype(np.uint8), "RGB").save(OUT / "maxval12.pgm.white.png", optimize=True)
    # 0 is white.
    tiff(OUT / "negative.tiff", ramp, 0)
    expect("negative.tiff", eight(65535 - ramp.astype(np.int64)))
    Image.fromarray((255 - white).astype(np.uint8), "RGB").save(OUT / "negative.tiff.white.png", optimize=True)
    # Temperatures: a narrow band in the middle.
    png(OUT / "narrow.png", ramp + 20000, 0)
    expect("narrow.png", eight(ramp + 20000))
    # Alpha that is 0 everywhere.
    empty = np.dstack([rgb, np.zeros(rgb.shape[:2], np.uint8)])
    bmp32(OUT / "empty_alpha.bmp", empty)
    Image.fromarray(empty, "RGBA").save(OUT / "empty_alpha.tga")
    png(OUT / "empty_alpha.png", empty, 6)
    for name in ("empty_alpha.bmp", "empty_alpha.tga", "empty_alpha.png"):
        expect(name, tiny)
    # Colours that have been multiplied by alpha.
    alpha = (np.arange(16 * 12).reshape(12, 16) * 255 // 191).astype(np.int64)
    for name, top, kind in [("premultiplied.tiff", 255, np.uint8), ("premultiplied16.tiff", 65535, np.uint16)]:
        colours, share = rgb.astype(np.int64) * (top // 255), alpha * (top // 255)
        multiplied = np.floor(colours * share[..., None] / top + 0.5)
        tiff(OUT / name, np.dstack([multiplied, share]).astype(kind), 2, extra=[1])
        expect(name, np.floor((multiplied + top - share[..., None]) * 255 / top + 0.5))
    multiplied = np.floor(rgb.astype(np.int64) * alpha[..., None] / 255 + 0.5)
    tga = OUT / "premultiplied.tga"
    Image.fromarray(np.dstack([multiplied, alpha]).astype(np.uint8), "RGBA").save(tga)
    pixels = tga.read_bytes().split(b"\0\0\0\0\0\0\0\0TRUEVISION-XFILE")[0]
    area = struct.pack("<H", 495) + bytes(492) + bytes([4])
    tga.write_bytes(pixels + area + struct.pack("<II", len(pixels), 0) + b"TRUEVISION-XFILE.\0")
    expect(tga.name, np.minimum(multiplied + 255 - alpha[..., None], 255))
    tiff(OUT / "alpha.tiff", np.dstack([rgb, alpha]).astype(np.uint8), 2, extra=[2])
    expect("alpha.tiff", over_white(rgb, alpha, 255))
    # An orientation of four bytes.
    for order, end in [("<", "little"), (">", "big")]:
        exif = exif_with_long(6, order)
        plain = jpeg(small, quality=95, subsampling=0)
        segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif
        (OUT / f"long_{end}.jpg").write_bytes(plain[:2] + segment + plain[2:])
        expect(f"long_{end}.jpg", Image.open(io.BytesIO(plain)).transpose(Image.ROTATE_270))
        small.save(OUT / f"long_{end}.webp", lossless=True, exif=exif)
        expect(f"long_{end}.webp", small.transpose(Image.ROTATE_270))
        chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
        png(OUT / f"long_{end}.png", np.asarray(small), 2, extra=chunk)
        expect(f"long_{end}.png", small.transpose(Image.ROTATE_270))
        tiff(OUT / f"long_{end}.tiff", np.asarray(small), 2, orientation=6, order=order)
        expect(f"long_{end}.tiff", small.transpose(Image.ROTATE_270))


def fitted(photo):
    """What torchvision's presets and a letterbox make of the photograph, WIDTHxHEIGHT in the name."""
    def crop(picture, size):
        (width, height), short = picture.size, int(size * 256 / 224 + 0.5)
        long = lambda side: int(short * side / min(width, height))
        picture = picture.resize((long(width), long(height)), Image.BILINEAR)
        left, top = round((picture.width - size) / 2), round((picture.height - size) / 2)
        return picture.crop((left, top, left + size, top + size))

    def pad(picture, size):
        scale = min(size / picture.width, size / picture.height)
        picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.BILINEAR)
        padded = Image.new("RGB", (size, size), (114, 114, 114))
        padded.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
        return padded

    upright = photo.transpose(Image.ROTATE_270)
    for name, picture in [("photo", photo), ("upright", upright)]:
        for size in (33, 64, 131):
            crop(picture, size).save(OUT / f"{name}_crop_{size}.png", optimize=True)
            pad(picture, size).save(OUT / f"{name}_pad_{size}.png", optimize=True)
    photo.convert("L").save(OUT / "photo_grey.png", optimize=True)


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

    meant_otherwise(small)
    fitted(photo)


if __name__ == "__main__":
    main()

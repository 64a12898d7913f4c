"""Images of many kinds, as files that the program reads without loss."""

import os
import struct
import sys
import zlib
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from .arrays import save_input
from .errors import UsageError, first_line, warn
from .order import key

# Words of a command line longer than this go into a file of paths. Linux takes 128 kB for one word, 2 MB in all.
LONGEST_WORDS = 100_000

# Modes of Pillow whose pixels a PNG holds as they are.
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16"}
# What to do about others. Pillow cuts the 16 bits of I off above 255 if it makes RGB or L of it.
_CONVERSIONS = {
    "I": "16-bit grey is numpy.asarray(image).astype('uint16')",
    "I;16B": "16-bit grey is numpy.asarray(image).astype('uint16')",
    "I;16L": "16-bit grey is numpy.asarray(image).astype('uint16')",
    "I;16N": "16-bit grey is numpy.asarray(image).astype('uint16')",
    "F": "scale its values to 0 to 255, and give numpy.asarray(image).round().astype('uint8')",
    "": "convert it: image.convert('RGB')",
}
_ORIENTATION = 0x0112


@dataclass
class Given:
    """Images as the program takes them.

    Attributes:
        words: what goes behind `--input`.
        null: whether a file of paths among them has zero bytes between its paths.
        values: what was given, in this order, as paths: files, folders, globs, archives.
        names: the name of each of these that is one image; None for the others.
        batch: the array `[N,C,H,W]` that the network takes as it is, if it is one.
    """

    words: List[str]
    values: List[str]
    names: Sequence[Optional[str]]
    null: bool = False
    batch: "Optional[np.ndarray]" = None


def prepare(images: Any, folder: str) -> Given:
    """Images as the program takes them.

    Args:
        images: paths, PIL images, arrays or tensors; one of them, or a list.
        folder: where files are made of what is no file.
    Raises:
        UsageError: if it is not clear what the images are.
    """
    if _is_path(images) or _is_picture(images):
        images = [images]
    if isinstance(images, np.ndarray) and images.dtype.kind in "OSU":
        images = images.ravel().tolist()
    if _is_array(images):
        array = _as_array(images, "images")
        if array.dtype.kind != "f" and array.ndim == 3 and not _is_tensor(images):
            _require_clear(array)
        return _batch(array, folder, "images")
    try:
        images = list(images)
    except TypeError:
        raise UsageError(f"images of the type {type(images).__name__} are not known; {_KNOWN}") from None
    if not images:
        raise UsageError("there are no images: the list is empty")
    arrays = [_as_array(image, f"images[{index}]") if _is_array(image) else image for index, image in enumerate(images)]
    if any(_is_array(array) and array.dtype.kind == "f" for array in arrays):
        return _batch(_stacked(arrays), folder, "images")
    return _listed(arrays, folder)


_KNOWN = "give paths, PIL images, uint8 arrays [N,H,W,3] or a normalised tensor [N,3,H,W]"


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, bytes, os.PathLike))


def _is_picture(value: Any) -> bool:
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or _is_tensor(value)


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _as_array(value: Any, name: str) -> "np.ndarray":
    """An array, or a tensor of any device and type, as an array in memory."""
    if isinstance(value, np.ndarray):
        return value
    try:
        tensor = value.detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.float()
        return tensor.numpy()  # type: ignore[no-any-return]
    except Exception as error:  # of torch: a sparse tensor, one without numbers
        raise UsageError(f"{name}: the tensor cannot be read ({first_line(error)}); give a dense one") from None


def _listed(images: Sequence[Any], folder: str) -> Given:
    """Images that are, or become, a file each; folders, globs and archives name several."""
    files: List[str] = []
    names: List[Optional[str]] = []
    digits = len(str(len(images) - 1))
    highest: Dict[Any, int] = {}
    for image in images:
        if _is_array(image) and image.size and image.dtype.kind in "ui":
            highest[image.dtype] = max(highest.get(image.dtype, 0), int(image.max()))
    for index, image in enumerate(images):
        name = f"images[{index}]"
        stem = os.path.join(folder, f"image_{index:0{digits}}")
        if _is_path(image):
            path, is_one = _path(os.fspath(image), name)
            names.append(path if is_one else None)
        elif _is_picture(image):
            path = _save_picture(image, stem, name)
            names.append(name)
        elif _is_array(image):
            if image.ndim == 4 and len(image) != 1:
                raise UsageError(
                    f"{name} has {len(image)} photographs; a list has one in each place: numpy.concatenate(images)"
                )
            pixels = _pixels(image[None] if image.ndim in (2, 3) else image, name, highest.get(image.dtype))
            path = _save_pixels(pixels[0], stem)
            names.append(name)
        else:
            raise UsageError(f"{name} is a {type(image).__name__}; {_KNOWN}")
        files.append(path)
    _require_distinct(files, names)
    if sum(map(len, files)) < LONGEST_WORDS:
        return Given(_words(files), files, names)
    for index, path in enumerate(files):
        if not os.path.exists(path):
            raise UsageError(
                f"images[{index}] is {path}: no such file, and so long a list has no globs; expand them by glob.glob"
            )
    listed = os.path.join(folder, "files.txt")
    with open(listed, "wb") as file:
        file.write(b"\0".join(map(os.fsencode, files)))
    return Given(["@" + listed], files, names, null=True)


def _path(path: Union[str, bytes], name: str) -> Tuple[str, bool]:
    """A path for the command line, and whether it is a file of one image."""
    path = os.fsdecode(path)
    if not path or path == "-":
        raise UsageError(f"{name} is {path!r}, which is no path")
    if not os.path.exists(path):
        return path, False
    is_one = not os.path.isdir(path) and not path.lower().endswith((".tar", ".npz", ".safetensors"))
    return path, is_one


def _words(paths: Sequence[str]) -> List[str]:
    """Paths that the command line does not take for an option or a list."""
    return ["./" + path if path[0] in "-@" and os.path.exists(path) else path for path in paths]


def _require_distinct(files: Sequence[str], names: Sequence[Optional[str]]) -> None:
    """The program takes a file once, and a summary tells files apart by their names in UTF-8."""
    seen: Dict[str, int] = {}
    for index, (file, name) in enumerate(zip(files, names)):
        if name is None:
            continue
        first = seen.setdefault(key(file), index)
        if first != index and os.path.abspath(file) != os.path.abspath(files[first]):
            raise UsageError(
                f"images[{first}] and images[{index}] differ in bytes that are not UTF-8 alone, {ascii(name)}; rename one"
            )
        if first != index:
            raise UsageError(f"images[{first}] and images[{index}] are both {name}; give each image once")


def _save_picture(image: Any, stem: str, name: str) -> str:
    """A file with the pixels of a PIL image."""
    if image.mode not in _MODES:
        raise UsageError(f"{name} has the mode {image.mode}; {_CONVERSIONS.get(image.mode, _CONVERSIONS[''])}")
    try:
        image.load()
        orientation = image.getexif().get(_ORIENTATION, 1) if hasattr(image, "getexif") else 1
    except Exception as error:  # of Pillow: a closed image, a damaged file
        raise UsageError(f"{name} cannot be read: {first_line(error)}") from None
    if orientation not in (0, 1):
        warn(
            f"{name} says that it is turned (EXIF orientation {orientation}), which is not applied to PIL images; "
            "PIL.ImageOps.exif_transpose(image) turns it"
        )
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return _save_pixels(np.asarray(image), stem)
    plain = image.convert("RGBA") if image.mode == "PA" else image.copy()
    plain.info = {key: value for key, value in image.info.items() if key == "transparency"}
    plain.save(stem + ".png", compress_level=1)
    return stem + ".png"


def _save_pixels(pixels: "np.ndarray", stem: str) -> str:
    """A file with pixels `[H,W]` or `[H,W,1|3|4]` of 8 or 16 bits."""
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        return _save_png(pixels, stem + ".png")
    height, width = pixels.shape[:2]
    kind, white = ("P5" if pixels.ndim == 2 else "P6"), np.iinfo(pixels.dtype).max
    path = stem + (".pgm" if pixels.ndim == 2 else ".ppm")
    with open(path, "wb") as file:
        file.write(f"{kind}\n{width} {height}\n{white}\n".encode())
        file.write(pixels.astype(pixels.dtype.newbyteorder(">")).tobytes())
    return path


def _save_png(pixels: "np.ndarray", path: str) -> str:
    """A PNG of pixels `[H,W,4]`, the last one being the opacity."""
    height, width = pixels.shape[:2]
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(height, -1).view(np.uint8)
    data = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.dtype.itemsize, 6, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(data, 1)), (b"IEND", b"")):
            file.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content)))
    return path


def _batch(array: "np.ndarray", folder: str, name: str) -> Given:
    """An array of several images, or of one."""
    if array.ndim == 3:
        array = array[None]
    if array.dtype.kind != "f":
        return _listed(list(_pixels(array, name)), folder)
    if array.ndim != 4 or 0 in array.shape:
        raise UsageError(f"{name} are floats of the shape {_shape(array)}; expected a normalised tensor [N,3,H,W]")
    if array.shape[3] in (1, 3, 4) and array.shape[1] not in (1, 3, 4):
        raise UsageError(f"{name} are floats [N,H,W,{array.shape[3]}]{_meant(array)}")
    _remark_range(array, name)
    path = os.path.join(folder, "images.npz")
    with np.errstate(over="ignore"):
        save_input(path, array.astype(np.float32, copy=False))
    files = [f"{path}:{index}" for index in range(len(array))]
    names = [f"images[{index}]" for index in range(len(array))]
    return Given([path], files, names, batch=array)


def _require_clear(array: "np.ndarray") -> None:
    """Refuses pixels `[3,H,W]`, which may be one image or three; a tensor of this shape is one by torch's custom."""
    count = array.shape[0]
    if count in (3, 4) and array.shape[2] not in (1, 3, 4):
        raise UsageError(
            f"images: the shape {_shape(array)} is one image with its channels first, or {count} grey ones; "
            f"give [1,{count},H,W] or [{count},H,W,1]"
        )


def _meant(array: "np.ndarray") -> str:
    """What to do about floats that have their channels last."""
    low, high = float(array.min()), float(array.max())
    if 0 <= low and high <= 1:
        return " from 0 to 1; photographs are bytes from 0 to 255: (images * 255).round().astype('uint8')"
    if 0 <= low and high <= 255:
        return " from 0 to 255; photographs are bytes: images.round().astype('uint8')"
    return "; a normalised tensor is [N,3,H,W]: images.transpose(0, 3, 1, 2)"


def _remark_range(array: "np.ndarray", name: str) -> None:
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UsageError(f"{name} have values that are not finite (NaN or infinity)")
    if low < 0 or low == high:
        return
    warn(
        f"{name} have values from {low:.3g} to {high:.3g}, so they do not look normalised; the network takes them as they are"
    )


def _pixels(array: "np.ndarray", name: str, highest: Optional[int] = None) -> "np.ndarray":
    """Integers as pixels `[N,H,W,C]` or `[N,H,W]` of 8 or 16 bits; `highest` is the highest value of all images."""
    if array.ndim == 4 and array.shape[3] not in (1, 3, 4) and array.shape[1] in (1, 3, 4):
        array = array.transpose(0, 2, 3, 1)
    is_grey = array.ndim == 3 and name != "images"
    if not (array.ndim == 4 and array.shape[3] in (1, 3, 4) or is_grey) or 0 in array.shape:
        raise UsageError(f"{name}: the shape {_shape(array)} is not that of photographs, [N,H,W,3]")
    if array.dtype.kind not in "ui":
        raise UsageError(f"{name}: the type {array.dtype} is not that of pixels; photographs are uint8, 0 to 255")
    low, high = int(array.min()), int(array.max()) if highest is None else highest
    if array.dtype == np.uint16 and high > 255:
        return array
    if low < 0 or high > 255 or array.dtype == np.uint16:
        raise UsageError(
            f"{name}: {array.dtype} from {low} to {high}; photographs are uint8 from 0 to 255, or uint16 up to 65535"
        )
    if high == 1:
        raise UsageError(
            f"{name}: bytes from 0 to 1, where 0 to 255 is expected, are black; was a division by 255 rounded? "
            "(images * 255).astype('uint8') makes masks visible"
        )
    return array.astype(np.uint8, copy=False)


def _stacked(images: Sequence[Any]) -> "np.ndarray":
    """Normalised images `[C,H,W]` or `[1,C,H,W]`, as `[N,C,H,W]`."""
    for index, image in enumerate(images):
        if not _is_array(image) or image.dtype.kind != "f":
            kind = image.dtype if _is_array(image) else type(image).__name__
            raise UsageError(f"images[{index}] is {kind}, but others are normalised tensors; give images of one kind")
    single = [image[0] if image.ndim == 4 and len(image) == 1 else image for image in images]
    for index, image in enumerate(single):
        if image.shape != single[0].shape:
            raise UsageError(
                f"images[0] has the shape {_shape(single[0])} and images[{index}] {_shape(image)}; "
                "tensors must be of one size; paths and uint8 arrays may have any"
            )
    return np.stack(single)


def _shape(array: "np.ndarray") -> str:
    return "[" + ",".join(map(str, array.shape)) + "]"

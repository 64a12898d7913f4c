"""From Python to the command line and back."""

import inspect
import json as _json
import operator
import os
from collections import abc
from contextlib import ExitStack
from typing import Any, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from . import images as imagery
from . import network, program
from .errors import UsageError
from .result import Result
from .scratch import Scratch, unwritable

Path = Union[str, "os.PathLike[str]"]

#: Why a keyword has another default than its option.
OTHER_DEFAULTS = {
    "output_dir": "a call writes nothing into the working folder unless it is asked to",
    "joint": "variables of a launcher are meant for the Python process, not for the one that it starts",
}
# Given always, as the program's own default looks for a launcher.
ALONE = "--joint=off"
# Keywords that are no option of the program, or are treated apart.
_APART = ("model", "images", "labels", "json", "save_arrays", "output_dir", "quiet", "verbose", "null", "joint")


def explain(
    model: Any,
    images: Any,
    layer: Optional[str] = None,
    saliency: Optional[str] = None,
    target: Union[int, str, None] = None,
    *,
    null: bool = False,
    skip_bad_images: bool = False,
    max_pixels: Union[int, str] = 268435456,
    white: Optional[int] = None,
    exact_decode: bool = False,
    resize: Optional[str] = None,
    weights: Optional[Path] = None,
    offline: bool = False,
    image_size: Union[int, str, Tuple[int, int], None] = None,
    mean: Union[float, str, Sequence[float], None] = None,
    std: Union[float, str, Sequence[float], None] = None,
    bgr: bool = False,
    hooks: str = "auto",
    output: Union[int, str, None] = None,
    scores: Optional[str] = None,
    labels: Union[Path, Sequence[str], Mapping[int, str], None] = None,
    truth: Optional[Path] = None,
    top: int = 3,
    inclusive: bool = False,
    exclusive: bool = False,
    palette: str = "rgb",
    upsampling: Optional[str] = None,
    no_gradual_extrapolation: bool = False,
    no_legend: bool = False,
    basis: Optional[Path] = None,
    saliency_layer: Optional[str] = None,
    output_dir: Optional[Path] = None,
    split_rgb: bool = False,
    overlay: Optional[float] = None,
    square: bool = False,
    format: str = "jpg",
    save_arrays: Optional[Path] = None,
    arrays: Union[str, Sequence[str], None] = None,
    array_type: str = "f32",
    figures: Union[int, str, None] = 4096,
    figure_columns: int = 8,
    per_image: bool = False,
    report: Optional[Path] = None,
    json: Optional[Path] = None,
    save_basis: Optional[Path] = None,
    cluster: Union[bool, Path] = False,
    device: Any = "auto",
    threads: Optional[int] = None,
    batch_size: Optional[int] = None,
    precision: str = "f32",
    seed: int = 0,
    joint: str = "off",
    memory: Union[int, str, None] = None,
    spool: Optional[Path] = None,
    quiet: bool = False,
    verbose: bool = False,
) -> Result:
    """Shows what a network has seen in images.

    The keywords are the options of the command line, with `_` in place of `-`; docs/cli.md explains them.
    Only two have another default: `output_dir` is a temporary folder, which goes with the result, and `joint` is "off".

    Args:
        model: a name (`resnet50`), the path of a network's file, or an `nn.Module`, which is exported with the torch
            that it is of, and left as it is.
        images: one or a list of: paths (files, folders, globs, tar archives), PIL images, and uint8 arrays or tensors
            `[H,W,3]`; or arrays `[N,H,W,3]` uint8; or a normalised float array or tensor `[N,C,H,W]`, which the
            network takes as it is. Values from 0 to 1 are refused where bytes are expected.
        layer: the layer whose channels are analysed, instead of the choice of `hooks`.
        saliency: "gradcam" or "exct-backp": where the class was seen.
        target: the class of the saliency, by number or name, instead of the top class of each image.
        labels: also a list of the names of the classes, or a dictionary of them by number.
        image_size: pixels, or (height, width); also the size for which a module is exported, by default that of the
            tensor, that of a module of timm, or 224.
        mean, std: a number for each channel, of pixels from 0 to 1.
        cluster: True, or the file to write.
        figures: None is "none".
    Returns:
        the maps and all else that the run found, in the order of the images (of folders and globs: sorted by path).
    Raises:
        UsageError: if something is asked that has no meaning, or no image or layer has that name.
        PrismError: if something fails. Its text is the line of the program.
    """
    options = {name: value for name, value in locals().items() if name not in _APART}
    _require_alone(joint)
    folder, ending = Scratch(), ExitStack()
    try:
        ending.enter_context(program.sigterm_raises())
        given = imagery.prepare(images, folder.name)
        words = ["--input", *given.words, *(["--null"] if null or given.null else [])]
        is_module = network.is_module(model)
        size = _size(image_size)
        options["model"] = network.as_option(model, folder.name, size, given.batch)
        options["image_size"] = None if is_module else size  # the file of a module says it
        options["labels"] = _labels(labels, folder.name)
        files = {
            "json": _given_or(json, folder.name, "run.json"),
            "save_arrays": _given_or(save_arrays, folder.name, "run.npz"),
            "output_dir": folder.name if output_dir is None else os.path.abspath(output_dir),
        }
        if figures is None or figures is False:
            options["figures"] = "none"
        words += [ALONE, *words_of({**options, **files})]
        made = {file: name for file, name in zip(given.values, given.names) if name and file.startswith(folder.name)}
        program.run(words, quiet, verbose, folder.name, made)
        if is_module:
            os.remove(options["model"])
        return Result(folder, files["json"], files["save_arrays"], files["output_dir"], given)
    except OSError as error:
        folder.remove()
        raise unwritable(error) from None
    except BaseException:
        folder.remove()
        raise
    finally:
        ending.close()


def layers(
    model: Any,
    image_size: Union[int, str, Tuple[int, int], None] = None,
    hooks: str = "auto",
    layer: Optional[str] = None,
    *,
    weights: Optional[Path] = None,
    offline: bool = False,
    mean: Union[float, str, Sequence[float], None] = None,
    std: Union[float, str, Sequence[float], None] = None,
    bgr: bool = False,
    output: Union[int, str, None] = None,
    scores: Optional[str] = None,
    device: Any = "auto",
    threads: Optional[int] = None,
    batch_size: Optional[int] = None,
    precision: str = "f32",
    seed: int = 0,
    joint: str = "off",
    memory: Union[int, str, None] = None,
    spool: Optional[Path] = None,
    quiet: bool = False,
) -> str:
    """The table of a network's layers: name, operator, shape and role.

    Args:
        model: as of `explain`; so are the other keywords, which are the options of `prism layers`.
    """
    options = {name: value for name, value in locals().items() if name not in _APART}
    _require_alone(joint)
    with program.sigterm_raises(), Scratch() as folder:
        size = _size(image_size)
        options["model"] = network.as_option(model, folder.name, size)
        options["image_size"] = None if network.is_module(model) else size
        words = ["layers", ALONE, *words_of(options)]
        return program.run(words, quiet, scratch=folder.name).decode(errors="replace")


DEFAULTS: Mapping[str, Any] = {
    name: keyword.default
    for name, keyword in inspect.signature(explain).parameters.items()
    if keyword.default is not inspect.Parameter.empty
}


def words_of(options: Mapping[str, Any]) -> List[str]:
    """Options as words of the command line; those with their defaults are left out."""
    words = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        value = bool(value) if isinstance(value, np.bool_) else value
        if value is None or value is False or (name in DEFAULTS and _same(value, DEFAULTS[name])):
            continue
        words.append(flag if value is True else f"{flag}={_text(name, value)}")
    return words


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


def _text(name: str, value: Any) -> str:
    if isinstance(value, (str, os.PathLike)):
        return os.fsdecode(value)
    if isinstance(value, (list, tuple)) or getattr(value, "ndim", None):  # also an array
        return ("x" if name == "image_size" else ",").join(str(part) for part in value)
    return str(value)


def _size(image_size: Any) -> Optional[Tuple[int, int]]:
    """Height and width in pixels, of a side, of both, or of a text such as 200x100; None if none is given."""
    if image_size is None:
        return None
    sides = image_size.lower().split("x") if isinstance(image_size, str) else image_size
    try:
        sides = list(sides) if hasattr(sides, "__len__") and getattr(sides, "ndim", 1) else [sides]
        sides = [int(side) if isinstance(side, str) and side.isdecimal() else operator.index(side) for side in sides]
    except TypeError:
        sides = []
    if not 1 <= len(sides) <= 2 or min(sides) < 1:
        raise UsageError(f"image_size {image_size!r} is no size: expected N or HxW in pixels")
    return sides[0], sides[-1]


def _require_alone(joint: str) -> None:
    if joint != "off":
        raise UsageError(
            f"joint={joint!r}: several processes are started by a launcher, as in srun prism ...; a call from Python runs alone"
        )


def _labels(labels: Any, folder: str) -> Optional[Path]:
    """Names of classes as a file."""
    if labels is None or isinstance(labels, (str, os.PathLike)):
        return labels
    if isinstance(labels, abc.Mapping):
        if set(labels) != set(range(len(labels))):
            raise UsageError("labels is a dictionary whose keys are not the integers 0 to K-1, one for each class")
        labels = [labels[number] for number in range(len(labels))]
    if isinstance(labels, (bytes, abc.Set)) or not isinstance(labels, abc.Iterable):
        raise UsageError(f"labels is a {type(labels).__name__}; give a file, a list of names, or a dictionary of 0 to K-1")
    path = os.path.join(folder, "labels.json")
    with open(path, "w", encoding="utf-8") as file:
        _json.dump([str(label) for label in labels], file)
    return path


def _given_or(path: Optional[Path], folder: str, name: str) -> str:
    if path is None:
        return os.path.join(folder, name)
    if os.fspath(path) == "-":
        raise UsageError("json='-' is standard output, which nobody reads here; result.summary has it")
    return os.path.abspath(path)

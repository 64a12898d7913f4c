"""Networks as files: a module of the user's own torch is exported."""

import os
import sys
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional, Tuple, Union

import numpy as np

from .errors import UsageError, warn


def is_module(model: Any) -> bool:
    """Whether it is an nn.Module; torch is not imported for it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def as_option(
    model: Any,
    folder: str,
    size: Optional[Union[int, Tuple[int, int]]] = None,
    batch: "Optional[np.ndarray]" = None,
) -> str:
    """What goes behind `--model`.

    Args:
        model: a name, the path of a file, or an nn.Module, which is exported into `folder`.
        size: side, or height and width in pixels of a module's input, if they are given.
        batch: images `[N,C,H,W]` that it will be given, if they are known.
    Raises:
        UsageError: if it is none of these, or cannot be exported.
    """
    if isinstance(model, str):
        return model
    if isinstance(model, os.PathLike):
        path = os.fsdecode(model)
        return path if os.sep in path else os.path.join(os.curdir, path)
    if not is_module(model):
        raise UsageError(
            f"a model of the type {type(model).__name__} is not known; give a name, the path of a .pt, .pt2 or .onnx file, "
            "or a torch.nn.Module"
        )
    return write(model, folder, size, batch)


def write(
    module: Any,
    folder: str,
    size: Optional[Union[int, Tuple[int, int]]] = None,
    batch: "Optional[np.ndarray]" = None,
) -> str:
    """Exports a module into a folder, and checks that the file has its scores; returns the path of the file.

    The module itself stays as it is: a copy goes to the CPU and to float32 if need be.

    Args:
        module: the nn.Module.
        folder: where to write it.
        size: side, or height and width of its input in pixels.
        batch: images `[N,C,H,W]` that it will be given; their size has precedence.
    Raises:
        UsageError: if torch can neither export nor trace it, with the reason.
    """
    import torch

    from . import export

    module = _unwrapped(module)
    name = "".join(c if c.isalnum() or c in "_-" else "_" for c in type(module).__name__)
    path = os.path.join(folder, name)
    if isinstance(module, torch.jit.ScriptModule):
        name = module.original_name if module.original_name.isidentifier() else "network"
        path = os.path.join(folder, name + ".pt")
        torch.jit.save(module, path)
        return path
    about = _known_facts(module)
    if batch is not None:
        about["image_size"] = list(batch.shape[2:])
    elif size is not None:
        about["image_size"] = [size, size] if isinstance(size, int) else list(size)
    about.setdefault("image_size", [224, 224])
    channels = batch.shape[1] if batch is not None else _channels(module)
    if module.training:
        warn("the model is in training mode; it is explained in evaluation mode, as after model.eval()")
    with _in_evaluation(_on_cpu(module)) as still, torch.random.fork_rng(devices=[]):
        options = export.Choices(network=name, stem=path, channels=channels, note=lambda text: None)
        try:
            return str(export.export(still, about, options)[0])
        except export.Refused as error:
            raise UsageError(
                f"{type(module).__name__} cannot be exported: {error} (torch.export takes a forward of torch's own operators)"
            ) from None
        except (
            RuntimeError,
            TypeError,
            ValueError,
            IndexError,
            KeyError,
            AttributeError,
            NotImplementedError,
        ) as error:
            hint = " (image_size sets another size)" if batch is None and isinstance(error, RuntimeError) else ""
            seen = "x".join(map(str, [channels, *about["image_size"]]))
            raise UsageError(
                f"{type(module).__name__} does not run on images of {seen}: {export.reason(error)}{hint}"
            ) from None


def _unwrapped(module: Any) -> Any:
    """What torch.compile and DataParallel wrap."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and type(module).__name__ in ("DataParallel", "DistributedDataParallel"):
            inner = getattr(module, "module", None)
        if inner is None:
            return module
        module = inner


def _known_facts(module: Any) -> Dict[str, Any]:
    """What timm's modules say about their input; nothing is assumed here, so that the program says what it assumes."""
    config = getattr(module, "pretrained_cfg", None)
    if not isinstance(config, dict) or not {"input_size", "mean", "std"} <= set(config):
        return {}
    if len(config["input_size"]) != 3 or config["input_size"][0] != 3:
        return {}
    return {"image_size": list(config["input_size"][1:]), "mean": list(config["mean"]), "std": list(config["std"])}


def _channels(module: Any) -> int:
    """The channels that the first convolution takes."""
    import torch

    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d) and part.in_channels in (1, 3, 4):
            return int(part.in_channels)
    return 3


def _on_cpu(module: Any) -> Any:
    """The module, or a copy if its numbers are elsewhere or of another type."""
    import copy

    tensors = [*module.parameters(), *module.buffers()]
    if all(
        tensor.device.type == "cpu" and (not tensor.is_floating_point() or str(tensor.dtype) == "torch.float32")
        for tensor in tensors
    ):
        return module
    if any(tensor.device.type == "meta" for tensor in tensors):
        raise UsageError("the model has no weights: its tensors are on the device 'meta'")
    try:
        return copy.deepcopy(module).cpu().float()
    except Exception as error:  # whatever its own __deepcopy__ raises
        raise UsageError(
            f"the model cannot be copied to the CPU ({type(error).__name__}); give model.cpu().float()"
        ) from None


@contextmanager
def _in_evaluation(module: Any) -> Iterator[Any]:
    """The module in evaluation mode; each part gets its own mode back."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield module.eval()
    finally:
        for part, mode in modes:
            part.training = mode

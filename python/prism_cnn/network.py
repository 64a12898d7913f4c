"""Networks as files: a module of the user's own torch is exported."""

import copy
import json
import os
import sys
import threading
import warnings
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Dict, Iterator, Optional, Tuple

import numpy as np

from .errors import UsageError, first_line, warn
from .torchprism import without_hooks


def is_module(model: Any) -> bool:
    """Whether it is an nn.Module; torch is not imported for it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def as_option(
    model: Any,
    folder: str,
    size: Optional[Tuple[int, int]] = None,
    batch: "Optional[np.ndarray]" = None,
) -> str:
    """What goes behind `--model`.

    Args:
        model: a name, the path of a file, or an nn.Module, which is exported into `folder`.
        size: height and width in pixels of a module's input, if they are given.
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


# An export changes what the whole process shares: sys.stdout, filters of warnings, logging, the random state.
_ONE_AT_A_TIME = threading.RLock()


def write(
    module: Any,
    folder: str,
    size: Optional[Tuple[int, int]] = None,
    batch: "Optional[np.ndarray]" = None,
) -> str:
    """Exports a module into a folder, and checks that the file has its scores; returns the path of the file.

    What is exported is a copy, on the CPU, in float32 and in evaluation mode. A module that cannot be copied is
    exported itself; then only its modes are restored.

    Args:
        module: the nn.Module.
        folder: where to write it.
        size: height and width of its input in pixels.
        batch: images `[N,C,H,W]` that it will be given; their size has precedence, and the file is checked with them.
    Raises:
        UsageError: if torch can neither export nor trace it, with the reason.
    """
    import torch

    module = _unwrapped(module)
    about = _known_facts(module)
    if batch is not None:
        about["image_size"] = list(batch.shape[2:])
    elif size is not None:
        about["image_size"] = list(size)
    trained = next((name for name, part in module.named_modules() if part.training), None)
    if trained is not None:
        part = f"the part {trained} of the model" if trained else "the model"
        warn(f"{part} is in training mode; it is explained in evaluation mode, as after model.eval()")
    with _ONE_AT_A_TIME, _usual_defaults(), _still(module) as still, torch.random.fork_rng(devices=[]):
        if isinstance(module, torch.jit.ScriptModule):
            return _save_script(still, about, folder)
        return _export(still, about, folder, batch)


def _save_script(module: Any, about: Dict[str, Any], folder: str) -> str:
    """Saves a module of TorchScript, with what is known of its input."""
    import torch

    from . import export

    facts = {"prism.json": json.dumps(about)} if about else None
    name = module.original_name if module.original_name.isidentifier() else "network"
    path = os.path.join(folder, name + ".pt")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.* is deprecated")
        export.store(path, lambda file: torch.jit.save(module, file, _extra_files=facts), lambda part: None)
    return path


def _export(module: Any, about: Dict[str, Any], folder: str, batch: "Optional[np.ndarray]") -> str:
    from . import export

    name = type(module).__name__
    stem = "".join(c if c.isalnum() or c in "_-" else "_" for c in name)
    about.setdefault("image_size", [224, 224])
    channels = batch.shape[1] if batch is not None else _channels(module)
    options = export.Choices(stem, os.path.join(folder, stem), channels=channels, note=lambda text: None, images=batch)
    try:
        path, how, _ = export.export(module, about, options)
    except export.Refused as error:
        hint = " (torch.export takes a forward of torch's own operators)"
        raise UsageError(_short(f"{name} cannot be exported: {error}", hint)) from None
    except OSError:
        raise
    except Exception as error:  # whatever its forward raises
        seen = "x".join(map(str, [channels, *about["image_size"]]))
        is_size = batch is None and any(word in str(error).lower() for word in ("size", "shape", "dimension"))
        hint = " (image_size sets another size)" if is_size else ""
        raise UsageError(_short(f"{name} does not run on images of {seen}: {export.reason(error)}", hint)) from None
    if how == "traced":
        checked = "the images" if batch is not None else "random images alone"
        warn(
            f"{name} was traced: the file keeps the way that one random image takes through its forward, "
            f"whatever branches on values; it was checked with {checked}"
        )
    return str(path)


def _short(text: str, hint: str) -> str:
    """A line of at most 300 characters."""
    most = 300 - len(hint)
    return (text if len(text) <= most else text[: most - 3] + "...") + hint


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
    """The channels of its input, by its convolutions: 3 if any takes 3, else 1 or 4 of the first that does."""
    import torch

    taken = [part.in_channels for part in module.modules() if isinstance(part, torch.nn.Conv2d)]
    return next((count for count in taken if count in (1, 4)), 3) if 3 not in taken else 3


@contextmanager
def _usual_defaults() -> Iterator[None]:
    """New tensors are on the CPU and of float32, whatever the process has chosen."""
    import torch

    kind = torch.get_default_dtype()
    elsewhere = torch.empty(0).device.type != "cpu"  # torch 2.4 cannot say it once it was set to None
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu") if elsewhere else nullcontext():
            yield
    finally:
        torch.set_default_dtype(kind)


@contextmanager
def _still(module: Any) -> Iterator[Any]:
    """A copy of a module on the CPU, in float32 and evaluation mode, without the hooks of PRISM.

    It is the module itself, if it cannot be copied; each part gets its own mode and hooks back.
    """
    import torch

    name = type(module).__name__
    tensors = [tensor for tensor in [*module.parameters(), *module.buffers()] if not _is_lazy(tensor)]
    if any(tensor.device.type == "meta" for tensor in tensors):
        raise UsageError("the model has no weights: its tensors are on the device 'meta'")
    is_plain = all(
        tensor.device.type == "cpu" and (not tensor.is_floating_point() or str(tensor.dtype) == "torch.float32")
        for tensor in tensors
    )
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            still = copy.deepcopy(module)
            still = still if is_plain else still.cpu().float()
    except Exception as error:  # whatever its own __deepcopy__ raises
        if not is_plain:
            raise UsageError(
                f"the model cannot be copied to the CPU ({type(error).__name__}); give model.cpu().float()"
            ) from None
        still = module
    mode, modes = module.training, [(part, part.training) for part in module.modules()]
    try:
        try:
            still.eval()
        except Exception as error:  # such as that of the modules which torch.export makes
            raise UsageError(
                f"{name}.eval() fails: {first_line(error)}; give a module that has it, or the path of a file of the network"
            ) from None
        with without_hooks(still):
            yield still
    finally:
        if still is module:
            with suppress(Exception):  # it may refuse what eval() refused
                module.train(mode)
            for part, own in modes:
                part.training = own


def _is_lazy(tensor: Any) -> bool:
    """Whether a parameter gets its shape by the first call."""
    from torch.nn.parameter import is_lazy

    return bool(is_lazy(tensor))

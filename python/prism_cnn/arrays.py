"""Files of arrays: what the program saves, and the images that it is given."""

import json
import os
import weakref
from typing import Any, Dict, Iterator, Mapping

import numpy as np

from .errors import PrismError

_TYPES = {"F32": "<f4", "F16": "<f2", "U8": "|u1"}


class Arrays(Mapping[str, Any]):
    """The arrays of a run, each read when it is asked for, as float32 (bytes divided by 255).

    Args:
        path: an .npz or .safetensors file of the program.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._read = _safetensors(path) if path.lower().endswith(".safetensors") else _npz(path)
        except (OSError, ValueError) as error:
            raise PrismError(f"{path} cannot be read: {error}") from None
        # The file stays open: a later run may replace it. In a cycle of garbage its own destructor comes too late.
        weakref.finalize(self, getattr(self._read, "close", lambda: None))

    def __getitem__(self, name: str) -> "np.ndarray":
        array = self._read[name]
        return array / np.float32(255) if array.dtype == np.uint8 else array.astype(np.float32, copy=False)

    def __contains__(self, name: object) -> bool:
        return name in self._read and name != "files"

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._read if name != "files")

    def __len__(self) -> int:
        return len(list(iter(self)))


def _npz(path: str) -> "Mapping[str, np.ndarray]":
    return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]


def _safetensors(path: str) -> "Dict[str, np.ndarray]":
    """Arrays that are mapped into memory: a header of JSON, with its length before it, and their bytes."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > os.path.getsize(path):
            raise ValueError("it is no .safetensors file")
        header = json.loads(file.read(length))
    data = np.memmap(path, mode="r", offset=8 + length)
    arrays = {}
    for name, about in header.items():
        if name != "__metadata__" and about["dtype"] in _TYPES:
            start, end = about["data_offsets"]
            arrays[name] = data[start:end].view(_TYPES[about["dtype"]]).reshape(about["shape"])
    return arrays


def save_input(path: str, images: "np.ndarray") -> None:
    """Writes images as the program takes them: the array `input`, [N,C,H,W] float32."""
    np.savez(path, input=images)

"""Temporary folders."""

import os
import shutil
import tempfile
import weakref
from typing import Any, Optional

from .errors import PrismError


class Scratch:
    """A temporary folder, which is removed with this object, or at the end of the process.

    Attributes:
        name: its path.
    Raises:
        PrismError: if there is no place for one.
    """

    def __init__(self) -> None:
        try:
            self.name = tempfile.mkdtemp(prefix="prism_")
        except OSError as error:
            raise unwritable(error) from None
        self.remove = weakref.finalize(self, _remove, self.name, os.getpid())

    def kept(self, path: str) -> str:
        """What a viewer that outlives this folder can open: a copy of a file in it, with its folder of pictures.

        A file that lies elsewhere is itself.
        """
        if os.path.dirname(path) != self.name:
            return path
        try:
            copy = os.path.join(tempfile.mkdtemp(prefix="prism_shown_"), os.path.basename(path))
            shutil.copyfile(path, copy)
            pictures = os.path.splitext(path)[0] + "_files"
            if os.path.isdir(pictures):
                shutil.copytree(pictures, os.path.splitext(copy)[0] + "_files")
        except OSError as error:
            raise unwritable(error) from None
        return copy

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(self, _: Any, error: Optional[BaseException], __: Any) -> None:
        self.remove()
        if isinstance(error, OSError):
            raise unwritable(error) from None


def _remove(folder: str, process: int) -> None:
    """Removes a folder, unless this is a copy of the process that made it (os.fork)."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def unwritable(error: OSError) -> PrismError:
    """The error that temporary files cannot be written."""
    reason = error.strerror or error
    return PrismError(f"no temporary file can be written ({reason}); the variable TMPDIR names another folder")

"""Temporary folders."""

import shutil
import tempfile
import weakref
from typing import Any

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
            raise PrismError(
                f"no folder for temporary files can be written ({error.strerror or error}); "
                "the variable TMPDIR names another"
            ) from None
        self.remove = weakref.finalize(self, shutil.rmtree, self.name, ignore_errors=True)

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()

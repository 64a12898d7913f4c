"""What can go wrong."""

import os
import sys
import warnings

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class PrismError(RuntimeError):
    """A failure, as the one line that prism says: what failed, where, and what to do.

    Attributes:
        line: the line.
        status: exit status of the program: 1, 2 for a mistake in what was asked, or 128 + N if signal N ended it.
    """

    def __init__(self, line: str, status: int = 1) -> None:
        super().__init__(line)
        self.line = line
        self.status = status


class UsageError(PrismError, ValueError):
    """A mistake in what was asked: an unknown value, layer or class, or images that cannot be meant."""

    def __init__(self, line: str, status: int = 2) -> None:
        super().__init__(line, status)


class PrismWarning(UserWarning):
    """A warning of prism: the result may not be what you expect."""


def warn(text: str) -> None:
    """Warns, and names the line outside this package that called it."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, PrismWarning, stacklevel=level)

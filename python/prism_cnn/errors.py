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


def first_line(error: BaseException) -> str:
    """What another library's exception says, in at most 160 characters."""
    text = str(error).strip().split("\n", 1)[0]
    return text if 0 < len(text) <= 160 else text[:157] + "..." if text else type(error).__name__

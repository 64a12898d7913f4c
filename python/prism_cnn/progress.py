"""The progress of a run: a bar in a notebook, a line on a terminal, nothing elsewhere."""

import html
import os
import re
import sys
import time
from typing import Any, Optional

# Seconds between two pictures of a bar.
PACE = 0.2

_BAR = re.compile(r"^(?P<task>.*?) [█▉▊▋▌▍▎▏░ ]*(?P<done>\d+)/(?P<all>\d+)(?P<pace>.*)$")


def in_notebook() -> bool:
    """Whether this runs in the kernel of a notebook, which shows HTML."""
    try:
        shell = sys.modules["IPython"].get_ipython()
    except (KeyError, AttributeError):
        return False
    return shell is not None and hasattr(shell, "kernel")


class Progress:
    """Shows nothing; what it would show are the lines of the program's bars.

    Attributes:
        is_shown: whether anything is shown.
        columns: the width of the lines.
    """

    is_shown = False
    columns = 100

    @staticmethod
    def here(quiet: bool) -> "Progress":
        """The way of showing that this place has."""
        if quiet:
            return Progress()
        if in_notebook():
            return NotebookProgress()
        try:
            return TerminalProgress() if sys.stderr is not None and sys.stderr.isatty() else Progress()
        except (OSError, ValueError):  # it only looks like a terminal
            return Progress()

    def show(self, line: str) -> None:
        """Shows a line: `decoding and forwarding ███░░░ 3/9, 12 images/s` or `loading 2s`."""

    def clear(self) -> None:
        """Makes room for other text."""

    def close(self) -> None:
        """Removes what is shown."""
        self.clear()


class TerminalProgress(Progress):
    """One line on standard error, which is overwritten."""

    is_shown = True

    def __init__(self) -> None:
        # A line that is wider would be broken, and its beginning stay. Some terminals say that they have no columns.
        self.columns = (os.get_terminal_size(sys.stderr.fileno()).columns or Progress.columns + 1) - 1

    def show(self, line: str) -> None:
        sys.stderr.write("\r\x1b[2K" + line[: self.columns])
        sys.stderr.flush()

    def clear(self) -> None:
        sys.stderr.write("\r\x1b[2K")
        sys.stderr.flush()


class NotebookProgress(Progress):
    """A bar in the output of a cell."""

    is_shown = True

    def __init__(self) -> None:
        self._handle: Optional[Any] = None
        self._last = 0.0

    def show(self, line: str) -> None:
        now = time.monotonic()
        if now - self._last < PACE:
            return
        self._last = now
        self._put(bar(line))

    def close(self) -> None:
        if self._handle is not None:
            self._put("")
            self._handle = None

    def _put(self, markup: str) -> None:
        from IPython.display import HTML, display

        if self._handle is None:
            self._handle = display(HTML(markup), display_id=True)
        else:
            self._handle.update(HTML(markup))


def bar(line: str) -> str:
    """A line of the program as HTML."""
    found = _BAR.match(line)
    if not found:
        return f"<div>{html.escape(line)}</div>"
    done, total = int(found["done"]), int(found["all"])
    return (
        f'<div>{html.escape(found["task"])} <progress value="{done}" max="{total}" style="vertical-align:middle"></progress> '
        f"{done}/{total}{html.escape(found['pace'])}</div>"
    )

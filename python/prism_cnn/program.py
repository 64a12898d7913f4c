"""The program prism: where it is, and how it runs."""

import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import Deque, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from . import __version__
from .errors import PrismError, UsageError, warn
from .progress import Progress

#: Names another program than the one in this package, such as one that `make build` made.
VARIABLE = "PRISM_PROGRAM"
#: The program of the wheel, with `lib/` and `bin/models/` beside it.
PACKED = Path(__file__).resolve().parent / "program" / "bin" / "prism"

# Seconds that an interrupted process has to remove its temporary files.
PATIENCE = 5

_ERROR, _WARNING, _SPEAKS = "prism: error: ", "prism: warning: ", "prism: "
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def find() -> str:
    """The path of the program.

    Raises:
        PrismError: if it is missing, or of another version than this package.
    """
    chosen = os.environ.get(VARIABLE)
    if not chosen:
        if not PACKED.exists():
            raise PrismError(
                f"the program is not in this package ({PACKED}): install the wheel, or name a program by {VARIABLE}"
            )
        return str(PACKED)
    if os.sep not in chosen:
        chosen = shutil.which(chosen) or chosen
    said = _version(chosen)
    if said != f"prism {__version__}":
        raise PrismError(f"{VARIABLE}={chosen} is another program: it says {said!r}, not 'prism {__version__}'")
    return chosen


def environment() -> Dict[str, str]:
    """Variables for the program: without its own path, which may be that of the script that starts this package."""
    return {name: value for name, value in os.environ.items() if name != VARIABLE}


def _version(program: str) -> str:
    """What a program says of its version, in one line of at most 60 characters."""
    try:
        done = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            env=environment(),
        )
    except subprocess.TimeoutExpired:
        return "nothing for a minute"
    except OSError as error:
        raise PrismError(f"{VARIABLE}={program} cannot be started: {error.strerror}") from None
    lines = done.stdout.decode(errors="replace").strip().splitlines()
    return lines[0][:60] if lines else "nothing"


def run(
    words: Sequence[str],
    quiet: bool = False,
    verbose: bool = False,
    scratch: str = "",
    names: Optional[Mapping[str, str]] = None,
) -> bytes:
    """Runs the program; warnings of it are warnings here, too.

    Interrupted, it ends the process before it raises.

    Args:
        words: the command line.
        quiet: without progress and warnings.
        verbose: also prints the program's other lines.
        scratch: a temporary folder, which messages leave out.
        names: what messages call files, by their paths.
    Returns:
        standard output.
    Raises:
        UsageError, PrismError: with the line of the program.
    """
    command = [find(), *words, *(["--quiet"] if quiet else []), *(["--verbose"] if verbose else [])]
    progress = Progress.here(quiet)
    terminal = _terminal(progress.columns) if progress.is_shown else None
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=terminal[1] if terminal else subprocess.PIPE,
            env={**environment(), **({"TERM": "xterm"} if terminal else {})},
        )
    except OSError as error:
        if terminal:
            os.close(terminal[0])
        raise PrismError(
            f"{command[0]} cannot be started: {error.strerror}; install prism-cnn again, or unset {VARIABLE}"
        ) from None
    finally:
        if terminal:
            os.close(terminal[1])
    lines: List[str] = []
    others: Deque[str] = deque(maxlen=1)
    try:
        output = _listen(process, terminal[0] if terminal else None, progress, lines, others, verbose)
        process.wait()
    except BaseException:
        _end(process)
        raise
    finally:
        if terminal:
            os.close(terminal[0])
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        progress.close()
    shown = {**(names or {}), **({scratch + os.sep: ""} if scratch else {})}
    for path in sorted(shown, key=len, reverse=True):
        lines = [line.replace(path, shown[path]) for line in lines]
    if process.returncode:
        raise _failure(process.returncode, lines or list(others))
    if not quiet:
        for line in lines:
            if line.startswith(_WARNING):
                warn(line[len(_WARNING) :])
    return output


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """SIGTERM, which would end this process at once, raises SystemExit for a while.

    So the program is ended, too, and temporary files are removed. A handler of the user stays, and other threads
    than the main one cannot have any.
    """
    is_main = threading.current_thread() is threading.main_thread()
    is_default = is_main and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    if is_default:
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        if is_default:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminal(columns: int) -> Optional[Tuple[int, int]]:
    """A terminal of so many columns, on which the program draws its bars: our end, and its end. None if the system has none to give."""
    try:
        import fcntl
        import pty
        import struct
        import termios

        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    except (ImportError, OSError):
        return None
    return ours, its


def _listen(
    process: "subprocess.Popen[bytes]",
    terminal: Optional[int],
    progress: Progress,
    lines: List[str],
    others: Deque[str],
    verbose: bool,
) -> bytes:
    """Reads both streams of a process to their ends; returns standard output, and adds the lines of the other.

    The lines of the program go to `lines`; bars, and what its loader says, to `others`.
    """
    assert process.stdout is not None
    errors = terminal if terminal is not None else process.stderr
    output, rest = b"", b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(errors, selectors.EVENT_READ)  # type: ignore[arg-type]
        while selector.get_map():
            for key, _ in selector.select():
                try:
                    data = os.read(key.fd, 1 << 16)
                except OSError:  # a terminal whose last user is gone
                    data = b""
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    output += data
                else:
                    *parts, rest = re.split(rb"[\r\n]", rest + data)
                    for line in _texts(parts):
                        _hear(line, progress, lines, others, verbose)
    for line in _texts([rest]):
        _hear(line, progress, lines, others, verbose)
    return output


def _texts(parts: Sequence[bytes]) -> Iterator[str]:
    """Lines without the control sequences of a terminal, and without empty ones."""
    for part in parts:
        text = _CONTROL.sub("", part.decode(errors="replace")).strip()
        if text:
            yield text


def _hear(line: str, progress: Progress, lines: List[str], others: Deque[str], verbose: bool) -> None:
    """A line of the program is kept, and one of its bars is shown."""
    if not line.startswith(_SPEAKS):
        progress.show(line)
        others.append(line)
        return
    lines.append(line)
    if verbose and not line.startswith((_WARNING, _ERROR)):
        progress.clear()
        print(line, file=sys.stderr)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process as Ctrl-C does, and if it does not end, at once."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _failure(status: int, lines: Sequence[str]) -> PrismError:
    said = [line[len(_ERROR) :] for line in lines if line.startswith(_ERROR)]
    if status == 2:
        return UsageError(said[-1] if said else "the command line has no meaning", status)
    if said:
        return PrismError(said[-1], status)
    number = -status if status < 0 else status - 128
    if number > 0:
        return PrismError(f"signal {number} ended the program", 128 + number)
    other = lines[-1] if lines else "it said nothing"
    return PrismError(f"the program ended with status {status}: {other[:200]}", status)

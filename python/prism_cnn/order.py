"""Which image of a run is which of those that were given."""

import glob
import os
from typing import Dict, List, Optional, Sequence, Tuple


def key(path: str) -> str:
    """A path as the summary has it, made absolute: bytes that are not UTF-8 are replaced."""
    return os.path.abspath(os.fsencode(path).decode(errors="replace"))


def ordered(paths: Sequence[str], values: Sequence[str], names: Sequence[Optional[str]]) -> Tuple[List[int], List[str]]:
    """The places in a run of the images, in the order in which they were given, and a name for each.

    The program sorts images by path. So the images of one folder, glob or archive are sorted by path here, too, and
    so are those of lists (`@FILE`) and braces together, which only the program expands.

    Args:
        paths: the images of the run.
        values: what was given: files, folders, globs, archives.
        names: the name of each value that is one image; None for others.
    """
    files: Dict[str, int] = {}  # also archives
    folders: Dict[str, int] = {}
    rest = None
    for index, value in enumerate(values):
        if names[index] is None and os.path.isdir(value):
            folders.setdefault(key(value), index)
        elif names[index] is not None or os.path.exists(value):
            files.setdefault(key(value), index)
        elif glob.has_magic(value) and not value.startswith("@") and "{" not in value:
            for file in glob.glob(value, recursive=True):
                files.setdefault(key(file), index)
        elif rest is None:
            rest = index
    last = len(values) if rest is None else rest

    def given(path: str) -> int:
        """Which value an image is of."""
        path = os.path.abspath(path)
        above = os.path.dirname(path)
        found = [files.get(path, last), folders.get(above, last)]
        while above != path:  # the archive of a member
            found.append(files.get(above, last))
            path, above = above, os.path.dirname(above)
        return min(found)

    places = [given(path) for path in paths]
    rows = sorted(range(len(paths)), key=places.__getitem__)
    known = {key(value): name for value, name in zip(values, names) if name is not None}
    return rows, [known.get(os.path.abspath(paths[row]), paths[row]) for row in rows]

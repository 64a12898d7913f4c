"""What a run found."""

import base64
import html
import json
import os
import shutil
import webbrowser
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Union

import numpy as np

from . import program
from .arrays import Arrays
from .errors import PrismError, UsageError
from .images import Given
from .order import ordered
from .progress import in_notebook
from .scratch import Scratch

_MEDIA = {".jpg": "image/jpeg", ".png": "image/png", ".svg": "image/svg+xml"}
_CLASS = [("id", "i8"), ("name", "U"), ("probability", "f8")]


class Result:
    """The maps of a run and all else that it found.

    N is the number of images, K that of classes, C the channels of the analysed layer, h x w its resolution.
    Arrays are float32 and are read when they are asked for. Images are in the order in which they were given,
    those of a folder, glob or archive in its place, sorted by path; figures and pages are sorted by path.

    In a notebook the figure is shown.

    Attributes:
        summary: what the command line writes with `--json`: layers, settings and where they came from, classes, times.
        files: names of the images; `images[2]` is the third that was given as an array or PIL image.
        remarks: what was assumed, and what limits the result.
        figures: absolute paths of the figures of the maps, which are gone with the result unless `output_dir` was given.
    """

    def __init__(self, folder: Scratch, summary: str, arrays: str, output_dir: str, given: Given) -> None:
        self._folder = folder  # is removed with this object
        self._summary_file, self._arrays_file = summary, arrays
        self.summary: Dict[str, Any] = _read_summary(summary)
        self._arrays = Arrays(arrays)
        paths = [image["path"] for image in self.summary["images"]]
        self._rows, self.files = ordered(paths, given.values, given.names)
        self.remarks: List[str] = list(self.summary["remarks"])
        stem = os.path.join(output_dir, f"PRISM_{self.summary['network']}")
        written = [os.path.abspath(file) for file in self.summary["files"] if Path(file).suffix in _MEDIA]
        # Those of each image lie in a folder below.
        self.figures: List[str] = [
            file for file in written if os.path.dirname(file) == output_dir and file.startswith(stem)
        ]

    # ---- arrays

    def _array(self, name: str, by_image: bool = True) -> "np.ndarray":
        if name not in self._arrays:
            raise PrismError(f"the run saved no array {name}: it has {', '.join(sorted(self._arrays))}")
        array = self._arrays[name]
        is_other = by_image and self._rows != sorted(self._rows)
        return array[self._rows] if is_other else array

    @property
    def maps(self) -> "np.ndarray":
        """The maps, `[N,3,H,W]`, 0 to 1; with saliency `[N,4,H,W]`, the fourth being the saliency of each image, 0 to 1."""
        return self._array("maps")

    @property
    def features(self) -> "np.ndarray":
        """The three components that the colours show, `[N,3,h,w]`."""
        return self._array("features")

    def components(self, k: int = 3) -> "np.ndarray":
        """The first k principal components at each place, `[N,k,h,w]`; the program keeps up to 32."""
        found = self._array("components")
        if not 1 <= k <= found.shape[1]:
            raise UsageError(f"components({k}): the run has 1 to {found.shape[1]}")
        return found[:, :k]

    @property
    def variance_ratio(self) -> "np.ndarray":
        """The share of variance of each component, `[min(N*h*w, C)]`, in descending order."""
        return self._array("variance_ratio", by_image=False)

    @property
    def logits(self) -> "np.ndarray":
        """The class scores, `[N,K]`."""
        return self._array("logits")

    @property
    def probabilities(self) -> "np.ndarray":
        """What the class scores say, `[N,K]`: their softmax, or what else `summary["settings"]["scores"]` names."""
        return self._array("probabilities")

    @property
    def saliency(self) -> "Optional[np.ndarray]":
        """The saliency, `[N,1,h',w']` at the resolution of its layer; None if none was asked for."""
        return self._array("saliency") if self.summary["saliency"] else None

    @property
    def left_out(self) -> "Optional[np.ndarray]":
        """Which pixels `inclusive` and `exclusive` leave out, `[N,H,W]` bool; None if there are none."""
        return self._array("left_out") != 0 if "left_out" in self._arrays else None

    @property
    def input(self) -> "np.ndarray":
        """The input of the network, `[N,C,H,W]`."""
        return self._array("input")

    @property
    def classes(self) -> "np.ndarray":
        """The top classes, `[N,top]` with the fields `id`, `name` and `probability`, the most probable first."""
        images = [self.summary["images"][row] for row in self._rows]
        return _table([[_fields(known) for known in image["classes"]] for image in images], _CLASS)

    @property
    def legend(self) -> "np.ndarray":
        """The groups of similar places that the key names, `[G]`: `colour` (three components, 0 to 1), `share` of all
        places, `left_out`, and the class that speaks most for the group: its `id` (-1: none), `name` and `evidence`.
        """
        groups = (self.summary["key"] or {"groups": []})["groups"]
        rows = []
        for group in groups:
            sign = group["classes"][0] if group["classes"] else {"id": -1, "name": "", "evidence": np.nan}
            rows.append(
                (group["colour"], group["share"], group["left_out"], sign["id"], sign["name"], sign["evidence"])
            )
        return _table(
            rows,
            [("colour", "f8", 3), ("share", "f8"), ("left_out", "?"), ("id", "i8"), ("name", "U"), ("evidence", "f8")],
        )

    # ---- pictures

    def show(self) -> None:
        """Shows the figures: below the cell of a notebook, else in the viewer of the desktop.

        There it opens copies, which stay, of figures that go with the result.
        """
        if in_notebook():
            from IPython.display import HTML, display

            for figure in self.figures:
                display(HTML(_picture(figure)))
            return
        for figure in map(self._folder.kept, self.figures):
            print(figure)
            webbrowser.open(Path(figure).resolve().as_uri())

    def report(self, output: "Union[str, os.PathLike[str], None]" = None) -> "Page":
        """The page on which the colours can be tested: in a notebook below the cell, `.open()` shows it in a browser.

        Args:
            output: file to write it to; by default it goes with the result.
        """
        path = os.path.abspath(output) if output is not None else os.path.join(self._folder.name, "page.html")
        words = ["report", self._summary_file, f"--arrays={self._arrays_file}", f"--output={path}"]
        with program.sigterm_raises():
            program.run(words, quiet=True)
        return Page(path, self)

    def save(self, folder: "Union[str, os.PathLike[str]]") -> str:
        """Copies summary (run.json), arrays (run.npz), figures and cluster file into a folder; returns the folder.

        `prism report FOLDER/run.json` and `prism compare` read them there.
        """
        target = os.fspath(folder)
        os.makedirs(target, exist_ok=True)
        others = [file for file in self.summary["files"] if Path(file).suffix in (*_MEDIA, ".bin")]
        for source in [self._summary_file, self._arrays_file, *others]:
            copy = os.path.join(target, os.path.basename(source))
            if not (os.path.exists(copy) and os.path.samefile(source, copy)):
                shutil.copyfile(source, copy)
        return target

    def __repr__(self) -> str:
        layer = self.summary["excitation"]
        shown = sum(self.summary["variance_ratio"][:3])
        return (
            f"<prism_cnn.Result: {len(self.files)} images, {self.summary['network']}, layer {layer['name']} "
            f"{'x'.join(map(str, layer['shape'] or []))}, the colours show {shown:.0%} of the variance>"
        )

    def _repr_html_(self) -> str:
        if not self.figures:
            return f"<pre>{html.escape(repr(self))}</pre>"
        more = len(self.figures) - 1
        note = f"<div>{more} more figures: result.show() shows all</div>" if more else ""
        return _picture(self.figures[0]) + note


class Page:
    """A page of a run.

    Attributes:
        path: its file; beyond 64 images a folder of pictures lies beside it.
    """

    def __init__(self, path: str, result: Result) -> None:
        self.path = path
        self._result = result  # keeps the file

    def open(self) -> None:
        """Opens it in the browser of the desktop; a copy, which stays, of a page that goes with the result."""
        webbrowser.open(Path(self._result._folder.kept(self.path)).resolve().as_uri())

    def __repr__(self) -> str:
        return f"<prism_cnn.Page: {self.path}>"

    def _repr_html_(self, height: int = 720) -> str:
        pictures = Path(self.path).with_name(Path(self.path).stem + "_files")
        if pictures.exists():
            text = f"The page has its pictures in a folder: open {self.path} in a browser, or result.report(...).open()"
            return f"<div>{html.escape(text)}</div>"
        page = Path(self.path).read_text(encoding="utf-8")
        # The notebook's own page must not be reached by this one.
        return (
            f'<iframe sandbox="allow-scripts allow-downloads" style="width:100%;height:{height}px;border:1px solid #ccc" '
            f'srcdoc="{html.escape(page)}"></iframe>'
        )


def _read_summary(path: str) -> Dict[str, Any]:
    """The summary of a run, from JSON or from JSON Lines."""
    with open(path, encoding="utf-8") as file:
        if not path.lower().endswith(".jsonl"):
            return json.load(file)  # type: ignore[no-any-return]
        summary: Dict[str, Any] = json.loads(file.readline())
        summary["images"] = [json.loads(line) for line in file]
        return summary


def _fields(known: Dict[str, Any]) -> Any:
    return known["id"], known["name"], known["probability"]


def _table(rows: Sequence[Any], fields: Sequence[Any]) -> "np.ndarray":
    """Rows as an array with fields; texts get the length of the longest."""
    flat = [cell for row in rows for cell in (row if row and isinstance(row, list) else [row])]
    longest = max([len(value) for cell in flat for value in cell if isinstance(value, str)], default=1)
    return np.array(
        rows, dtype=[(name, f"U{max(longest, 1)}" if kind == "U" else kind, *shape) for name, kind, *shape in fields]
    )


def _picture(path: str) -> str:
    """A figure as HTML."""
    with open(path, "rb") as file:
        data = base64.b64encode(file.read()).decode()
    name = html.escape(os.path.basename(path))
    return f'<img alt="{name}" style="max-width:100%" src="data:{_MEDIA[Path(path).suffix]};base64,{data}">'

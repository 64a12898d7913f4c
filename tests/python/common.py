"""What the tests of the Python package share. They run by `make test-wheel`, or in a clone by

PYTHONPATH=python PRISM_PROGRAM=target/release/prism python -m unittest discover tests/python
"""

import importlib.util
import os
import sys
import unittest
import warnings
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "tests" / "data"
SAMPLES = ROOT / "samples"
NETWORK = "efficientnet_lite0"
#: A small classifier of images of 64 x 64, with ten classes.
TINY = DATA / "networks" / "tiny_resnet_scripted.pt"

os.environ.setdefault("PRISM_MODELS", str(ROOT / "models"))
os.environ["PRISM_OFFLINE"] = "1"
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

has_torch = importlib.util.find_spec("torch") is not None
has_pillow = importlib.util.find_spec("PIL") is not None
needs_torch = unittest.skipUnless(has_torch, "needs torch")
needs_pillow = unittest.skipUnless(has_pillow, "needs Pillow")


def modules():
    """The tiny networks as modules, by the script that made their files."""
    sys.path.insert(0, str(ROOT / "tests" / "reference"))
    try:
        import make_networks
    finally:
        sys.path.pop(0)
    return make_networks


@contextmanager
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@contextmanager
def environment(**values):
    """Variables for a while; None removes one."""
    before = {name: os.environ.get(name) for name in values}
    try:
        for name, value in values.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)

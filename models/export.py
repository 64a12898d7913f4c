#!/usr/bin/env python3
"""Writes a network as a file that prism takes: runs python/prism_cnn/export.py (`python -m prism_cnn.export`)."""
import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))

if __name__ == "__main__":
    runpy.run_module("prism_cnn.export", run_name="__main__", alter_sys=True)

#!/usr/bin/env python3
"""Writes a network as a file that prism takes: calls python/prism_cnn/export.py (`python -m prism_cnn.export`)."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))

from prism_cnn.export import main  # noqa: E402

if __name__ == "__main__":
    sys.path.pop(0)
    main()

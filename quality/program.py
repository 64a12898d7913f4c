"""Runs the `prism` binary on an array of images."""
import subprocess
import tempfile
from pathlib import Path

import numpy as np


def arrays(options, network, source, flags):
    """The saved arrays of one run; `source` is an array [B,3,S,S] or a folder of photographs."""
    weights = Path(options.models).resolve() / f"{network}.pth"
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(source, np.ndarray):
            np.savez(f"{folder}/batch.npz", input=source)
            source = f"{folder}/batch.npz"
        command = [Path(options.prism).resolve(), "--model", network, "--weights", weights, "--input", source, *flags]
        command += ["--output-dir", folder, "--save-arrays", f"{folder}/out.npz", "--quiet", "--device", "cpu"]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        with np.load(f"{folder}/out.npz") as saved:
            return {name: saved[name] for name in ("maps", "features", "input")}

"""Which places are similar: tests/data/similar.npz, for the test of the page.

    python tests/reference/make_similar.py

For the final excitation of tiny_mobilenet on the stored images, from eager PyTorch: `place` [3] is an image, a row and
a column, and `cosines` [N, h, w] float32 the similarity of all places to it: the product of their first 32
principal components, of all places of all images together by NumPy's SVD, over their lengths in all channels. Needs torch 2.13.0.
"""
import os

import numpy as np
import torch

from make_expected import AUTO, DATA
from make_networks import build
from prism_reference import auto_excitations

NAME = "tiny_mobilenet"
PLACE = (1, 2, 1)
COMPONENTS = 32


def main():
    network = build(NAME)
    scripted = torch.jit.load(os.path.join(DATA, "networks", f"{NAME}_scripted.pt"))
    network.load_state_dict(scripted.state_dict())
    network.eval()
    images = torch.from_numpy(np.load(os.path.join(DATA, "expected", f"{NAME}.npz"))["input"])
    with torch.no_grad():
        final = auto_excitations(network, images, AUTO[NAME]).final.tensor
    count, channels, height, width = final.shape
    rows = final.permute(0, 2, 3, 1).reshape(-1, channels).double().numpy()
    rows = rows - rows.mean(0)
    left, lengths, _ = np.linalg.svd(rows, full_matrices=False)
    scores = (left * lengths)[:, :COMPONENTS]
    units = scores / np.linalg.norm(rows, axis=1, keepdims=True)
    image, row, column = PLACE
    own = (image * height + row) * width + column
    cosines = units @ units[own]
    cosines[own] = 1
    cosines = cosines.reshape(count, height, width)
    print(f"{channels} channels, {height}x{width}; similar from 0.5, by image:", (cosines >= 0.5).mean((1, 2)))
    print("from 0.3:", (cosines >= 0.3).mean((1, 2)), "closest to 0.5:", np.sort(np.abs(cosines - 0.5).ravel())[:4])
    np.savez_compressed(os.path.join(DATA, "similar.npz"), place=np.array(PLACE, np.float32),
                        cosines=cosines.astype(np.float32))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Makes tests/data/arrays: small files as NumPy writes them.

    pip install numpy==2.4.6
    python tests/reference/make_arrays.py

The value at [n, c, h, w] of each input is n + c / 4 + h / 16 + w / 64.
"""

from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parent.parent / "data" / "arrays"


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    n, c, h, w = np.meshgrid(*map(np.arange, (2, 3, 4, 5)), indexing="ij")
    values = n + c / 4 + h / 16 + w / 64
    single = values.astype(np.float32)
    np.savez(OUT / "plain.npz", input=single, other=np.zeros(3))
    np.savez_compressed(OUT / "compressed.npz", input=single)
    np.savez(OUT / "fortran.npz", input=np.asfortranarray(single))
    np.savez(OUT / "big_endian.npz", input=single.astype(">f4"))
    np.savez(OUT / "float64.npz", input=values)
    np.savez(OUT / "float16.npz", input=values.astype(np.float16))
    np.savez(OUT / "float16_big_endian.npz", input=values.astype(">f2"))
    np.savez(OUT / "uint8.npz", input=values.astype(np.uint8))
    np.savez(OUT / "object.npz", input=np.array([None]))
    np.savez(OUT / "fields.npz", input=np.zeros(2, [("a", "<f4"), ("b", "<f4")]))
    np.savez(OUT / "no_input.npz", maps=single[0], logits=single[0])
    np.savez(OUT / "channels_last.npz", input=np.ascontiguousarray(single.transpose(0, 2, 3, 1)[:, :, :, :3]))
    np.savez(OUT / "one_image.npz", input=single[0])
    np.savez(OUT / "scalar.npz", input=np.float32(1))
    np.savez(OUT / "none.npz", input=single[:0])
    broken = single.copy()
    broken[1, 2, 3, 4] = np.inf
    broken[1, 0, 2, 3] = np.nan
    np.savez(OUT / "not_finite.npz", input=broken)
    np.savez(OUT / "too_large.npz", input=np.where(values > 1.5, 1e300, values))


if __name__ == "__main__":
    main()

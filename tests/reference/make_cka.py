"""Writes tests/data/cka.npz: two sets of features and their linear CKA, by NumPy in float64 from the
Gram matrices of all pairs of places.

    python tests/reference/make_cka.py

`plain` is Kornblith et al. (ICML 2019): the HSIC of centred Gram matrices. `debiased` is that of
Nguyen et al. (ICLR 2021) with the unbiased HSIC of Song et al. (JMLR 2012), equation 5.
"""

from pathlib import Path

import numpy as np

PLACES, SHARED = 60, 3


def plain(x: np.ndarray, y: np.ndarray) -> float:
    centre = np.eye(len(x)) - 1 / len(x)
    k, l = (centre @ features @ features.T @ centre for features in (x, y))
    return (k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum())


def hsic(k: np.ndarray, l: np.ndarray) -> float:
    n, ones = len(k), np.ones(len(k))
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))
    sums = (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
    return (np.trace(k @ l) + sums - 2 / (n - 2) * (ones @ k @ l @ ones)) / (n * (n - 3))


def debiased(x: np.ndarray, y: np.ndarray) -> float:
    k, l = x @ x.T, y @ y.T
    return hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))


def main() -> None:
    random = np.random.default_rng(23)
    shared = random.normal(size=(PLACES, SHARED))
    x = np.hstack([shared, random.normal(size=(PLACES, 4))]) @ random.normal(size=(7, 7)) + 0.4
    y = np.hstack([shared, random.normal(size=(PLACES, 2))]) @ random.normal(size=(5, 5)) - 1.1
    values = {"plain": plain(x, y), "debiased": debiased(x, y)}
    print(values)
    file = Path(__file__).parent.parent / "data" / "cka.npz"
    np.savez(file, x=x, y=y, **{name: np.array([value]) for name, value in values.items()})


if __name__ == "__main__":
    main()

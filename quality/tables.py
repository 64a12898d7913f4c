"""Tables of the measured rows, with intervals.

Results are {network: {row: {measure: [(sum, count)]}}}, one pair for each batch (a to d, AUC per batch) or each
image. The average of a measure is the sum of the sums over the sum of the counts.
"""
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10000
SEED = 4
WINNER = "bilateral (auto)"
ONLY_LONG = (
    "torchprism, bilinear", "DFF, 3 components, per image", "DFF, 5 components, per batch", "DFF, 5 components, per image",
)  # fmt: skip


@dataclass
class Measure:
    letter: str
    title: str
    root: bool = False  # the value is the square root of the average
    images: bool = False  # one pair for each image, else for each batch

    def value(self, sums, counts):
        average = sums / counts
        return np.sqrt(average) if self.root else average


MEASURES = {
    "a": Measure("a", "cells", root=True),
    "b": Measure("b", "finer places", root=True),
    "c": Measure("c", "input twice as large, rmse", root=True),
    "follows": Measure("c", "input twice as large, correlation"),
    "d": Measure("d", "rank correlation"),
    "image": Measure("e", "AUC per image", images=True),
    "batch": Measure("e", "AUC per batch"),
    "f": Measure("f", "within the animal", images=True),
}
# Those that need no mask.
SAMPLES = ("a", "b", "c", "follows", "d")
# No one classifier can read these in all images of a batch.
ONE_IMAGE = ("Grad-CAM", "DFF, 3 components, per image", "DFF, 5 components, per image")


def known(results, row, measure):
    return measure in results[row] and not (measure == "batch" and row in ONE_IMAGE)


def value(pairs, measure):
    return MEASURES[measure].value(*np.array(pairs).sum(0))


def interval(ours, theirs, measure, cutouts):
    """95 % interval of the difference, by drawing the same whole groups of both: cut-outs, or else batches."""
    ours, theirs = np.array(ours), np.array(theirs)
    groups = cutouts if MEASURES[measure].images else np.arange(len(ours))
    index = np.unique(groups, return_inverse=True)[1]
    count = index.max() + 1
    drawn = np.random.default_rng(SEED).integers(0, count, (RESAMPLES, count))

    def values(pairs):
        return MEASURES[measure].value(*(np.bincount(index, column)[drawn].sum(1) for column in pairs.T))

    return np.percentile(values(ours) - values(theirs), [2.5, 97.5])


def titled(network):
    return network.replace("efficientnet_lite", "Lite")


def head(columns):
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]


def by_network(results, measures, left_out=()):
    """One line for each network and row, one column for each measure."""
    lines = head(["network", "map"] + [f"{MEASURES[m].letter}: {MEASURES[m].title}" for m in measures])
    for network, rows in results.items():
        for row, found in rows.items():
            if row in left_out:
                continue
            cells = [f"{value(found[m], m):.3f}" if known(rows, row, m) else "" for m in measures]
            lines.append(f"| {titled(network)} | {row} | " + " | ".join(cells) + " |")
    return lines


def short(results):
    return "\n".join(by_network(results, MEASURES, ONLY_LONG))


def compared(results, measure, cutouts):
    """One line for each row: value and difference from the winner's on each network."""
    lines = head(["map"] + [titled(network) for network in results])
    first = next(iter(results.values()))
    for row in (row for row in first if known(first, row, measure)):
        cells = []
        for rows in results.values():
            theirs, ours = rows[row][measure], rows[WINNER][measure]
            cells.append(f"{value(theirs, measure):.3f}")
            if row != WINNER:
                low, high = interval(ours, theirs, measure, cutouts)
                cells[-1] += f" ({value(ours, measure) - value(theirs, measure):+.3f} [{low:+.3f}, {high:+.3f}])"
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return lines


def long(composites, samples, cutouts):
    lines = []
    for name, measure in MEASURES.items():
        lines += [f"## {measure.letter}: {measure.title}", "", *compared(composites, name, cutouts), ""]
    lines += ["## The photographs of `samples/`", "", *by_network(samples, SAMPLES)]
    return "\n".join(lines)

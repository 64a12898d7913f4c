"""How true a map is to the features that it shows.

A map is [B,3,h,w] in the units of the features cut at one deviation, -1 to 1. Its truth is a `Truth` (features.py). Each
measure returns sums and counts, so that averages over more batches, and their intervals, can be made of them.
"""
import torch.nn.functional as F
from scipy.stats import spearmanr

INSIDE = 0.9  # share of a place that the mask covers, to count as inside the object


def pooled(values, side):
    """`values` [B,K,h,w] as means over side x side places; if there are fewer pixels than places, in blocks."""
    if values.shape[-1] < side:
        return F.interpolate(values, size=(side, side), mode="nearest")
    return F.adaptive_avg_pool2d(values, side)


def squared_error(values, features):
    """Mean square of the difference from `features`, with the map pooled to their places."""
    return ((pooled(values, features.shape[-1]) - features) ** 2).mean().item()


def correlation(values, features):
    """Pearson's of the map, pooled to the places of `features`, with them; of each component, averaged."""
    values = pooled(values, features.shape[-1])
    shown, true = (t.transpose(0, 1).flatten(1) for t in (values, features))
    shown, true = (t - t.mean(1, keepdim=True) for t in (shown, true))
    return F.cosine_similarity(shown, true, dim=1).mean().item()


def rank_correlation(values, truth):
    """Spearman's, over pairs of places, of minus the distance of their colours and the cosine of all their channels."""
    colours = pooled(values, truth.dense.shape[-1]).permute(0, 2, 3, 1).flatten(0, 2)
    first, second = truth.pairs
    nearness = -(colours[first] - colours[second]).norm(dim=1)
    return spearmanr(nearness.numpy(), truth.cosine.numpy()).statistic


def within_object(values, truth, masks):
    """[(sum of products, sum of squares)] of each image, whose quotient is the slope of the map's differences inside the
    object, from its mean colour, against those of the dense features."""
    side = truth.dense.shape[-1]
    colours, inside = pooled(values, side), pooled(masks[:, None].float(), side)[:, 0] > INSIDE
    sums = []
    for shown, true, area in zip(colours, truth.dense, inside):
        if not area.any():
            sums.append((0.0, 0.0))
            continue
        shown, true = shown[:, area], true[:, area]
        shown, true = shown - shown.mean(1, keepdim=True), true - true.mean(1, keepdim=True)
        sums.append(((shown * true).sum().item(), (true * true).sum().item()))
    return sums

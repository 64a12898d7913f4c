"""The rule of upsampling that prism had before the bilateral one, as a row to compare with.

The colours of each image are regressed on the guides, from the coarsest resolution to the finest (Hoerl and Kennard, 1970);
at the end each component of each image gets back its mean and deviation.
"""
import torch
import torch.nn.functional as F

GROUPS = 4  # of channels of a guide, of which the means of the positive part are used
LAST = 3  # guides of each resolution
RIDGE = 0.1


def resized(values, side):
    return F.interpolate(values, size=(side, side), mode="bilinear", align_corners=False)


def group_means(guide):
    """[B,C,h,w] -> [B,GROUPS,h,w]; channel c belongs to group floor(GROUPS c / C)."""
    bounds = [-(-i * guide.shape[1] // GROUPS) for i in range(GROUPS + 1)]
    parts = [guide[:, start:end].clamp(min=0).mean(1) for start, end in zip(bounds, bounds[1:])]
    return torch.stack(parts, 1)


def upsampled(cells, guides, size):
    """cells [B,3,n,n] -> [B,3,size,size], by the guides [B,C,h,h] in the order of the network."""
    cells = cells.double()
    by_side = {}
    for guide in guides:
        if guide.shape[-1] >= cells.shape[-1]:
            by_side.setdefault(guide.shape[-1], []).append(guide)
    colours = cells
    for side in sorted(by_side):
        given = torch.cat([group_means(guide.double()) for guide in by_side[side][-LAST:]], 1).flatten(2)
        deviation = given.std(2, keepdim=True, unbiased=False)
        given = torch.where(deviation > 1e-6, (given - given.mean(2, keepdim=True)) / deviation.clamp(min=1e-9), 0)
        flat = resized(colours, side).flatten(2)
        mean = flat.mean(2, keepdim=True)
        scatter = given @ given.mT / given.shape[2] + RIDGE * torch.eye(given.shape[1], dtype=given.dtype)
        weights = torch.linalg.solve(scatter, given @ (flat - mean).mT / given.shape[2])
        colours = ((flat + mean + weights.mT @ given) / 2).unflatten(2, (side, side))
    colours, smooth, pixels = resized(colours, size), resized(cells, size), (2, 3)
    colours = (colours - colours.mean(pixels, keepdim=True)) / colours.std(pixels, keepdim=True).clamp(min=1e-9)
    return (colours * smooth.std(pixels, keepdim=True) + smooth.mean(pixels, keepdim=True)).float()


def normalised(values):
    """Cut at one deviation of the whole batch: that rule normalised its maps a second time."""
    return ((values - values.mean()) / values.std()).clamp(-1, 1)

"""How well the colours of a map separate an animal from the background: areas under the ROC curve."""
import numpy as np
from scipy.stats import rankdata

PIXELS = 2500  # per image for fitting, and as many others for evaluation
PENALTY = 1.0  # L2, on standardised colours, added to a sum over PIXELS


def auc(scores, truth):
    """Share of (inside, outside) pixel pairs that the scores order correctly; ties count half."""
    ranks = rankdata(scores)
    inside = truth.sum()
    outside = len(truth) - inside
    return (ranks[truth].sum() - inside * (inside + 1) / 2) / (inside * outside)


def logistic(x, y):
    """Weights of a logistic regression by Newton's method; the last one is the intercept."""
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    penalty = PENALTY * np.eye(x.shape[1])
    penalty[-1, -1] = 1e-6
    w = np.zeros(x.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -40, 40)))
        slope = x.T @ (p - y) + penalty @ w
        step = np.linalg.solve((x * (p * (1 - p) + 1e-9)[:, None]).T @ x + penalty, slope)
        step *= min(1, 5 / max(np.linalg.norm(step), 1e-12))
        w -= step
        if np.abs(step).max() < 1e-6:
            break
    return w


def read(fit_x, fit_y, read_x, read_y):
    mean, deviation = fit_x.mean(0), fit_x.std(0) + 1e-12
    w = logistic((fit_x - mean) / deviation, fit_y)
    return auc(((read_x - mean) / deviation) @ w[:-1], read_y)


def auc_of(maps, masks, pixels):
    """maps [B,K,S,S] at the resolution of the masks -> (AUC of each image, AUC of the batch)."""
    colours = maps.reshape(*maps.shape[:2], -1).transpose(0, 2, 1).astype(np.float64)
    masks = masks.reshape(len(masks), -1)
    parts = []
    for colour, mask, chosen in zip(colours, masks, pixels):
        fit, rest = chosen[:PIXELS], chosen[PIXELS:]
        parts.append((colour[fit], mask[fit].astype(float), colour[rest], mask[rest]))
    return [read(*part) for part in parts], read(*(np.concatenate(column) for column in zip(*parts)))

"""Logits, Platt scaling of each label's probabilities, and the temperature of probabilities that sum to 1."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

EPS = 1e-6  # probabilities are clipped to EPS … 1 - EPS before logits are averaged or fitted
TINY = 1e-15  # the same before logits are only compared
MIN_SLOPE = 0.05  # lowest slope of a calibration; above 0, so that the order of probabilities is kept


def logit(probs: np.ndarray, eps: float = EPS) -> np.ndarray:
    """Return logits in float64, of probabilities clipped to eps … 1 - eps."""
    clipped = np.clip(np.asarray(probs, np.float64), eps, 1 - eps)
    return np.log(clipped) - np.log1p(-clipped)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def calibration(
    probs: np.ndarray, targets: np.ndarray, *, strength: float = 10.0, steps: int = 25
) -> tuple[np.ndarray, np.ndarray]:
    """Return slopes (C,) and offsets (C,) of each class's logits, by logistic regression (Platt 1999). A
    penalty with the weight of `strength` images holds them near 1 and 0, so that rare classes stay near the
    model's probabilities. Unknown targets, NaN, are left out."""
    x, y = logit(probs), targets.astype(float)
    counts = 1.0 - np.isnan(y) if np.isnan(y).any() else 1.0  # 0 where a target is unknown
    y = np.nan_to_num(y)
    slopes, offsets = np.ones(x.shape[1]), np.zeros(x.shape[1])

    def loss(slopes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        z = x * slopes + offsets
        pull = strength / 2 * ((slopes - 1) ** 2 + offsets**2)
        return ((np.logaddexp(0, z) - y * z) * counts).sum(0) + pull

    now = loss(slopes, offsets)
    for _ in range(steps):
        p = sigmoid(x * slopes + offsets)
        error, weight = (p - y) * counts, p * (1 - p) * counts
        g_a, g_b = (error * x).sum(0) + strength * (slopes - 1), error.sum(0) + strength * offsets
        h_aa, h_bb = (weight * x * x).sum(0) + strength, weight.sum(0) + strength
        h_ab = (weight * x).sum(0)
        determinant = h_aa * h_bb - h_ab**2
        step_a, step_b = (h_bb * g_a - h_ab * g_b) / determinant, (h_aa * g_b - h_ab * g_a) / determinant
        held = (slopes <= MIN_SLOPE) & (g_a > 0)  # at the bound only the offset moves
        step_a, step_b = np.where(held, 0.0, step_a), np.where(held, g_b / h_bb, step_b)
        size = np.ones(len(slopes))
        for _ in range(40):  # Newton's steps, halved where they raise the loss
            tried = np.maximum(slopes - size * step_a, MIN_SLOPE), offsets - size * step_b
            value = loss(*tried)
            if (better := value <= now).all():
                break
            size = np.where(better, size, size / 2)
        gain = now - value
        slopes, offsets = (np.where(better, t, old) for t, old in zip(tried, (slopes, offsets)))
        now = np.where(better, value, now)
        if gain.max() < 1e-9 * len(x):
            break
    return slopes, offsets


def temperature(probs: np.ndarray, targets: np.ndarray) -> float:
    """Return the number that divides the logarithms of probabilities (N, C) that sum to 1, so that their log
    loss on targets with one label per image is lowest (Guo et al. 2017)."""
    logs = np.log(np.clip(np.asarray(probs, np.float64), EPS, 1))
    of_true = (logs * targets).sum(1)

    def loss(log_t: float) -> float:
        t = np.exp(log_t)
        return float(np.mean(logsumexp(logs / t, axis=1) - of_true / t))

    found = minimize_scalar(loss, bounds=(np.log(0.1), np.log(10)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def tempered(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities (N, C) whose logarithms were divided by the temperature; rows sum to 1."""
    return softmax(np.log(np.clip(np.asarray(probs, np.float64), EPS, 1)) / temperature, axis=1)

"""Logits, and Platt scaling of each label's probabilities."""

import numpy as np

EPS = 1e-6  # probabilities are kept this far from 0 and 1 in logits that are averaged or fitted to
LEAST_SLOPE = 0.05  # of a calibration: more probable stays more probable
TINY = 1e-15  # and this far in logits that are compared


def logit(probs: np.ndarray, eps: float = EPS) -> np.ndarray:
    clipped = np.clip(np.asarray(probs, np.float64), eps, 1 - eps)
    return np.log(clipped) - np.log1p(-clipped)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def calibration(
    probs: np.ndarray, targets: np.ndarray, *, strength: float = 10.0, steps: int = 25
) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset (C,) each of a class's logits, by logistic regression (Platt 1999) held to slope 1 and
    offset 0 with the weight of `strength` images, so that rare classes stay near what the model said."""
    x, y = logit(probs), targets.astype(float)
    slopes, offsets = np.ones(x.shape[1]), np.zeros(x.shape[1])

    def loss(slopes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        z = x * slopes + offsets
        pull = strength / 2 * ((slopes - 1) ** 2 + offsets**2)
        return (np.logaddexp(0, z) - y * z).sum(0) + pull

    now = loss(slopes, offsets)
    for _ in range(steps):
        p = sigmoid(x * slopes + offsets)
        error, weight = p - y, p * (1 - p)
        g_a, g_b = (error * x).sum(0) + strength * (slopes - 1), error.sum(0) + strength * offsets
        h_aa, h_bb = (weight * x * x).sum(0) + strength, weight.sum(0) + strength
        h_ab = (weight * x).sum(0)
        determinant = h_aa * h_bb - h_ab**2
        step_a, step_b = (h_bb * g_a - h_ab * g_b) / determinant, (h_aa * g_b - h_ab * g_a) / determinant
        held = (slopes <= LEAST_SLOPE) & (g_a > 0)  # at its bound: the offset alone
        step_a, step_b = np.where(held, 0.0, step_a), np.where(held, g_b / h_bb, step_b)
        size = np.ones(len(slopes))
        for _ in range(40):  # Newton's steps, halved where they lead up
            tried = np.maximum(slopes - size * step_a, LEAST_SLOPE), offsets - size * step_b
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

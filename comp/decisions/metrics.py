"""F-beta as scikit-learn's `fbeta_score` defines it, in numpy and fast enough for threshold searches."""

import numpy as np
from sklearn.metrics import average_precision_score

from comp.decisions.calibration import EPS


def fbeta(
    targets: np.ndarray, decisions: np.ndarray, *, beta: float, average: str, empty: float = 0.0
) -> float:
    """F-beta of 0/1 matrices (N, C), averaged over "samples", classes ("macro"), or of the pooled counts
    ("micro").

    0/0 counts as 0, so an image without any label scores 0 under "samples" whatever is answered; `empty`,
    scikit-learn's `zero_division`, is what it scores instead where no label is answered.
    """
    true, chosen = targets.astype(bool), decisions.astype(bool)
    if average == "samples":
        return float(score(*_counts(true, chosen, 1), beta, empty).mean())
    per_class = _counts(true, chosen, 0)
    if average == "macro":
        return float(score(*per_class, beta).mean())
    if average == "micro":
        hits, n_chosen, n_true = (count.sum(keepdims=True) for count in per_class)
        return float(score(hits, n_chosen, n_true, beta)[0])
    raise ValueError(f"average is {average!r}; samples, macro or micro is expected")


def fbeta_per_class(targets: np.ndarray, decisions: np.ndarray, *, beta: float) -> np.ndarray:
    """(C,) F-beta of each class."""
    return score(*_counts(targets.astype(bool), decisions.astype(bool), 0), beta)


def score(
    n_hits: np.ndarray, n_chosen: np.ndarray, n_true: np.ndarray, beta: float, empty: float = 0.0
) -> np.ndarray:
    """F-beta from counts: (1 + b²) hits / (chosen + b² true), `empty` where that is 0/0."""
    below = n_chosen + beta**2 * n_true
    values = (1 + beta**2) * n_hits / np.maximum(below, 1e-12)
    return np.where(below == 0, empty, values) if empty else values


def most_probable(probs: np.ndarray) -> np.ndarray:
    """(N, C) 0/1: the first of the most probable labels of each row."""
    return (np.arange(probs.shape[1]) == probs.argmax(1)[:, None]).astype(np.uint8)


def _counts(true: np.ndarray, chosen: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (true & chosen).sum(axis), chosen.sum(axis), true.sum(axis)


def score_by_class(
    columns: np.ndarray,
    true: np.ndarray,
    thresholds: np.ndarray,
    *,
    beta: float,
    average: str,
    empty: float = 0.0,
) -> float:
    """F-beta of contiguous (C, N) arrays: class after class in small integers, several times as fast as by
    row."""
    chosen = columns > thresholds[:, None]
    axis, kind = (0, np.int16) if average == "samples" else (1, np.int64)
    hits, n_chosen, n_true = (m.sum(axis, dtype=kind) for m in (chosen & true, chosen, true))
    if average == "micro":
        hits, n_chosen, n_true = hits.sum(), n_chosen.sum(), n_true.sum()
    return float(np.mean(score(hits, n_chosen, n_true, beta, empty)))


def precision_per_class(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(C,) average precision; nan where a class has no image."""
    pairs = zip(targets.T, probs.T)
    return np.array([average_precision_score(true, p) if true.any() else np.nan for true, p in pairs])


def log_losses(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(N,): the binary cross-entropy of each row of (N, C), summed over its labels, in nats."""
    p = np.clip(probs.astype(np.float64), EPS, 1 - EPS)
    return -np.where(targets, np.log(p), np.log1p(-p)).sum(1)

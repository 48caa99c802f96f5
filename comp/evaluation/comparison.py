"""What finished runs are worth beside each other: paired bootstrap of their scores, measures that need no
threshold, correlation of their errors."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score

from comp.decisions.metrics import score
from comp.decisions.rules import EPS

AT_ONCE = 4_000_000  # numbers drawn at a time


def bootstrap(
    decisions: Sequence[np.ndarray],
    targets: np.ndarray,
    *,
    beta: float,
    average: str,
    empty: float = 0.0,
    n_resamples: int = 4000,
    seed: int = 0,
) -> np.ndarray:
    """(B, M) F-beta of each of the M runs' decisions (N, C) in B resamples of the rows with replacement
    (Efron 1979). All runs are scored on the same resamples, so their differences are paired."""
    true, n = targets.astype(bool), len(targets)
    parts = [(chosen.astype(bool) & true, chosen.astype(bool), true) for chosen in decisions]
    if average == "samples":
        counts = [(hits.sum(1), chosen.sum(1), true.sum(1)) for hits, chosen, true in parts]
        summed = np.stack([score(*each, beta, empty) for each in counts], axis=1)  # (N, M)
    else:
        columns = [part.sum(1, keepdims=True) if average == "micro" else part for p in parts for part in p]
        summed = np.concatenate(columns, axis=1).astype(np.float32)  # (N, 3 * M * C): hits, chosen, true
    rng, answer, step = np.random.default_rng(seed), [], max(1, AT_ONCE // n)
    for first in range(0, n_resamples, step):
        size = min(step, n_resamples - first)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)  # each row was drawn
        sums = times.astype(summed.dtype) @ summed
        if average == "samples":
            answer.append(sums / n)
        else:
            hits, chosen, positive = sums.reshape(size, len(parts), 3, -1).transpose(2, 0, 1, 3)
            answer.append(score(hits, chosen, positive, beta).mean(2))
    return np.concatenate(answer)


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrapped values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def share_above(values: np.ndarray) -> float:
    """The share of differences above 0, ties counted half."""
    return float(np.mean(values > 1e-12) + np.mean(np.abs(values) <= 1e-12) / 2)


def precision_per_class(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(C,) average precision; nan where a class has no image."""
    pairs = zip(targets.T, probs.T)
    return np.array([average_precision_score(true, p) if true.any() else np.nan for true, p in pairs])


def log_losses(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(N,): the binary cross-entropy of each row of (N, C), summed over its labels, in nats."""
    p = np.clip(probs.astype(np.float64), EPS, 1 - EPS)
    return -np.where(targets, np.log(p), np.log1p(-p)).sum(1)


def error_correlation(members: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(M, M) Pearson correlation of the errors target - probability over all cells of (M, N, C). The less
    two runs err alike, the more their mean gains."""
    return np.atleast_2d(np.corrcoef((targets - members).reshape(len(members), -1)))

"""Paired bootstrap over images: intervals, and how often one answer beats another."""

from collections.abc import Sequence

import numpy as np

from comp.decisions.metrics import score

SURE = 0.8  # the share of resamples in which that has to be so
N_RESAMPLES = 400
AT_ONCE = 4_000_000  # numbers drawn at a time


def sureness(
    better: np.ndarray,
    worse: np.ndarray,
    targets: np.ndarray,
    *,
    beta: float,
    average: str,
    empty: float = 0.0,
    seed: int = 0,
) -> float:
    """How sure it is that decisions `better` (N, C) beat `worse`: the share of paired bootstrap resamples of
    the rows in which they do, ties counted half."""
    rng = np.random.default_rng(seed)
    used = np.flatnonzero((better != worse).any(1))
    true = targets.astype(bool)
    if not len(used):
        return 0.5
    if average == "samples":
        values = []
        for decisions in (better[used], worse[used]):
            chosen = decisions.astype(bool)
            hits = (chosen & true[used]).sum(1)
            values.append(score(hits, chosen.sum(1), true[used].sum(1), beta, empty))
        # rows that gain the same are drawn together: a sum of Poisson numbers is one
        steps, n_rows = np.unique(np.round(values[0] - values[1], 12), return_counts=True)
        gains = rng.poisson(n_rows, (N_RESAMPLES, len(steps))) @ steps
    else:
        # rows on which both agree are drawn once each: their noise is common to both
        extra = rng.poisson(1.0, (N_RESAMPLES, len(used))).astype(np.float32) - 1
        scores = []
        for decisions in (better, worse):
            chosen = decisions.astype(bool)
            counts = [m.sum(0) + extra @ m[used].astype(np.float32) for m in (chosen & true, chosen, true)]
            if average == "micro":
                counts = [count.sum(1, keepdims=True) for count in counts]
            scores.append(score(counts[0], counts[1], counts[2], beta).mean(1))
        gains = scores[0] - scores[1]
    return float(np.mean(gains > 1e-12) + np.mean(np.abs(gains) <= 1e-12) / 2)


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

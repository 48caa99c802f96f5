"""Paired bootstrap over images: intervals, and the probability that one set of decisions beats another.

A resample takes each image a Poisson number of times (Hanley and MacGibbon 2006). With many images that is
sampling with replacement. All decisions are scored on the same resamples, so their differences are paired."""

from collections.abc import Sequence

import numpy as np

from comp.decisions.metrics import FBeta

MIN_WIN_PROBABILITY = 0.8  # above it, a rule or a blend replaces the reference
N_RESAMPLES = 400
CHUNK = 4_000_000  # random numbers in memory at a time
TIE = 1e-12  # differences up to this size are ties


def win_probability(
    better: np.ndarray, worse: np.ndarray, targets: np.ndarray, metric: FBeta, *, seed: int = 0
) -> float:
    """Return the share of resamples in which decisions `better` (N, C) beat `worse`. Ties count half."""
    used = np.flatnonzero((better != worse).any(1))
    if not len(used):
        return 0.5
    rng, true = np.random.default_rng(seed), targets.astype(bool)
    if metric.average == "samples":
        values = [_by_image(decisions[used], true[used], metric) for decisions in (better, worse)]
        # images of equal gain share one number: a sum of Poisson numbers is a Poisson number
        steps, n_rows = np.unique(np.round(values[0] - values[1], 12), return_counts=True)
        return share_above(rng.poisson(n_rows, (N_RESAMPLES, len(steps))) @ steps)
    # images on which both agree are taken once: their noise is common to both
    extra = rng.poisson(1.0, (N_RESAMPLES, len(used))).astype(np.float32) - 1
    scores = []
    for decisions in (better, worse):
        counts = [m.sum(0) + extra @ m[used].astype(np.float32) for m in _hits(decisions, true)]
        scores.append(_of_sums(counts, metric))
    return share_above(scores[0] - scores[1])


def bootstrap(
    decisions: Sequence[np.ndarray],
    targets: np.ndarray,
    metric: FBeta,
    *,
    n_resamples: int = 4000,
    seed: int = 0,
) -> np.ndarray:
    """Return (B, M) the scores of M sets of decisions (N, C) in B resamples."""
    true, n = targets.astype(bool), len(targets)
    if metric.average == "samples":
        columns = [_by_image(each, true, metric)[:, None] for each in decisions]
    else:
        columns = [part for each in decisions for part in _hits(each, true)]
    summed = np.concatenate([*columns, np.ones((n, 1))], axis=1).astype(np.float32)
    rng, scores, step = np.random.default_rng(seed), [], max(1, CHUNK // n)
    for first in range(0, n_resamples, step):
        copies = rng.poisson(1.0, (min(step, n_resamples - first), n)).astype(np.float32)
        sums = (copies @ summed).astype(np.float64)
        sums, total = sums[:, :-1], sums[:, -1:]
        if metric.average == "samples":
            scores.append(sums / total)
        else:
            counts = sums.reshape(len(copies), len(decisions), 3, -1).transpose(
                2, 1, 0, 3
            )  # hits, chosen, true
            scores.append(
                np.stack([_of_sums(list(counts[:, m]), metric) for m in range(len(decisions))], axis=1)
            )
    return np.concatenate(scores)


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of bootstrapped values (Efron 1979)."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def share_above(values: np.ndarray) -> float:
    """Return the share of differences above 0. Ties count half."""
    return float(np.mean(values > TIE) + np.mean(np.abs(values) <= TIE) / 2)


def _hits(decisions: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return three (N, C) bool: hits, chosen labels, true labels."""
    chosen = decisions.astype(bool)
    return chosen & true, chosen, true


def _by_image(decisions: np.ndarray, true: np.ndarray, metric: FBeta) -> np.ndarray:
    """Return (N,) the F-beta of each image."""
    return metric.score_counts(*(part.sum(1) for part in _hits(decisions, true)))


def _of_sums(counts: Sequence[np.ndarray], metric: FBeta) -> np.ndarray:
    """Return (B,) macro or micro F-beta from resampled counts (B, C) of hits, chosen and true labels."""
    if metric.average == "micro":
        counts = [count.sum(1, keepdims=True) for count in counts]
    return metric.score_counts(*counts).mean(1)

"""Paired bootstrap over images: intervals, and the probability that one set of answers beats another.

A resample takes each image a Poisson number of times (Hanley and MacGibbon 2006). With many images that is
sampling with replacement. All answers are scored on the same resamples, so their differences are paired."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from comp.decisions.metrics import FBeta, known_labels
from comp.decisions.resampling import is_fast, resampled
from comp.decisions.scorers import Scorer

MIN_WIN_PROBABILITY = 0.8  # above it, a rule or a blend replaces the reference
N_RESAMPLES = 400
N_SLOW = 100  # resamples, where each is scored alone
CHUNK = 4_000_000  # random numbers in memory at a time
SPARSE = 20_000_000  # numbers in a matrix; larger ones are multiplied as sparse
TIE = 1e-12  # differences up to this size are ties


def win_probability(
    better: np.ndarray, worse: np.ndarray, targets: np.ndarray, metric: Scorer, *, seed: int = 0
) -> float:
    """Return the share of resamples in which answers `better` (N, C) beat `worse`. Ties count half."""
    if not isinstance(metric, FBeta):
        if np.array_equal(better, worse):
            return 0.5
        n_resamples = N_RESAMPLES if is_fast(metric) else N_SLOW
        resamples = bootstrap([better, worse], targets, metric, n_resamples=n_resamples, seed=seed)
        return share_above(metric.sign * (resamples[:, 0] - resamples[:, 1]))
    (true, better), (_, worse) = known_labels(targets, better), known_labels(targets, worse)
    used = np.flatnonzero((better != worse).any(1))
    if not len(used):
        return 0.5
    rng = np.random.default_rng(seed)
    if metric.average == "samples":
        values = [_by_image(decisions[used], true[used], metric) for decisions in (better, worse)]
        # images of equal gain share one number: a sum of Poisson numbers is a Poisson number
        steps, n_rows = np.unique(np.round(values[0] - values[1], 12), return_counts=True)
        return share_above(rng.poisson(n_rows, (N_RESAMPLES, len(steps))) @ steps)
    # images on which both agree are taken once: their noise is common to both
    extra = rng.poisson(1.0, (N_RESAMPLES, len(used))).astype(np.float32) - 1
    scores = []
    for decisions in (better, worse):
        counts = [m.sum(0) + _product(extra, m[used]) for m in _hits(decisions, true)]
        scores.append(_of_sums(counts, metric))
    return share_above(scores[0] - scores[1])


def _product(extra: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the product of (B, M) whole numbers and (M, C) 0/1 as float32. Of large matrices few numbers are
    1, so that they are multiplied as sparse ones; the result is the same."""
    if matrix.size > SPARSE:
        return (csr_array(matrix.T, dtype=np.float32) @ extra.T).T
    return extra @ matrix.astype(np.float32)


def bootstrap(
    decisions: Sequence[np.ndarray],
    targets: np.ndarray,
    metric: Scorer,
    *,
    n_resamples: int = 4000,
    seed: int = 0,
) -> np.ndarray:
    """Return (B, M) the scores of M sets of answers (N, C) in B resamples."""
    if not isinstance(metric, FBeta):
        return _bootstrap_any(decisions, targets, metric, n_resamples, seed)
    decisions = [known_labels(targets, each)[1] for each in decisions]
    true = known_labels(targets, targets)[0]
    n = len(true)
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


def gains_by_class(
    better: np.ndarray, worse: np.ndarray, targets: np.ndarray, beta: float, *, seed: int = 0
) -> np.ndarray:
    """Return (B, C) what decisions `better` (N, C) gain on `worse` in each class's F-beta, in B resamples."""
    alone, columns = FBeta(beta, "macro"), []
    for decisions in (better, worse):
        true, chosen = known_labels(targets, decisions)
        columns += [chosen & true, chosen, true]
    n = len(columns[0])
    summed = np.concatenate(columns, axis=1).astype(np.float32)
    rng, gains, step = np.random.default_rng(seed), [], max(1, CHUNK // n)
    n_resamples = max(N_SLOW, min(N_RESAMPLES, 10 * CHUNK // n))
    for first in range(0, n_resamples, step):
        copies = rng.poisson(1.0, (min(step, n_resamples - first), n)).astype(np.float32)
        counts = (copies @ summed).astype(np.float64).reshape(len(copies), 2, 3, -1)
        of_better, of_worse = (alone.score_counts(*counts[:, k].transpose(1, 0, 2)) for k in (0, 1))
        gains.append(of_better - of_worse)
    return np.concatenate(gains)


def _bootstrap_any(
    answers: Sequence[np.ndarray], targets: np.ndarray, scorer: Scorer, n_resamples: int, seed: int
) -> np.ndarray:
    rng, n = np.random.default_rng(seed), len(targets)
    step = max(1, CHUNK // n)
    scores: list[np.ndarray] = []
    for first in range(0, n_resamples, step):
        copies = rng.poisson(1.0, (min(step, n_resamples - first), n)).astype(np.float32)
        scores.append(np.stack([resampled(scorer, targets, each, copies) for each in answers], axis=1))
    return np.concatenate(scores)


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of bootstrapped values (Efron 1979), without those that are NaN."""
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
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

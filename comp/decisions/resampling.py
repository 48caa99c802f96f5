"""Scores of resamples of the images, all at once: an image counts as often as a resample takes it."""

from collections.abc import Callable

import numpy as np

from comp.config.metric import Metric
from comp.decisions.scorers import (
    CLIP,
    ColumnScorer,
    RowScorer,
    Scorer,
    WholeScorer,
    known_cells,
    known_rows,
)

OfColumn = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""From targets (N,), answers (N,) and copies (B, N) to scores (B,); NaN where a score is not defined."""


def is_fast(scorer: Scorer) -> bool:
    """Return whether `resampled` needs no loop over resamples."""
    if isinstance(scorer, ColumnScorer):
        return not scorer.pooled
    return isinstance(scorer, RowScorer) or scorer.metric.name in OF_ALL


def resampled(scorer: Scorer, targets: np.ndarray, answers: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Return (B,) the scores of answers (N, C) in resamples that take the images `copies` (B, N) times."""
    if isinstance(scorer, RowScorer):
        known = known_rows(targets)
        weights = copies[:, known]
        return _mean(scorer.rows(targets, answers)[known], weights)
    if isinstance(scorer, ColumnScorer) and is_fast(scorer):
        if cell := _cell(scorer.metric):
            known = known_cells(targets)
            sums = copies @ np.where(known, cell(targets, answers), 0).astype(np.float32)
            means = _divide(sums.astype(np.float64), copies @ known.astype(np.float32))
            return scorer.mean(np.sqrt(means) if scorer.metric.name == "rmse" else means)
        of_column = _of_column(scorer.metric)
        values = np.full((len(copies), targets.shape[1]), np.nan)
        for c, (true, answer, known) in enumerate(zip(targets.T, answers.T, known_cells(targets).T)):
            if known.any():
                taken = copies if known.all() else copies[:, known]
                values[:, c] = of_column(true[known].astype(float), answer[known], taken)
        return scorer.mean(values)
    if isinstance(scorer, WholeScorer) and is_fast(scorer):
        known = known_rows(targets)
        return OF_ALL[scorer.metric.name](targets[known], answers[known], copies[:, known])
    places = np.arange(len(targets))
    drawn = [np.repeat(places, count.astype(int)) for count in copies]
    return np.array([scorer.score(targets[rows], answers[rows]) for rows in drawn])


def _mean(values: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Return (B,) the mean of values (N,)."""
    return (copies @ values) / copies.sum(1)


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.where(below > 0, above / np.where(below > 0, below, 1), np.nan)


# --- of a column --------------------------------------------------------------------------------------------


def _cell(metric: Metric) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """Return what a metric that is a mean over a column's images takes the mean of."""

    def log_losses(true: np.ndarray, probs: np.ndarray) -> np.ndarray:
        p = np.clip(np.asarray(probs, np.float64), CLIP, 1 - CLIP)
        return -np.log(np.where(true > 0.5, p, 1 - p))

    known: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        "log_loss": log_losses,
        "rmse": lambda true, answers: np.square(answers - true),
        "mae": lambda true, answers: np.abs(answers - true),
        "within": lambda true, answers: np.abs(answers - true) <= metric.tolerance,
    }
    return known.get(metric.name)


def _of_column(metric: Metric) -> OfColumn:
    def probabilistic_fbeta(true: np.ndarray, probs: np.ndarray, copies: np.ndarray) -> np.ndarray:
        hits, chosen, positive = copies @ (probs * true), copies @ probs, copies @ true
        below = chosen + metric.beta**2 * positive
        return np.nan_to_num(_divide((1 + metric.beta**2) * hits, below))

    known: dict[str, OfColumn] = {
        "roc_auc": _roc_auc,
        "average_precision": _average_precision,
        "probabilistic_fbeta": probabilistic_fbeta,
        "r2": _r2,
    }
    return known[metric.name]


def _r2(true: np.ndarray, numbers: np.ndarray, copies: np.ndarray) -> np.ndarray:
    n, centred = copies.sum(1), true - true.mean()
    spread = copies @ np.square(centred) - np.square(copies @ centred) / n
    return 1 - _divide(copies @ np.square(numbers - true), spread)


def _by_value(true: np.ndarray, probs: np.ndarray, copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two (B, V), how many positive and how many negative images have each of the V values of probs,
    which fall."""
    order = np.argsort(-probs, kind="stable")
    falling, positive = probs[order], true[order] > 0.5
    starts = np.flatnonzero(np.r_[True, falling[1:] != falling[:-1]])
    taken = copies[:, order].astype(np.float64)
    sums = [np.add.reduceat(taken * side, starts, axis=1) for side in (positive, ~positive)]
    return sums[0], sums[1]


def _roc_auc(true: np.ndarray, probs: np.ndarray, copies: np.ndarray) -> np.ndarray:
    positive, negative = _by_value(true, probs, copies)
    n_positive, n_negative = positive.sum(1), negative.sum(1)
    above = positive.cumsum(1) - positive / 2  # of the positive ones; equal values count half
    return _divide((negative * above).sum(1), n_positive * n_negative)


def _average_precision(true: np.ndarray, probs: np.ndarray, copies: np.ndarray) -> np.ndarray:
    positive, negative = _by_value(true, probs, copies)
    hits = positive.cumsum(1)
    precision = np.nan_to_num(_divide(hits, hits + negative.cumsum(1)))
    return _divide((positive * precision).sum(1), hits[:, -1])


# --- of all -------------------------------------------------------------------------------------------------


def _balanced_accuracy(targets: np.ndarray, chosen: np.ndarray, copies: np.ndarray) -> np.ndarray:
    hits = (targets > 0.5) & (chosen > 0.5)
    recalls = _divide(copies @ hits, copies @ (targets > 0.5))
    return np.nanmean(recalls, axis=1)


def _quadratic_kappa(targets: np.ndarray, chosen: np.ndarray, copies: np.ndarray) -> np.ndarray:
    true, given, n = targets.argmax(1).astype(float), chosen.argmax(1).astype(float), copies.sum(1)
    observed = copies @ np.square(true - given)
    sums = [copies @ values for values in (true, given, np.square(true), np.square(given))]
    expected = sums[2] + sums[3] - 2 * sums[0] * sums[1] / n
    return 1 - np.nan_to_num(_divide(observed, expected))


OF_ALL: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "balanced_accuracy": _balanced_accuracy,
    "quadratic_kappa": _quadratic_kappa,
}

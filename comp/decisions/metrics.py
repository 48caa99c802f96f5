"""F-beta, average precision, log loss. F-beta is scikit-learn's `fbeta_score`, fast enough for threshold
searches."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from sklearn.metrics import average_precision_score

from comp.config.metric import Answer, Metric
from comp.decisions.calibration import EPS

MANY = 20_000_000  # numbers in a matrix
BLOCK = 64  # columns that are copied together
CHUNK = 1 << 24  # numbers whose logarithms are in memory together


@dataclass(frozen=True)
class FBeta:
    """Mean F-beta, as scikit-learn's `fbeta_score` defines it.

    It is averaged over images ("samples") or classes ("macro"), or computed from pooled counts ("micro").
    `zero_division` is the value of 0/0, the score of an image without true and without chosen labels under
    "samples"."""

    beta: float = 2.0
    average: str = "samples"
    zero_division: float = 0.0  # for "samples" only
    answer: ClassVar[Answer] = "labels"
    sign: ClassVar[int] = 1  # a higher score is better

    @property
    def metric(self) -> Metric:
        """The metric as a competition's TOML names it."""
        return Metric(beta=self.beta, average=self.average, zero_division=self.zero_division)  # type: ignore[arg-type]

    @classmethod
    def from_metric(cls, metric: Metric) -> "FBeta":
        """Return the F-beta of a competition's metric. With one true and one chosen label per image, F-beta
        is 1 where they agree and 0 elsewhere, so its mean over images is the accuracy."""
        if metric.name == "accuracy":
            return cls(1.0, "samples")
        return cls(metric.beta, metric.average, metric.zero_division)

    def score(self, targets: np.ndarray, decisions: np.ndarray) -> float:
        """Return the score of 0/1 matrices (N, C). Unknown targets are NaN; they, and images without a known
        one, are left out."""
        true, chosen = known_labels(targets, decisions)
        if self.average == "samples":
            return float(self.score_counts(*_counts(true, chosen, 1)).mean())
        per_class = _counts(true, chosen, 0)
        if self.average == "macro":
            return float(self.score_counts(*per_class).mean())
        if self.average == "micro":
            return float(self.score_counts(*(count.sum(keepdims=True) for count in per_class))[0])
        raise ValueError(f"average is {self.average!r}; samples, macro or micro is expected")

    def score_counts(self, n_hits: np.ndarray, n_chosen: np.ndarray, n_true: np.ndarray) -> np.ndarray:
        """Return F-beta from counts: (1 + b²) hits / (chosen + b² true), or `zero_division` where that is
        0/0."""
        denominator = n_chosen + self.beta**2 * n_true
        values = (1 + self.beta**2) * n_hits / np.maximum(denominator, 1e-12)
        return np.where(denominator == 0, self.zero_division, values) if self.zero_division else values

    def score_columns(self, columns: np.ndarray, true: np.ndarray, thresholds: np.ndarray) -> float:
        """Return the score of contiguous (C, N) arrays. Counting by class in small integers is several times
        as fast as by row."""
        chosen = columns > thresholds[:, None]
        axis, kind = (0, np.int16) if self.average == "samples" else (1, np.int64)
        hits, n_chosen, n_true = (m.sum(axis, dtype=kind) for m in (chosen & true, chosen, true))
        if self.average == "micro":
            hits, n_chosen, n_true = hits.sum(), n_chosen.sum(), n_true.sum()
        return float(np.mean(self.score_counts(hits, n_chosen, n_true)))

    def per_class(self, targets: np.ndarray, decisions: np.ndarray) -> np.ndarray:
        """Return (C,) F-beta of each class; 0/0 counts as 0."""
        counts = _counts(*known_labels(targets, decisions), 0)
        return FBeta(self.beta, "macro").score_counts(*counts)


def most_probable(probs: np.ndarray) -> np.ndarray:
    """Return decisions (N, C) 0/1: the most probable label of each row; ties go to the first."""
    return one_hot(probs.argmax(1), probs.shape[1])


def one_hot(columns: np.ndarray, n_classes: int) -> np.ndarray:
    """Return (N, C) 0/1 with a 1 in the column (N,) of each row."""
    decisions = np.zeros((len(columns), n_classes), np.uint8)
    decisions[np.arange(len(columns)), columns] = 1
    return decisions


def known_labels(targets: np.ndarray, decisions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two (M, C) bool, true and chosen labels, of the M images with a known target. A label whose
    target is NaN is neither true nor chosen."""
    if targets.dtype.kind != "f":
        return _as_bool(targets), _as_bool(decisions)
    known = ~np.isnan(targets)
    rows = known.any(1)
    true, chosen = targets > 0.5, decisions.astype(bool) & known
    return (true, chosen) if rows.all() else (true[rows], chosen[rows])


def are_binary(values: np.ndarray) -> bool:
    """Return whether all values are 0 or 1."""
    if values.dtype == np.uint8:  # np.isin takes ten times the memory
        return not values.size or int(values.max()) <= 1
    return bool(np.isin(values, (0, 1)).all())


def _as_bool(matrix: np.ndarray) -> np.ndarray:
    return matrix.view(bool) if matrix.dtype == np.uint8 else matrix.astype(bool)


def _counts(true: np.ndarray, chosen: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (true & chosen).sum(axis), chosen.sum(axis), true.sum(axis)


def average_precisions(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return (C,) the average precision of each class over its known targets; nan for a class without
    images."""
    if targets.dtype.kind == "f":
        known = ~np.isnan(targets)
        columns = [(t[k] > 0.5, p[k]) for t, p, k in zip(targets.T, probs.T, known.T)]
        return np.array([average_precision_score(true, p) if true.any() else np.nan for true, p in columns])
    if probs.size <= MANY:
        pairs = zip(targets.T, probs.T)
        return np.array([average_precision_score(true, p) if true.any() else np.nan for true, p in pairs])
    found = []
    for first in range(0, probs.shape[1], BLOCK):
        block = slice(first, first + BLOCK)
        pairs = zip(targets[:, block].T.copy(), probs[:, block].T.copy())
        found += [_average_precision(true, p) if true.any() else np.nan for true, p in pairs]
    return np.array(found)


def _average_precision(true: np.ndarray, probs: np.ndarray) -> float:
    """Return what scikit-learn's function does, many times as fast for few images with the label: the mean
    over them of the share of hits among all images that are at least as probable."""
    rising, hits = np.sort(probs), np.sort(probs[true > 0])
    n_above = len(rising) - np.searchsorted(rising, hits)
    return float(np.mean((len(hits) - np.searchsorted(hits, hits)) / n_above))


def mean_average_precision(precisions: np.ndarray) -> float:
    """Return mAP: the mean of average precisions (C,) over the classes that have images; nan for none."""
    return float(np.nanmean(precisions)) if np.isfinite(precisions).any() else float("nan")


def log_losses(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return (N,) the binary cross-entropy of each row of (N, C), summed over its known labels, in nats."""
    step, found = max(1, CHUNK // probs.shape[1]), []
    for first in range(0, max(1, len(probs)), step):
        rows = slice(first, first + step)
        p, true = np.clip(probs[rows].astype(np.float64), EPS, 1 - EPS), targets[rows]
        losses = np.where(true, np.log(p), np.log1p(-p))
        found.append(-(losses if true.dtype.kind != "f" else np.where(np.isnan(true), 0, losses)).sum(1))
    return np.concatenate(found)

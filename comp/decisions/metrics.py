"""F-beta, average precision, log loss. F-beta is scikit-learn's `fbeta_score`, fast enough for threshold
searches."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score

from comp.config.competition import Metric
from comp.decisions.calibration import EPS


@dataclass(frozen=True)
class FBeta:
    """Mean F-beta, as scikit-learn's `fbeta_score` defines it.

    It is averaged over images ("samples") or classes ("macro"), or computed from pooled counts ("micro").
    `zero_division` is the value of 0/0, the score of an image without true and without chosen labels under
    "samples"."""

    beta: float = 2.0
    average: str = "samples"
    zero_division: float = 0.0  # for "samples" only

    @classmethod
    def from_metric(cls, metric: Metric) -> "FBeta":
        """Return the F-beta of a competition's metric. With one true and one chosen label per image, F-beta
        is 1 where they agree and 0 elsewhere, so its mean over images is the accuracy."""
        if metric.average == "accuracy":
            return cls(1.0, "samples")
        return cls(metric.beta, metric.average, metric.zero_division)

    def score(self, targets: np.ndarray, decisions: np.ndarray) -> float:
        """Return the score of 0/1 matrices (N, C)."""
        true, chosen = targets.astype(bool), decisions.astype(bool)
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
        counts = _counts(targets.astype(bool), decisions.astype(bool), 0)
        return FBeta(self.beta, "macro").score_counts(*counts)


def most_probable(probs: np.ndarray) -> np.ndarray:
    """Return decisions (N, C) 0/1: the most probable label of each row; ties go to the first."""
    return (np.arange(probs.shape[1]) == probs.argmax(1)[:, None]).astype(np.uint8)


def _counts(true: np.ndarray, chosen: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (true & chosen).sum(axis), chosen.sum(axis), true.sum(axis)


def average_precisions(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return (C,) the average precision of each class; nan for a class without images."""
    pairs = zip(targets.T, probs.T)
    return np.array([average_precision_score(true, p) if true.any() else np.nan for true, p in pairs])


def mean_average_precision(precisions: np.ndarray) -> float:
    """Return mAP: the mean of average precisions (C,) over the classes that have images; nan for none."""
    return float(np.nanmean(precisions)) if np.isfinite(precisions).any() else float("nan")


def log_losses(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return (N,) the binary cross-entropy of each row of (N, C), summed over its labels, in nats."""
    p = np.clip(probs.astype(np.float64), EPS, 1 - EPS)
    return -np.where(targets, np.log(p), np.log1p(-p)).sum(1)

"""Metrics by name, for every kind of answer. Targets and answers are (N, C); unknown targets are NaN and left
out. Definitions are scikit-learn's where it has one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, cohen_kappa_score

from comp.config.competition import Competition
from comp.config.metric import Answer, Metric
from comp.decisions.metrics import FBeta
from comp.errors import CompError, summarize
from comp.user_code import as_users_error, is_reference, load_function

CLIP = 1e-15  # probabilities are clipped to CLIP … 1 - CLIP before their logarithm, as Kaggle does


class Scorer(Protocol):
    """What scores answers (N, C) against targets (N, C)."""

    @property
    def metric(self) -> Metric: ...

    @property
    def answer(self) -> Answer: ...

    @property
    def sign(self) -> int:
        """1 where a higher score is better, else -1."""

    def score(self, targets: np.ndarray, answers: np.ndarray) -> float:
        """Return the leaderboard's score."""

    def per_class(self, targets: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """Return (C,) the score of each class alone; NaN where it is not defined."""


@dataclass(frozen=True)
class _OfMetric:
    """What all scorers but F-beta share."""

    metric: Metric

    @property
    def answer(self) -> Answer:
        return self.metric.kind

    @property
    def sign(self) -> int:
        return 1 if self.metric.greater_is_better else -1


@dataclass(frozen=True)
class ColumnScorer(_OfMetric):
    """The mean of a score over the columns that have one, weighted; or, with `pooled`, the score of all cells
    together."""

    of_column: Callable[[np.ndarray, np.ndarray], float]
    weights: tuple[float, ...] | None = None  # (C,)
    pooled: bool = False

    def per_class(self, targets: np.ndarray, answers: np.ndarray) -> np.ndarray:
        known = known_cells(targets)
        return np.array(
            [
                self.of_column(t[k], a[k]) if k.any() else np.nan
                for t, a, k in zip(targets.T, answers.T, known.T)
            ]
        )

    def score(self, targets: np.ndarray, answers: np.ndarray) -> float:
        if self.pooled:
            known = known_cells(targets)
            return self.of_column(targets[known], answers[known])
        return float(self.mean(self.per_class(targets, answers)))

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Return (…) the weighted mean of values (…, C) over the columns that have one; NaN for none."""
        weights = np.ones(values.shape[-1]) if self.weights is None else np.array(self.weights)
        weights = np.where(np.isnan(values), 0, weights)
        total = weights.sum(-1)
        return np.where(total > 0, np.nansum(values * weights, -1) / np.where(total > 0, total, 1), np.nan)


@dataclass(frozen=True)
class RowScorer(_OfMetric):
    """The mean of a score over the images that have one. `of_rows` returns (N,) values of (N, C) targets and
    answers."""

    of_rows: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def score(self, targets: np.ndarray, answers: np.ndarray) -> float:
        return float(np.nanmean(self.rows(targets, answers))) if known_rows(targets).any() else float("nan")

    def rows(self, targets: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """Return (N,) the score of each image; NaN where a target is unknown."""
        known, values = known_rows(targets), np.full(len(targets), np.nan)
        values[known] = self.of_rows(targets[known], answers[known])
        return values

    def per_class(self, targets: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """Return (C,) the mean over the images that have the class."""
        rows, columns = np.nonzero((targets > 0) & known_rows(targets)[:, None])
        n, values = np.bincount(columns, minlength=targets.shape[1]), self.rows(targets, answers)[rows]
        sums = np.bincount(columns, values, minlength=len(n))
        return np.where(n > 0, sums / np.maximum(n, 1), np.nan)


@dataclass(frozen=True)
class WholeScorer(_OfMetric):
    """A score of all images and classes together. `of_all` gets only images whose targets are all known."""

    of_all: Callable[[np.ndarray, np.ndarray], float]
    of_class: Callable[[np.ndarray, np.ndarray], float] | None = None  # of one class's targets and answers

    def score(self, targets: np.ndarray, answers: np.ndarray) -> float:
        known = known_rows(targets)
        return float(self.of_all(targets[known], answers[known])) if known.any() else float("nan")

    def per_class(self, targets: np.ndarray, answers: np.ndarray) -> np.ndarray:
        if self.of_class is None:
            return np.full(targets.shape[1], np.nan)
        known = known_rows(targets)
        return np.array([self.of_class(t, a) for t, a in zip(targets[known].T, answers[known].T)])


def known_cells(targets: np.ndarray) -> np.ndarray:
    """Return (N, C) whether each target is known."""
    if targets.dtype.kind == "f":
        return np.asarray(~np.isnan(targets))
    return np.broadcast_to(np.array(True), targets.shape)


def known_rows(targets: np.ndarray) -> np.ndarray:
    """Return (N,) whether all targets of an image are known."""
    return np.asarray(known_cells(targets).all(1))


def make_scorer(
    competition: Competition, classes: Sequence[str], code: dict[str, str] | None = None
) -> Scorer:
    """Return the scorer of a competition's metric. `classes` (C,) are its labels in order, `code` the texts
    of the files of one's own. Raise CompError for weights of unknown labels."""
    metric, single = competition.metric, competition.labels.single
    if metric.name in ("fbeta", "accuracy"):
        return FBeta.from_metric(metric)
    if unknown := sorted(set(metric.weights) - set(classes)):
        raise CompError(f"metric.weights names {summarize(unknown)}; the labels are {summarize(classes)}")
    return scorer_of(
        metric, single=single, weights=[metric.weights.get(name, 1.0) for name in classes], code=code
    )


def scorer_of(
    metric: Metric,
    *,
    single: bool = False,
    weights: Sequence[float] = (),
    code: dict[str, str] | None = None,
) -> Scorer:
    """Return the scorer of a metric. With `single` each image has exactly one label, and log loss is over
    classes. `weights` (C,) weigh the columns."""
    if metric.name in ("fbeta", "accuracy"):
        return FBeta.from_metric(metric)
    of_columns = {
        "roc_auc": roc_auc,
        "average_precision": average_precision,
        "log_loss": log_loss,
        "probabilistic_fbeta": lambda t, a: probabilistic_fbeta(t, a, metric.beta),
        "rmse": lambda t, a: float(np.sqrt(np.mean(np.square(a - t)))),
        "mae": lambda t, a: float(np.mean(np.abs(a - t))),
        "r2": r2,
        "within": lambda t, a: float(np.mean(np.abs(a - t) <= metric.tolerance)),
    }
    if metric.name == "log_loss" and single:
        weighted = np.array(weights or 1.0)
        if np.any(weighted != 1):
            return WholeScorer(metric, lambda t, a: weighted_log_loss(t, a, weighted))
        return RowScorer(metric, log_loss_over_classes)
    if metric.name in of_columns:
        pooled = metric.average == "micro"
        return ColumnScorer(metric, of_columns[metric.name], tuple(weights) or None, pooled)
    if metric.name == "map_at_k":
        return RowScorer(metric, lambda t, a: average_precisions_at(t, a, metric.k))
    if metric.name == "top_k_error":
        return RowScorer(metric, lambda t, a: 1.0 - hits_at(t, a, metric.k))
    if metric.name == "balanced_accuracy":
        return WholeScorer(metric, balanced_accuracy, recall)
    if metric.name == "quadratic_kappa":
        return WholeScorer(metric, quadratic_kappa, recall)
    return WholeScorer(metric, own_metric(metric.name, code or {}))


def without_code(metric: Metric) -> Scorer:
    """Return the scorer of a metric; of one's own, whose file is not at hand, one that can't score."""
    if not is_reference(metric.name):
        return scorer_of(metric)

    def refuse(targets: np.ndarray, answers: np.ndarray) -> float:
        raise CompError(f"{metric.name} is not at hand; give the metric to Decision.load")

    return WholeScorer(metric, refuse)


def own_metric(reference: str, code: dict[str, str]) -> Callable[[np.ndarray, np.ndarray], float]:
    """Return a user's function of targets (N, C) and answers (N, C). Raise CompError, with the user's line,
    for an error in it and for anything but a finite number."""
    function = load_function(reference, code, "targets", "answers")

    def score(targets: np.ndarray, answers: np.ndarray) -> float:
        try:
            value = function(targets, answers)
        except Exception as error:
            raise as_users_error(error, reference) from error
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not np.isfinite(number):
            raise CompError(f"{reference} returned {value!r:.60}; a finite number is expected")
        return number

    return score


# --- of one column -----------------------------------------------------------------------------------------


def roc_auc(true: np.ndarray, probs: np.ndarray) -> float:
    """Return the area under the ROC curve by ranks (Mann and Whitney 1947); scikit-learn's value, or
    NaN unless both values occur."""
    positive = true > 0.5
    n_positive, n = int(positive.sum()), len(true)
    if not 0 < n_positive < n:
        return float("nan")
    ranks = rankdata(probs)[positive].sum()
    return float((ranks - n_positive * (n_positive + 1) / 2) / (n_positive * (n - n_positive)))


def average_precision(true: np.ndarray, probs: np.ndarray) -> float:
    """Return scikit-learn's `average_precision_score`; NaN without a positive row."""
    return float(average_precision_score(true > 0.5, probs)) if (true > 0.5).any() else float("nan")


def log_loss(true: np.ndarray, probs: np.ndarray) -> float:
    """Return the mean binary cross-entropy in nats."""
    p = np.clip(np.asarray(probs, np.float64), CLIP, 1 - CLIP)
    return float(-np.mean(true * np.log(p) + (1 - true) * np.log1p(-p)))


def probabilistic_fbeta(true: np.ndarray, probs: np.ndarray, beta: float) -> float:
    """Return F-beta with probabilities in place of decisions (Yacouby and Axman 2020); 0 without a hit."""
    positive = true > 0.5
    hits, chosen = float(probs[positive].sum()), float(probs.sum())
    below = chosen + beta**2 * positive.sum()
    return float((1 + beta**2) * hits / below) if below else 0.0


def r2(true: np.ndarray, numbers: np.ndarray) -> float:
    """Return scikit-learn's `r2_score`; NaN where all targets are equal."""
    spread = float(np.square(true - true.mean()).sum())
    return 1 - float(np.square(numbers - true).sum()) / spread if spread else float("nan")


def recall(true: np.ndarray, chosen: np.ndarray) -> float:
    """Return the share of a class's images that were given it; NaN without images."""
    has = true > 0.5
    return float((chosen[has] > 0.5).mean()) if has.any() else float("nan")


# --- of rows -----------------------------------------------------------------------------------------------


def log_loss_over_classes(targets: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Return (N,) the cross-entropy in nats of rows with one label. A row's probabilities are divided by
    their sum, as scikit-learn's `log_loss` does."""
    p = np.asarray(probs, np.float64)
    p = np.clip(p / p.sum(1, keepdims=True).clip(min=CLIP), CLIP, 1 - CLIP)
    return -np.log(np.where(targets > 0.5, p, 1.0)).sum(1)


def weighted_log_loss(targets: np.ndarray, probs: np.ndarray, weights: np.ndarray) -> float:
    """Return the mean cross-entropy over rows, each weighted by its label's weight."""
    of_row = (targets * weights).sum(1)
    return float((log_loss_over_classes(targets, probs) * of_row).sum() / of_row.sum())


def first_classes(answers: np.ndarray, k: int) -> np.ndarray:
    """Return (N, k) the columns of the k likeliest classes in order; ties go to the first."""
    k = min(k, answers.shape[1])
    return np.argsort(-np.asarray(answers, np.float64), axis=1, kind="stable")[:, :k]


def average_precisions_at(targets: np.ndarray, answers: np.ndarray, k: int) -> np.ndarray:
    """Return (N,) the average precision at k of each row: the mean over its true labels, k at most, of the
    precision at each one's place."""
    hits = np.take_along_axis(np.asarray(targets), first_classes(answers, k), 1) > 0.5
    precision = hits.cumsum(1) / np.arange(1, hits.shape[1] + 1)
    return (precision * hits).sum(1) / np.clip((targets > 0.5).sum(1), 1, k)


def hits_at(targets: np.ndarray, answers: np.ndarray, k: int) -> np.ndarray:
    """Return (N,) 1 where a true label is among the k likeliest, else 0."""
    return (np.take_along_axis(np.asarray(targets), first_classes(answers, k), 1) > 0.5).any(1).astype(float)


# --- of all ------------------------------------------------------------------------------------------------


def balanced_accuracy(targets: np.ndarray, chosen: np.ndarray) -> float:
    """Return the mean recall of the classes that have images, as scikit-learn's `balanced_accuracy_score`."""
    return float(np.nanmean([recall(t, c) for t, c in zip(targets.T, chosen.T)]))


def quadratic_kappa(targets: np.ndarray, chosen: np.ndarray) -> float:
    """Return scikit-learn's `cohen_kappa_score` with quadratic weights, of one grade per row."""
    true, given = targets.argmax(1), chosen.argmax(1)
    if (true == true[0]).all() and (given == given[0]).all():
        return float(true[0] == given[0])
    return float(cohen_kappa_score(true, given, weights="quadratic", labels=np.arange(targets.shape[1])))

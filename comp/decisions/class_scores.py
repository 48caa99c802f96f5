"""Scores of each class alone, as tables show them, for every kind of answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from comp.decisions.metrics import average_precisions
from comp.decisions.scorers import Scorer, known_cells, log_loss, r2, recall, roc_auc
from comp.user_code import is_reference

OfColumn = Callable[[np.ndarray, np.ndarray], float]
RMSE: OfColumn = lambda t, a: float(np.sqrt(np.mean(np.square(a - t))))  # noqa: E731
MAE: OfColumn = lambda t, a: float(np.mean(np.abs(a - t)))  # noqa: E731


def own_column(scorer: Scorer) -> str:
    """Return the name of `per_class` of a metric; "" for a user's own metric."""
    metric = scorer.metric
    recalls = dict.fromkeys(("balanced_accuracy", "quadratic_kappa"), "recall")
    names = {"fbeta": f"F{metric.beta:g}", "roc_auc": "AUC", "average_precision": "AP", **recalls}
    return "" if is_reference(metric.name) else names.get(metric.name, str(metric))


@dataclass(frozen=True)
class OwnScores:
    """The score of each class alone by the metric; by its kind's usual one where the metric has none."""

    name: str
    sign: int  # 1 where a higher score is better, else -1
    values: np.ndarray  # (C,) NaN where a score is not defined


def own_scores(scorer: Scorer, targets: np.ndarray, answers: np.ndarray) -> OwnScores:
    """Return the score of each class alone. Targets and answers are (N, C)."""
    values = scorer.per_class(targets, answers)
    if np.isfinite(values).any():
        return OwnScores(own_column(scorer), scorer.sign, values)
    if scorer.answer == "numbers":
        return OwnScores("RMSE", -1, of_columns(RMSE, targets, answers))
    if scorer.answer in ("grades", "labels"):
        return OwnScores("recall", 1, of_columns(recall, targets, answers))
    return OwnScores("AP", 1, average_precisions(answers, targets))


def of_columns(of_column: OfColumn, targets: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return (C,) a score of each column, of its known targets; NaN for none."""
    known = known_cells(targets)
    return np.array(
        [of_column(t[k], a[k]) if k.any() else np.nan for t, a, k in zip(targets.T, answers.T, known.T)]
    )


def n_images(scorer: Scorer, targets: np.ndarray) -> np.ndarray:
    """Return (C,) how many images have each class or, of numbers, a known one."""
    if scorer.answer == "numbers":
        return (~np.isnan(targets)).sum(0)
    return np.nansum(targets, 0).astype(int)


def class_scores(
    scorer: Scorer, probs: np.ndarray, targets: np.ndarray, answers: np.ndarray, classes: Sequence[str]
) -> pd.DataFrame:
    """Return a row per class with its images and scores; NaN where a score is not defined. All arrays are
    (N, C): probabilities or numbers, targets, and cross-fitted answers."""
    index, columns = pd.Index(classes, name="label"), dict[str, object](images=n_images(scorer, targets))
    if scorer.answer == "numbers":
        columns |= {
            "mean": np.nanmean(targets, axis=0),
            "RMSE": of_columns(RMSE, targets, answers),
            "MAE": of_columns(MAE, targets, answers),
            "R²": of_columns(r2, targets, answers),
        }
        return pd.DataFrame(columns, index)
    if scorer.answer == "probabilities":
        columns |= {
            "AUC": of_columns(roc_auc, targets, probs),
            "AP": average_precisions(np.asarray(probs), np.asarray(targets)),
            "log loss": of_columns(log_loss, targets, answers),
        }
    elif scorer.answer == "grades":
        columns |= {"given": answers.sum(0, dtype=int), "recall": of_columns(recall, targets, answers)}
    elif scorer.answer == "ranking":
        columns |= {str(scorer.metric): scorer.per_class(targets, answers)}
    else:
        columns |= {"AP": average_precisions(probs, targets)}
        if own := own_column(scorer):
            columns |= {own: scorer.per_class(targets, answers)}
    return pd.DataFrame(columns, index)

"""The numbers of the report."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from comp.artifacts.resumable import read_log
from comp.data.labels import groups_of
from comp.decisions.metrics import fbeta, most_probable, precision_per_class, score
from comp.decisions.rules import Fitted, is_single
from comp.evaluation.results import Outcome
from comp.evaluation.run_metadata import Origin
from comp.safe_text import visible

N_POINTS = 160  # of a curve
N_BINS = 10
MOST_DRAWN = 60  # classes with curves
MOST_OF_NAME = 80  # characters
SURE = 4.0  # standard errors, and
FAR = 1.2  # this ratio: from there on two shares differ


def scores(outcome: Outcome) -> list[dict[str, Any]]:
    """The three scores of the rule that was taken, each over all rows and by fold. The default: 0.5 for all
    labels, or the most probable one."""
    settings = outcome.recipe.competition.metric.settings
    options = {"beta": settings["beta"], "empty": settings.get("empty", 0.0)}
    groups = groups_of(outcome.recipe.competition.labels, outcome.labels.classes)
    if is_single(outcome.targets, groups):
        default = most_probable(outcome.probs)
    else:
        half = Fitted(np.full(outcome.probs.shape[1], 0.5), least=outcome.fitted.least)
        default = half.decide(outcome.probs, **options)
    in_sample = outcome.fitted.decide(outcome.probs, **options)
    kinds = {"cross_fitted": outcome.decisions, "in_sample": in_sample, "default": default}
    said = outcome.decision["scores"]
    return [
        {
            "name": name,
            "value": said[name],
            "folds": [
                {"fold": int(fold), "value": fbeta(outcome.targets[part], decisions[part], **settings)}
                for fold in np.unique(outcome.folds)
                if (part := outcome.folds == fold).any()
            ],
        }
        for name, decisions in kinds.items()
    ]


def curves(origins: Sequence[Origin]) -> list[dict[str, Any]]:
    """The log of each network that there is, an epoch a row; fold None is that of all images."""
    found = []
    for origin in origins:
        for fold in origin.folds:
            if (rows := read_log(origin.name, fold)) and origin.recipe:
                name = fold if fold < origin.recipe.n_folds else None
                found.append({"run": origin.name, "fold": name, "rows": rows})
    return found


def by_class(outcome: Outcome) -> list[dict[str, Any]]:
    """For each class its count, average precision, what its cross-fitted decisions are worth, its threshold
    as fitted to all and without each part, and of the commonest F-beta at other thresholds and calibration.
    """
    probs, targets, decisions = outcome.probs, outcome.targets, outcome.decisions
    beta, fitted = outcome.recipe.competition.metric.settings["beta"], outcome.fitted
    rows, drawn = [], set(commonest(targets, MOST_DRAWN))
    precision = precision_per_class(probs, targets)
    for c, name in enumerate(outcome.labels.classes):
        true, chosen, p = targets[:, c].astype(bool), decisions[:, c].astype(bool), probs[:, c]
        n, hits, n_chosen = int(true.sum()), int((true & chosen).sum()), int(chosen.sum())
        threshold, without = fitted.threshold_of(c), outcome.decision["thresholds_by_fold"][name]
        rows.append(
            {
                "name": visible(name, MOST_OF_NAME),
                "n": n,
                "ap": float(precision[c]) if n else None,
                "precision": hits / n_chosen if n_chosen else None,
                "recall": hits / n if n else None,
                "f": float(score(np.array(hits), np.array(n_chosen), np.array(n), beta)),
                "misses": n - hits,
                "alarms": n_chosen - hits,
                "threshold": threshold,
                "by_part": [rule.threshold_of(c) for rule in outcome.rules.values()],
                "by_fold": [] if threshold is None else without,
                "spread": None if threshold is None else float(np.std(without)),
                "curve": f_curve(p, true, beta) if c in drawn else None,
                "calibration": calibration(p, true) if c in drawn else None,
            }
        )
    return rows


def commonest(targets: np.ndarray, n_most: int) -> list[int]:
    """The classes (n_most of them) that most images have, in their order."""
    return sorted(np.argsort(-targets.sum(0, dtype=int), kind="stable")[:n_most].tolist())


def f_curve(probs: np.ndarray, true: np.ndarray, beta: float) -> list[tuple[float, float]]:
    """F-beta of one class (N,) at thresholds from 0 to 1, [threshold, F-beta]."""
    falling = np.sort(probs)[::-1]
    hits = np.concatenate([[0], np.cumsum(true[np.argsort(-probs, kind="stable")])])
    thresholds = np.linspace(0, 1, N_POINTS + 1)[:-1]
    n_chosen = np.searchsorted(-falling, -thresholds, side="left")  # those above it
    values = score(hits[n_chosen], n_chosen, np.array(true.sum()), beta)
    return [(round(float(t), 4), round(float(v), 4)) for t, v in zip(thresholds, values)]


def calibration(probs: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """Bins of equal width: mean probability, share of images that have the label, their number. The error is
    the mean difference of the two, weighted by images (expected calibration error, Naeini et al. 2015)."""
    at = np.minimum((probs * N_BINS).astype(int), N_BINS - 1).ravel()
    n = np.bincount(at, minlength=N_BINS)
    total = np.bincount(at, weights=probs.ravel().astype(float), minlength=N_BINS)
    n_true = np.bincount(at, weights=true.ravel().astype(float), minlength=N_BINS)
    bins = [
        {"p": float(total[b] / n[b]), "share": float(n_true[b] / n[b]), "n": int(n[b])}
        for b in np.flatnonzero(n).tolist()
    ]
    return {"bins": bins, "error": float(np.abs(total - n_true).sum() / max(1, n.sum()))}


def together(targets: np.ndarray) -> np.ndarray:
    """(C, C) int: how many images have both labels; on the diagonal, the label."""
    matrix = targets.astype(np.float32)
    return (matrix.T @ matrix).round().astype(int)


def drift(outcome: Outcome, test_decisions: np.ndarray) -> list[dict[str, Any]]:
    """For each class the share of held-out images and of test images (M, C) that are given the label, and
    whether they differ by more than chance and enough to matter."""
    n, m = len(outcome.decisions), len(test_decisions)
    rows = []
    for c, name in enumerate(outcome.labels.classes):
        a, b = int(outcome.decisions[:, c].sum()), int(test_decisions[:, c].sum())
        pooled = (a + b) / (n + m)
        error = (pooled * (1 - pooled) * (1 / n + 1 / m)) ** 0.5
        far = max(a / n, b / m) > FAR * min(a / n, b / m)
        warn = bool(far and error and abs(a / n - b / m) > SURE * error)
        true = float(outcome.targets[:, c].mean())
        shown = visible(name, MOST_OF_NAME)
        rows.append({"name": shown, "true": true, "held_out": a / n, "test": b / m, "warn": warn})
    return rows

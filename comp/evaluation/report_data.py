"""The numbers of the report."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from comp.artifacts.paths import test_path
from comp.artifacts.predictions import aligned, load
from comp.artifacts.resumable import read_log
from comp.data.labels import exclusive_groups
from comp.decisions.metrics import (
    FBeta,
    average_precisions,
    log_losses,
    mean_average_precision,
    most_probable,
)
from comp.decisions.rules import FittedRule, is_single_label
from comp.evaluation.results import RunResults
from comp.evaluation.run_metadata import RunMetadata
from comp.safe_text import visible

N_POINTS = 160  # of a curve
N_BINS = 10  # of a calibration curve
MAX_CURVES = 60  # classes with curves
MAX_PAIRED = 40  # classes in the matrix of labels that occur count_cooccurrences
MAX_NAME = 80  # characters
# shares of a label that differ by more than this count as drift
DRIFT_ERRORS = 4.0  # standard errors of the difference, and
DRIFT_RATIO = 1.2  # of the larger to the smaller share


def report_data(results: RunResults, members: Sequence[RunMetadata]) -> dict[str, Any]:
    """Return all that the report shows but the images."""
    recipe, classes = results.recipe, results.labels.classes
    competition = recipe.competition
    path = test_path(recipe.name)
    test_ids = results.data.sample_ids(competition)
    metric = FBeta.from_metric(competition.metric)
    test = aligned(load(path, classes), test_ids, path)
    decided = results.fitted.decide(test, metric)
    rows, common = by_class(results), most_common_classes(results.targets, MAX_PAIRED)
    return {
        "name": recipe.name,
        "competition": competition.title or competition.name,
        "metric": str(competition.metric),
        "beta": metric.beta,
        "single": has_single_label(results),
        "rule": results.decision["rule"],
        "rules": rules_by_part(results.decision),
        "networks": [[m.recipe.backbone, *m.views] for m in members if m.recipe],
        "n_rows": len(results.rows),
        "n_test": len(test_ids),
        "n_folds": len(np.unique(results.folds)),
        "scores": scores(results),
        "mean_ap": mean_average_precision(average_precisions(results.probs, results.targets)),
        "log_loss": float(log_losses(results.probs, results.targets).mean() / len(classes)),
        "curves": curves(members),
        "classes": rows,
        "calibration": calibration(results.probs, results.targets),
        "together": {
            "classes": common,
            "true": count_cooccurrences(results.targets[:, common]).tolist(),
            "decided": count_cooccurrences(results.decisions[:, common]).tolist(),
        },
        "drift": drift(results, decided),
        "labels_an_image": {
            "true": float(results.targets.sum(1).mean()),
            "held_out": float(results.decisions.sum(1).mean()),
            "test": float(decided.sum(1).mean()),
        },
    }


def rules_by_part(decision: dict[str, Any]) -> dict[str, list[str]]:
    """Return the names of the rules that made the cross-fitted decisions, each with its parts."""
    found: dict[str, list[str]] = {}
    for part, rule in (decision.get("by_fold") or decision["by_fifth"]).items():
        found.setdefault(rule["rule"], []).append(part)
    return found


def scores(results: RunResults) -> list[dict[str, Any]]:
    """Return the three scores of the chosen rule, each over all rows and by fold. The default score is that
    of 0.5 for all labels or, with exactly one label per image, of the most probable one."""
    metric = FBeta.from_metric(results.recipe.competition.metric)
    if has_single_label(results):
        default = most_probable(results.probs)
    else:
        half = FittedRule(np.full(results.probs.shape[1], 0.5), min_labels=results.fitted.min_labels)
        default = half.decide(results.probs, metric)
    in_sample = results.fitted.decide(results.probs, metric)
    kinds = {"cross_fitted": results.decisions, "in_sample": in_sample, "default": default}
    said = results.decision["scores"]
    return [
        {
            "name": name,
            "value": said[name],
            "folds": [
                {"fold": int(fold), "value": metric.score(results.targets[part], decisions[part])}
                for fold in np.unique(results.folds)
                if (part := results.folds == fold).any()
            ],
        }
        for name, decisions in kinds.items()
    ]


def has_single_label(results: RunResults) -> bool:
    """Return whether each image has exactly one label."""
    groups = exclusive_groups(results.recipe.competition.labels, results.labels.classes)
    return is_single_label(results.targets, groups)


def curves(members: Sequence[RunMetadata]) -> list[dict[str, Any]]:
    """Return the log of each network, a row per epoch. Fold None is the network of all images."""
    found = []
    for member in members:
        for fold in member.folds:
            if (rows := read_log(member.name, fold)) and member.recipe:
                name = fold if fold < member.recipe.n_folds else None
                found.append({"run": member.name, "fold": name, "rows": rows})
    return found


def by_class(results: RunResults) -> list[dict[str, Any]]:
    """Return for each class its count, its average precision, the scores of its cross-fitted decisions, its
    thresholds as fitted to all rows and without each part, and for the most common classes curves of F-beta
    and of calibration."""
    probs, targets, decisions = results.probs, results.targets, results.decisions
    alone, fitted = FBeta(FBeta.from_metric(results.recipe.competition.metric).beta, "macro"), results.fitted
    rows, with_curves = [], set(most_common_classes(targets, MAX_CURVES))
    precision = average_precisions(probs, targets)
    for c, name in enumerate(results.labels.classes):
        true, chosen, p = targets[:, c].astype(bool), decisions[:, c].astype(bool), probs[:, c]
        n, hits, n_chosen = int(true.sum()), int((true & chosen).sum()), int(chosen.sum())
        threshold, without = fitted.threshold_of(c), results.decision["thresholds_by_fold"][name]
        rows.append(
            {
                "name": visible(name, MAX_NAME),
                "n": n,
                "ap": float(precision[c]) if n else None,
                "precision": hits / n_chosen if n_chosen else None,
                "recall": hits / n if n else None,
                "f": float(alone.score_counts(np.array(hits), np.array(n_chosen), np.array(n))),
                "misses": n - hits,
                "alarms": n_chosen - hits,
                "threshold": threshold,
                "by_part": [rule.threshold_of(c) for rule in results.rules.values()],
                "by_fold": [] if threshold is None else without,
                "spread": None if threshold is None else float(np.std(without)),
                "curve": f_curve(p, true, alone) if c in with_curves else None,
                "calibration": calibration(p, true) if c in with_curves else None,
            }
        )
    return rows


def most_common_classes(targets: np.ndarray, n_most: int) -> list[int]:
    """Return the n_most classes that most images have, in the order of the classes."""
    return sorted(np.argsort(-targets.sum(0, dtype=int), kind="stable")[:n_most].tolist())


def f_curve(probs: np.ndarray, true: np.ndarray, metric: FBeta) -> list[tuple[float, float]]:
    """Return [threshold, F-beta] of one class (N,) at thresholds from 0 to 1."""
    falling = np.sort(probs)[::-1]
    hits = np.concatenate([[0], np.cumsum(true[np.argsort(-probs, kind="stable")])])
    thresholds = np.linspace(0, 1, N_POINTS + 1)[:-1]
    n_chosen = np.searchsorted(-falling, -thresholds, side="left")  # how many are above it
    values = metric.score_counts(hits[n_chosen], n_chosen, np.array(true.sum()))
    return [(round(float(t), 4), round(float(v), 4)) for t, v in zip(thresholds, values)]


def calibration(probs: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """Return bins of equal width: mean probability, share of images that have the label, number of images.
    The error is the mean difference of the first two, weighted by the number of images (expected calibration
    error, Naeini et al. 2015)."""
    at = np.minimum((probs * N_BINS).astype(int), N_BINS - 1).ravel()
    n = np.bincount(at, minlength=N_BINS)
    total = np.bincount(at, weights=probs.ravel().astype(float), minlength=N_BINS)
    n_true = np.bincount(at, weights=true.ravel().astype(float), minlength=N_BINS)
    bins = [
        {"p": float(total[b] / n[b]), "share": float(n_true[b] / n[b]), "n": int(n[b])}
        for b in np.flatnonzero(n).tolist()
    ]
    return {"bins": bins, "error": float(np.abs(total - n_true).sum() / max(1, n.sum()))}


def count_cooccurrences(targets: np.ndarray) -> np.ndarray:
    """Return (C, C) int: how many images have both labels; on the diagonal, how many have the label."""
    matrix = targets.astype(np.float32)
    return (matrix.T @ matrix).round().astype(int)


def drift(results: RunResults, test_decisions: np.ndarray) -> list[dict[str, Any]]:
    """Return for each class the share of held-out images and of test images (M, C) that are given the label,
    and a warning where the two differ by more than chance and by enough to matter."""
    n, m = len(results.decisions), len(test_decisions)
    rows = []
    for c, name in enumerate(results.labels.classes):
        a, b = int(results.decisions[:, c].sum()), int(test_decisions[:, c].sum())
        pooled = (a + b) / (n + m)
        error = (pooled * (1 - pooled) * (1 / n + 1 / m)) ** 0.5
        far = max(a / n, b / m) > DRIFT_RATIO * min(a / n, b / m)
        warn = bool(far and error and abs(a / n - b / m) > DRIFT_ERRORS * error)
        true = float(results.targets[:, c].mean())
        shown = visible(name, MAX_NAME)
        rows.append({"name": shown, "true": true, "held_out": a / n, "test": b / m, "warn": warn})
    return rows

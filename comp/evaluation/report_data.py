"""The numbers of the report."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from comp import __version__
from comp.artifacts.paths import test_path
from comp.artifacts.predictions import aligned, by_answer, load
from comp.artifacts.resumable import read_log
from comp.data.labels import exclusive_groups
from comp.decisions.answer_rules import AnswerRule, Rule
from comp.decisions.class_scores import class_scores
from comp.decisions.metrics import (
    FBeta,
    average_precisions,
    log_losses,
    mean_average_precision,
    most_probable,
)
from comp.decisions.rules import FittedRule, is_single_label
from comp.evaluation.report_answers import (
    MAX_NAME,
    MAX_ROWS,
    confusion,
    drift,
    drift_of_means,
    grades,
    labels_for_counts,
    numbers,
    probabilities_of,
    ranking,
)
from comp.evaluation.report_curves import calibration, separation, short
from comp.evaluation.report_lab import threshold_lab
from comp.evaluation.report_tables import confusion_in_groups, scores_by_fold, weighed_rules
from comp.evaluation.results import RunResults
from comp.evaluation.run_metadata import RunMetadata
from comp.safe_text import visible
from comp.user_code import is_reference

MAX_CURVES = 60  # classes with curves
MAX_PAIRED = 40  # classes in the matrix of labels that occur together, or are taken for each other
OWN_TITLES = {  # of metrics whose score of each class is a column of class_scores by another name
    "roc_auc": "AUC",
    "average_precision": "AP",
    "quadratic_kappa": "recall",
}


def read_test_answers(results: RunResults) -> np.ndarray:
    """Return the probabilities or numbers (M, C) of the answers for test images: one for each image or, with
    labels.answer_id, one for several images."""
    recipe, data = results.recipe, results.data
    path = test_path(recipe.name)
    found = aligned(load(path, results.labels.classes), data.test_ids(recipe.competition), path)
    if (answer_of := data.test_answer_ids(recipe.competition)) is None:
        return found
    return by_answer(found, answer_of, np.unique(answer_of), recipe.competition.submission.aggregate)


def report_data(results: RunResults, members: Sequence[RunMetadata], test: np.ndarray) -> dict[str, Any]:
    """Return all that the report shows but the images. `test` (M, C) are the probabilities or numbers of the
    test images."""
    recipe, targets = results.recipe, results.targets
    competition, answer = recipe.competition, results.scorer.answer
    decided, single = results.fitted.decide(test, results.scorer), has_single_label(results)
    frame = None if answer == "labels" else score_frame(results)
    rows, shown = by_class(results, frame)
    with_curves = most_common_classes(targets, MAX_CURVES)
    common = most_common_classes(targets, MAX_PAIRED)
    found = {
        "name": recipe.name,
        "competition": competition.title or competition.name,
        "metric": str(competition.metric),
        "metric_key": "score" if is_reference(competition.metric.name) else competition.metric.name,
        "answer": answer,
        "greater_is_better": results.scorer.sign > 0,
        "beta": alone(results).beta,
        "single": single,
        "rule": results.decision["rule"],
        "rules": rules_by_part(results.decision),
        "networks": [[m.recipe.backbone, *m.views] for m in members if m.recipe],
        "n_rows": len(results.rows),
        "n_test": len(test),
        "n_folds": len(np.unique(results.folds)),
        "scores": scores(results),
        "curves": curves(members),
        "classes": rows,
        "shown": shown,
        "columns": [] if frame is None else frame.columns[1:].tolist(),
        "own_column": None if frame is None else own_column_of(results, frame),
        "n_unknown": int(np.isnan(targets).sum()),
        "weighed": weighed_rules(results.decision),
        "by_fold": scores_by_fold(results, shown),
        "version": __version__,
        "lab": threshold_lab(results, with_curves),
    }
    if answer == "numbers":
        found["numbers"] = numbers(results, recipe.seed)
        found["drift"] = drift_of_means(results, decided, shown, with_curves)
        return found
    chosen = labels_for_counts(results, single=single)
    if answer in ("labels", "probabilities"):
        probs, known = probabilities_of(results), ~np.isnan(targets)
        losses = log_losses(probs, targets).mean() / (known.sum() / len(known))
        found |= {
            "mean_ap": short_mean_ap(probs, targets),
            "log_loss": float(losses),
            "calibration": calibration(probs, targets),
        }
    if answer == "labels":
        found["labels_an_image"] = {
            "true": float(np.nansum(targets, 1).mean()),
            "held_out": float(chosen.sum(1).mean()),
            "test": float(decided.sum(1).mean()),
        }
    if single and answer != "ranking":
        found["confusion"] = confusion(targets, chosen, common)
    elif answer == "labels":
        found["groups"] = confusion_in_groups(results)
        true, given = targets[:, common], results.decisions[:, common]
        found["together"] = {
            "classes": common,
            "true": count_cooccurrences(np.nan_to_num(true)).tolist(),
            "decided": count_cooccurrences(np.where(np.isnan(true), 0, given)).tolist(),
        }
    if answer == "grades":
        found["grades"] = grades(results, test, common)
    if answer == "ranking":
        found["ranking"] = ranking(results)
        decided = most_probable(decided)
    if answer == "probabilities":
        found["drift"] = drift_of_means(results, decided, shown, with_curves)
    else:
        found["drift"] = drift(results, decided, shown, chosen)
    return found


def short_mean_ap(probs: np.ndarray, targets: np.ndarray) -> float | None:
    """Return the mean average precision; None where no class has images."""
    value = mean_average_precision(average_precisions(probs, targets))
    return value if np.isfinite(value) else None


def alone(results: RunResults) -> FBeta:
    """Return the F-beta by which each label alone is shown; F1 where the metric is another."""
    metric = results.recipe.competition.metric
    return FBeta(metric.beta if metric.name == "fbeta" else 1.0, "macro")


def rules_by_part(decision: dict[str, Any]) -> dict[str, list[str]]:
    """Return the names of the rules that made the cross-fitted decisions, each with its parts."""
    found: dict[str, list[str]] = {}
    for part, rule in (decision.get("by_fold") or decision["by_fifth"]).items():
        found.setdefault(rule["rule"], []).append(part)
    return found


def scores(results: RunResults) -> list[dict[str, Any]]:
    """Return the three scores of the chosen rule, each over all rows and by fold. The default score is that
    of 0.5 for all labels; with exactly one label or a grade per image, of the most probable one; else of the
    answers as they are. Where nothing is fitted all three are the same, and only the first is returned."""
    default: Rule
    if results.scorer.answer != "labels":
        default = AnswerRule(results.scorer.answer, results.probs.shape[1])
    else:
        default = FittedRule(np.full(results.probs.shape[1], 0.5), min_labels=results.fitted.min_labels)
    by_default = (
        most_probable(results.probs)
        if results.scorer.answer == "labels" and has_single_label(results)
        else default.decide(results.probs, results.scorer)
    )
    in_sample = results.fitted.decide(results.probs, results.scorer)
    kinds = {"cross_fitted": results.decisions, "in_sample": in_sample, "default": by_default}
    if set(rules_by_part(results.decision)) | {results.decision["rule"]} == {"as-is"}:
        kinds = {"cross_fitted": results.decisions}
    said = results.decision["scores"]
    return [
        {
            "name": name,
            "value": said[name],
            "folds": [
                {"fold": int(fold), "value": value if np.isfinite(value) else None}
                for fold in np.unique(results.folds)
                if (part := results.folds == fold).any()
                for value in (results.scorer.score(results.targets[part], decisions[part]),)
            ],
        }
        for name, decisions in kinds.items()
    ]


def has_single_label(results: RunResults) -> bool:
    """Return whether each image has exactly one label."""
    groups = exclusive_groups(results.recipe.competition.labels, results.labels.classes)
    return results.scorer.answer != "numbers" and is_single_label(results.targets, groups)


def curves(members: Sequence[RunMetadata]) -> list[dict[str, Any]]:
    """Return the log of each network, a row per epoch. Fold None is the network of all images."""
    found = []
    for member in members:
        for fold in member.folds:
            if (rows := read_log(member.name, fold)) and member.recipe:
                name = fold if fold < member.recipe.n_folds else None
                found.append({"run": member.name, "fold": name, "rows": rows})
    return found


def by_class(results: RunResults, frame: pd.DataFrame | None) -> tuple[list[dict[str, Any]], list[int]]:
    """Return for each class what its row in the table has, `frame` by score_frame or that of labels, and for
    the most common classes curves; and which classes the tables show. Of other classes there are only the
    name, the number of images and what their images need."""
    if frame is None:
        rows = labels_alone(results)
        values = np.array([row["f"] for row in rows])
    else:
        rows = answers_alone(results, frame)
        own = own_column_of(results, frame)
        values = np.zeros(len(rows)) if own is None else frame[own].to_numpy() * results.scorer.sign
    shown = shown_classes(np.array([row["n"] for row in rows]), values)
    if results.scorer.answer in ("labels", "probabilities"):
        for c in most_common_classes(results.targets, MAX_CURVES):
            rows[c] |= class_curves(results, c)
    for c in set(range(len(rows))) - set(shown):
        rows[c] = {key: value for key, value in rows[c].items() if key in ("name", "by_part")}
        if "by_part" in rows[c]:
            rows[c]["by_part"] = [None if t is None else round(t, 4) for t in rows[c]["by_part"]]
    return rows, shown


def shown_classes(n_images: np.ndarray, values: np.ndarray) -> list[int]:
    """Return the classes that tables show, of counts (C,) and scores (C,), of which a higher one is better:
    all, or if there are more than MAX_ROWS the most common ones, with curves, and of the others that have
    images the worst."""
    if len(n_images) <= MAX_ROWS:
        return list(range(len(n_images)))
    common = np.argsort(-n_images, kind="stable")[:MAX_CURVES]
    others = np.setdiff1d(np.flatnonzero(n_images), common)
    worst = others[np.lexsort((-n_images[others], values[others]))[: MAX_ROWS - MAX_CURVES]]
    return sorted([*common.tolist(), *worst.tolist()])


def labels_alone(results: RunResults) -> list[dict[str, Any]]:
    """Return for each label its count, its average precision, the scores of its cross-fitted decisions, and
    its thresholds as fitted to all rows and without each part."""
    targets, fitted, rows = results.targets, results.fitted, []
    precision, metric = average_precisions(results.probs, targets), alone(results)
    given = results.decisions if targets.dtype.kind != "f" else results.decisions * ~np.isnan(targets)
    n_true, n_given = np.nansum(targets, 0, dtype=float).astype(int), given.sum(0, dtype=int)
    n_hits = (np.nan_to_num(targets).astype(np.uint8, copy=False) & given).sum(0, dtype=int)
    values = metric.score_counts(n_hits, n_given, n_true)
    for c, name in enumerate(results.labels.classes):
        n, hits, n_chosen = int(n_true[c]), int(n_hits[c]), int(n_given[c])
        threshold, without = fitted.threshold_of(c), results.decision["thresholds_by_fold"][name]
        rows.append(
            {
                "name": visible(name, MAX_NAME),
                "n": n,
                "ap": float(precision[c]) if n else None,
                "precision": hits / n_chosen if n_chosen else None,
                "recall": hits / n if n else None,
                "f": float(values[c]),
                "misses": n - hits,
                "alarms": n_chosen - hits,
                "threshold": threshold,
                "by_part": [rule.threshold_of(c) for rule in results.rules.values()],
                "by_fold": [] if threshold is None else without,
                "spread": None if threshold is None else float(np.std(without)),
            }
        )
    return rows


def score_frame(results: RunResults) -> pd.DataFrame:
    """Return a row per class: the number of its images, and its scores by title."""
    targets, answers, scorer = results.targets, results.decisions, results.scorer
    frame = class_scores(scorer, results.probs, targets, answers, results.labels.classes)
    if (title := OWN_TITLES.get(scorer.metric.name, str(scorer.metric))) not in frame:
        frame[title] = scorer.per_class(targets, answers)
    return frame.dropna(axis=1, how="all")


def own_column_of(results: RunResults, frame: pd.DataFrame) -> str | None:
    """Return the title of the metric's own score in a frame of score_frame; None where it has none."""
    metric = results.scorer.metric
    title = OWN_TITLES.get(metric.name, str(metric))
    return title if title in frame else None


def answers_alone(results: RunResults, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return for each class the number of its images, and the scores of its answers; misses and false alarms
    where labels can be counted."""
    rows: list[dict[str, Any]] = [
        {"name": visible(name, MAX_NAME), "n": int(n), "values": list(map(short, values))}
        for name, (n, *values) in zip(results.labels.classes, frame.to_numpy(float).tolist())
    ]
    if results.scorer.answer == "numbers":
        return rows
    chosen = labels_for_counts(results, single=has_single_label(results))
    for c, row in enumerate(rows):
        true, given = results.targets[:, c], chosen[:, c] == 1
        row["misses"], row["alarms"] = int(((true == 1) & ~given).sum()), int(((true == 0) & given).sum())
    return rows


def class_curves(results: RunResults, c: int) -> dict[str, Any]:
    """Return the curves of a class: calibration, precision and recall."""
    known = ~np.isnan(results.targets[:, c])
    true, p = results.targets[known, c] == 1, probabilities_of(results)[known, c]
    chosen = results.decisions[known, c] > 0.5
    return {"calibration": calibration(p, true), "separation": separation(p, true, chosen)}


def most_common_classes(targets: np.ndarray, n_most: int) -> list[int]:
    """Return the n_most classes that most images have, in the order of the classes; of numbers, the first
    n_most."""
    n_images = np.nansum(targets == 1, axis=0) if targets.dtype.kind == "f" else targets.sum(0, dtype=int)
    return sorted(np.argsort(-n_images, kind="stable")[:n_most].tolist())


def count_cooccurrences(targets: np.ndarray) -> np.ndarray:
    """Return (C, C) int: how many images have both labels; on the diagonal, how many have the label."""
    matrix = targets.astype(np.float32)
    return (matrix.T @ matrix).round().astype(int)

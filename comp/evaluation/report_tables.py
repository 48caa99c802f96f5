"""The tables of the report about the decision: rules that were weighed, scores of each label by fold, and
confusion within groups of labels that exclude each other."""

from typing import Any

import numpy as np

from comp.data.labels import exclusive_groups
from comp.decisions.class_scores import own_scores
from comp.decisions.selection import REFERENCES
from comp.evaluation.report_curves import short
from comp.evaluation.results import RunResults

MAX_GRID = 40  # labels in the grid of folds
MAX_GROUP = 40  # labels of a group


def weighed_rules(decision: dict[str, Any]) -> dict[str, Any]:
    """Return the rules that `comp decide` compared, each with its scores and the probability that it beats
    the reference rule, None where the file lacks it; and the name of the reference rule."""
    scored, sure = decision["scores"].get("rules", {}), decision["scores"].get("sure", {})
    rules = [{"rule": name, **scores, "sure": sure.get(name)} for name, scores in scored.items()]
    return {"rules": rules, "reference": next((name for name in REFERENCES if name in scored), None)}


def scores_by_fold(results: RunResults, shown: list[int]) -> dict[str, Any] | None:
    """Return the score of each class alone in each fold, for the MAX_GRID worst of the classes `shown`, the
    worst first. A score that is not defined is None. None where one fold alone was held out."""
    folds = np.unique(results.folds)
    if len(folds) == 1:
        return None
    parts = [results.folds == fold for fold in folds]
    found = [own_scores(results.scorer, results.targets[part], results.decisions[part]) for part in parts]
    if len({of.name for of in found}) > 1:  # a fold where the metric itself is not defined for any class
        return None
    values = np.array([of.values[shown] for of in found])  # (folds, shown)
    known = np.isfinite(values)
    means = np.where(known, values, 0).sum(0) / np.maximum(1, known.sum(0))
    order = np.argsort(np.where(known.any(0), found[0].sign * means, np.inf), kind="stable")
    worst = [i for i in order.tolist() if known[:, i].any()][:MAX_GRID]
    return {
        "score": found[0].name,
        "folds": folds.tolist(),
        "classes": [shown[i] for i in worst],
        "values": [list(map(short, values[:, i].tolist())) for i in worst],
        "n_classes": len(shown),
    }


def confusion_in_groups(results: RunResults) -> list[dict[str, Any]]:
    """Return for each group of labels that exclude each other how many images of each true label (rows) were
    given each label alone, none of them, or several (columns). Images without exactly one true label of the
    group are left out. A large group has its most common labels, and the images of these."""
    groups = exclusive_groups(results.recipe.competition.labels, results.labels.classes)
    return [_confusion_in_group(results, np.array(group)) for group in groups if len(group) > 1]


def _confusion_in_group(results: RunResults, group: np.ndarray) -> dict[str, Any]:
    n_images = np.nansum(results.targets[:, group], 0)
    kept = np.sort(np.argsort(-n_images, kind="stable")[:MAX_GROUP])
    true, given = results.targets[:, group], results.decisions[:, group]
    rows = np.flatnonzero(np.nansum(true, 1) == 1)
    true, given = np.nan_to_num(true[rows])[:, kept], given[rows]
    n_given = given.sum(1, keepdims=True)
    answers = np.hstack([given[:, kept] * (n_given == 1), n_given == 0, n_given > 1]).astype(np.float32)
    counts = (true.T.astype(np.float32) @ answers).round().astype(int)
    return {"classes": group[kept].tolist(), "images": counts.tolist(), "n_classes": len(group)}

"""The threshold lab of the report: what its sliders need to score thresholds exactly as `comp decide` does.

Where labels are decided, the page gets for each cell of the out-of-fold matrix its level: how many of the
label's offered thresholds lie below its probability. So it decides each cell as `probs > thresholds` does in
Python. Labels that are compared with each other (those of a group; the nearest one, where an image has none
above its threshold) need the probabilities themselves, as float32, where more than one can be the first."""

import base64
import zlib
from typing import Any

import numpy as np

from comp.data.labels import exclusive_groups
from comp.decisions.answer_rules import cuts_of
from comp.decisions.calibration import TINY, logit
from comp.decisions.cut_points import expected_grades
from comp.decisions.metrics import FBeta
from comp.decisions.rules import FittedRule, is_single_label
from comp.decisions.scorers import Scorer
from comp.decisions.thresholds import global_threshold
from comp.evaluation.report_answers import probabilities_of
from comp.evaluation.results import RunResults

N_STEPS = 1000  # offered thresholds are 0, 0.001, … 1
LOWEST, HIGHEST = 0.01, 0.99  # of them, where labels are compared with each other
EXACT, LONE = 4, 8  # marks of cells, see contested
N_GRADE_STEPS = 100  # offered cut points between two grades
MAX_GRADES = 30
MAX_BYTES = 4_000_000  # about, of what the page gets of the rows; of more, rows are drawn at random
MIN_ROWS = 500  # with room for fewer the lab is left out
N_POINTS = 150  # of a curve


def threshold_lab(results: RunResults, classes: list[int]) -> dict[str, Any] | None:
    """Return what the lab shows: thresholds of labels, cut points of grades or, for the given classes, curves
    of probabilities. None where nothing is to be set, or the matrix is too large."""
    answer = results.scorer.answer
    found: dict[str, Any] | None = None
    if answer == "labels":
        found = labels_lab(*rule_to_start(results), results.probs, results.targets, results.recipe.seed)
    elif answer == "grades":
        found = grades_lab(cuts_of(results.fitted), results.probs, results.targets)
    elif answer == "probabilities":
        probs = probabilities_of(results)
        lines = [(c, curve_points(probs[:, c], results.targets[:, c])) for c in classes]
        drawn = [{"class": c, **points} for c, points in lines if points]
        found = {"curves": drawn} if drawn else None
    if found is None:
        return None
    scores = results.decision["scores"]
    names = results.labels.classes if answer == "labels" else ()
    return {
        "answer": answer,
        "metric": metric_of(results.scorer),
        "cross_fitted": scores["cross_fitted"],
        "names": list(names),
        "given": results.decision.get("given"),
        **found,
    }


def metric_of(scorer: Scorer) -> dict[str, Any] | None:
    """Return the metric as the page computes it; None for one that it can't."""
    if isinstance(scorer, FBeta):
        return {
            "name": "fbeta",
            "beta": scorer.beta,
            "average": scorer.average,
            "empty": scorer.zero_division,
        }
    name = scorer.metric.name
    return {"name": name} if name in ("balanced_accuracy", "quadratic_kappa") else None


def rule_to_start(results: RunResults) -> tuple[FittedRule, bool]:
    """Return the rule whose thresholds the sliders have at first, and whether it is the run's. Where that one
    is not of thresholds alone, it is the same without limits or, of expected F-beta, one threshold for all
    labels."""
    rule, labels = results.fitted, results.recipe.competition.labels
    assert isinstance(rule, FittedRule)
    if not rule.expected and rule.max_labels is None and rule.min_labels <= 1:
        return rule, True
    thresholds = rule.thresholds
    if rule.expected and isinstance(results.scorer, FBeta):
        unknown = np.isnan(results.targets)
        probs, targets = np.where(unknown, 0, results.probs), np.where(unknown, 0, results.targets)
        thresholds = np.full(
            len(thresholds), global_threshold(probs, targets.astype(np.uint8), results.scorer)
        )
    groups = exclusive_groups(labels, results.labels.classes)
    kept = groups if rule.groups or is_single_label(results.targets, groups) else ()
    return FittedRule(thresholds, groups=kept, min_labels=0 if labels.empty else 1), False


def labels_lab(
    rule: FittedRule, is_chosen: bool, probs: np.ndarray, targets: np.ndarray, seed: int = 0
) -> dict[str, Any] | None:
    """Return the rows for the page; None where too few fit. `probs` (N, C) are float32, `targets` (N, C) 0/1,
    or NaN where unknown. Rows without a known target are left out, as the metric does."""
    known = ~np.isnan(targets) if targets.dtype.kind == "f" else np.ones(targets.shape, bool)
    rows, rng = np.flatnonzero(known.any(1)), np.random.default_rng(seed)
    n_all, compares = len(rows), bool(rule.groups or rule.min_labels)
    low, top = slider_range(rule.thresholds) if compares else (0.0, 1.0)
    rows = np.sort(rng.permutation(rows)[: MAX_BYTES // probs.shape[1]])
    flags = contested(rule, probs[rows], low, top)
    n_bytes = 1.25 * flags.size + 4 * int((flags == EXACT).sum())
    if n_bytes > MAX_BYTES:
        kept = np.sort(rng.permutation(len(rows))[: int(len(rows) * MAX_BYTES / n_bytes)])
        rows, flags = rows[kept], flags[kept]
    if len(rows) < min(n_all, MIN_ROWS):
        return None
    columns, flags = np.ascontiguousarray(probs[rows].T), flags.T  # (C, n)
    levels = np.array(
        [
            np.searchsorted(offered(at, low, top), p.astype(np.float64))
            for at, p in zip(rule.thresholds, columns)
        ],
        np.uint16,
    )
    levels[flags == EXACT] = 0  # the page knows them from the probabilities
    cells = (np.where(known[rows], targets[rows] > 0.5, 2).T + flags).astype(np.uint8)
    exact = columns[flags == EXACT].astype("<f4").view(np.uint8).reshape(-1, 4).T
    parts = [(levels & 255).astype(np.uint8), (levels >> 8).astype(np.uint8), cells, exact]
    return {
        "chosen": rule.thresholds.tolist(),
        "is_chosen": is_chosen,
        "low": low,
        "top": top,
        "groups": [list(group) for group in rule.groups],
        "min_labels": rule.min_labels,
        "n_rows": len(rows),
        "n_all": n_all,
        "packed": base64.b64encode(zlib.compress(b"".join(part.tobytes() for part in parts), 9)).decode(),
    }


def slider_range(chosen: np.ndarray) -> tuple[float, float]:
    """Return the lowest and the highest offered threshold where labels are compared with each other."""
    low, top = np.floor(chosen.min() * N_STEPS), np.ceil(chosen.max() * N_STEPS)
    return min(LOWEST, float(low) / N_STEPS), max(HIGHEST, float(top) / N_STEPS)


def contested(rule: FittedRule, probs: np.ndarray, low: float, top: float) -> np.ndarray:
    """Return (N, C) what the page needs of each cell besides its level, for thresholds from `low` to `top`.
    Labels of a group, and all labels of an image that may have none above its threshold, are compared by
    how far their logits are above those of their thresholds. EXACT marks those that can be the first, LONE
    one that always is."""
    logits, flags = logit(probs, TINY), np.zeros(probs.shape, np.uint8)
    reach = logit(np.array(top), TINY) - logit(np.array(low), TINY) + 1e-6
    every = [list(range(probs.shape[1]))] if rule.min_labels and not rule.groups else []
    for members in [*map(list, rule.groups), *every]:
        of_group = logits[:, members]
        first = of_group >= of_group.max(1, keepdims=True) - reach
        found = np.where(first, np.where(first.sum(1, keepdims=True) == 1, LONE, EXACT), 0)
        if every:
            found[(probs > top).any(1)] = 0  # these have a label
        flags[:, members] = found
    return flags


def offered(chosen: float, low: float, top: float) -> np.ndarray:
    """Return the rising thresholds that a label's slider offers: even steps, and the chosen one."""
    steps = np.arange(round(low * N_STEPS), round(top * N_STEPS) + 1) / N_STEPS
    return np.unique(np.append(steps, chosen))


def grades_lab(cuts: list[float], probs: np.ndarray, targets: np.ndarray) -> dict[str, Any] | None:
    """Return for each true grade how many images have each level: how many of the offered cut points lie
    below the expected grade. None for very many grades."""
    n_grades = probs.shape[1]
    if not 2 <= n_grades <= MAX_GRADES:
        return None
    start = cuts or [k + 0.5 for k in range(n_grades - 1)]
    steps = np.arange((n_grades - 1) * N_GRADE_STEPS + 1) / N_GRADE_STEPS
    edges = np.unique(np.append(steps, start))
    levels, true = np.searchsorted(edges, expected_grades(probs)), targets.argmax(1)
    counts = np.zeros((n_grades, len(edges) + 1), int)
    np.add.at(counts, (true, levels), 1)
    return {"chosen": start, "is_chosen": bool(cuts), "edges": edges.tolist(), "counts": counts.tolist()}


def curve_points(probs: np.ndarray, targets: np.ndarray) -> dict[str, Any] | None:
    """Return for some thresholds, from high to low, how many images with and without a label have a
    probability (N,) above it. They lie evenly along both curves, ROC and precision over recall. None unless
    images of both kinds are known."""
    known = ~np.isnan(targets)
    p, true = probs[known], targets[known] > 0.5
    n = int(true.sum())
    if not 0 < n < len(true):
        return None
    with_it, without = np.sort(p[true]), np.sort(p[~true])

    def above(thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found, false = (len(x) - np.searchsorted(x, thresholds, side="right") for x in (with_it, without))
        return found, false

    at = np.unique(p.astype(np.float64))[::-1]
    found, false = above(at)
    curves = (found / n, false / len(without), found / np.maximum(found + false, 1))
    along = np.r_[0.0, np.cumsum(sum(np.abs(np.diff(curve)) for curve in curves))]
    places = np.minimum(np.searchsorted(along, np.linspace(0, along[-1], N_POINTS)), len(at) - 1)
    some = np.array([float(f"{t:.4g}") for t in at[np.unique(places)].tolist()])
    thresholds = np.unique(np.r_[some, 0.0, 0.5, at.max()])[::-1]
    found, false = above(thresholds)
    return {
        "n": n,
        "n_without": len(without),
        "at": thresholds.tolist(),
        "found": found.tolist(),
        "false": false.tolist(),
    }

"""The numbers of the report that only some answers have: confusion, grades, a ranking, numbers, and how the
answers of test images differ from those of held-out ones."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from comp.decisions.answer_rules import cuts_by_fold, cuts_of
from comp.decisions.cut_points import expected_grades
from comp.decisions.metrics import log_losses, most_probable
from comp.decisions.scorers import log_loss_over_classes
from comp.evaluation.report_curves import histograms, short
from comp.evaluation.results import RunResults
from comp.safe_text import visible

MAX_NAME = 80  # characters
MAX_POINTS = 2000  # of a scatter plot
MAX_COLUMNS = 20  # of numbers, with plots
MAX_ROWS = 100  # classes in tables: those with curves, and the worst others
MAX_PAIRS = 100  # of labels that are taken for each other
N_PARTS = 12  # of the true numbers, with equally many images
N_FIRST = 10  # places of a ranking
# test images that differ from held-out ones by more than this are warned of
DRIFT_ERRORS = 4.0  # standard errors of the difference, and
DRIFT_RATIO = 1.2  # of the larger to the smaller share, or
DRIFT_SHIFT = 0.2  # standard deviations between the means
N_AT_ONCE = 20_000_000  # numbers in float64


def by_rows(function: Callable[..., np.ndarray], *matrices: np.ndarray) -> np.ndarray:
    """Return (N,) what a function gives for the rows of matrices (N, C), some at once to save memory."""
    n = max(1, N_AT_ONCE // matrices[0].shape[1])
    starts = range(0, len(matrices[0]), n)
    return np.concatenate([function(*(m[start : start + n] for m in matrices)) for start in starts])


def probabilities_of(results: RunResults) -> np.ndarray:
    """Return (N, C) the probabilities to show: those of the networks or, where they are the answer and were
    calibrated, the answer."""
    binary = any(getattr(rule, "binary", None) is not None for rule in results.rules.values())
    return results.decisions if results.scorer.answer == "probabilities" and not binary else results.probs


def labels_for_counts(results: RunResults, *, single: bool) -> np.ndarray:
    """Return (N, C) 0/1: the labels that were decided. Where probabilities are the answer, those above 0.5;
    where they exclude each other or are a ranking, the most probable one."""
    answer, answers = results.scorer.answer, results.decisions
    if answer in ("labels", "grades"):
        return answers
    if single or answer == "ranking":
        return most_probable(answers)
    return (answers > 0.5).astype(np.uint8)


def losses_of(results: RunResults, *, single: bool) -> np.ndarray:
    """Return (N,) the loss of each image: log loss over classes, or summed over labels; of numbers the
    absolute error, and of several the mean of the errors in standard deviations of the targets."""
    targets = results.targets
    if results.scorer.answer == "numbers":
        errors = np.abs(results.decisions - targets)
        scale = np.nanstd(targets, axis=0) if targets.shape[1] > 1 else np.ones(1)
        return np.nanmean(errors / np.where(scale > 0, scale, 1), axis=1)
    probs = probabilities_of(results)
    if single and results.scorer.answer != "labels":
        return by_rows(log_loss_over_classes, targets, probs)
    return by_rows(lambda t, p: log_losses(p, t), targets, probs)


def confusion(targets: np.ndarray, chosen: np.ndarray, classes: Sequence[int]) -> dict[str, Any]:
    """Return how many images of each class (rows) were given each class (columns), for some of the
    classes."""
    true, given = (matrix[:, classes].astype(np.float32) for matrix in (targets, chosen))
    return {"classes": list(classes), "images": (true.T @ given).round().astype(int).tolist()}


def grades(results: RunResults, test: np.ndarray, classes: Sequence[int]) -> dict[str, Any]:
    """Return histograms of the expected grade: of the images of each of some true grades, and of held-out and
    test images; and the cut points, with those that were fitted without each part."""
    expected, high = expected_grades(results.probs), results.probs.shape[1] - 1
    of_test = expected_grades(test)
    cuts, by_part = cuts_of(results.fitted), cuts_by_fold(list(results.rules.values()))
    return {
        "by_grade": [
            {"class": c, **histograms({"share": expected[results.targets[:, c] == 1]}, 0, high)}
            for c in classes
        ],
        "both": histograms({"held_out": expected, "test": of_test}, 0, high),
        "cuts": cuts,
        "by_part": [] if by_part is None else by_part.ravel().tolist(),
    }


def places_of(targets: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return (N,) the place, from 1, of each image's likeliest true label in the ranking of its answers; ties
    are ranked by column. Without a true label it is C + 1."""
    true = targets > 0.5
    at = np.where(true, answers, -np.inf).argmax(1)[:, None]
    value = np.take_along_axis(answers, at, 1)
    before = (answers > value) | ((answers == value) & (np.arange(answers.shape[1]) < at))
    return np.where(true.any(1), 1 + before.sum(1), 1 + answers.shape[1])


def ranking(results: RunResults) -> dict[str, Any]:
    """Return the share of images with a true label among the first 1, 2, … labels, and the pairs of a true
    label and the first one of the ranking that differ in most images."""
    targets, answers, n_classes = results.targets, results.decisions, results.targets.shape[1]
    places, k = by_rows(places_of, targets, answers), results.scorer.metric.k
    n = min(max(N_FIRST, k), n_classes)
    first = answers.argmax(1)
    wrong = np.flatnonzero(np.take_along_axis(targets, first[:, None], 1)[:, 0] != 1)
    rows, true = np.nonzero(targets[wrong] == 1)
    pairs, n_images = np.unique(true * n_classes + first[wrong][rows], return_counts=True)
    most = np.argsort(-n_images, kind="stable")[:MAX_PAIRS]
    n_true = (targets == 1).sum(0)
    return {
        "k": min(k, n_classes),
        "within": [float((places <= place).mean()) for place in range(1, n + 1)],
        "pairs": [
            {"true": c, "given": pair % n_classes, "n": n, "share": n / int(n_true[c])}
            for pair, n in zip(pairs[most].tolist(), n_images[most].tolist())
            for c in (pair // n_classes,)
        ],
        "n_pairs": len(pairs),
    }


def numbers(results: RunResults, seed: int) -> list[dict[str, Any]]:
    """Return for the first columns: [true, predicted] of some images; and for parts of the true numbers their
    mean, three quantiles of the errors, and the number of images."""
    rng, found = np.random.default_rng(seed), []
    for c in range(min(results.targets.shape[1], MAX_COLUMNS)):
        known = np.flatnonzero(~np.isnan(results.targets[:, c]))
        true, given = (m[known, c].astype(float) for m in (results.targets, results.decisions))
        some = rng.permutation(len(known))[:MAX_POINTS]
        parts = np.array_split(np.argsort(true, kind="stable"), min(N_PARTS, max(1, len(true) // 5)))
        errors = given - true
        found.append(
            {
                "n": len(known),
                "points": [[short(t), short(g)] for t, g in zip(true[some], given[some])],
                "parts": [
                    [*map(short, (true[part].mean(), *np.quantile(errors[part], (0.1, 0.5, 0.9)))), len(part)]
                    for part in parts
                    if len(part)
                ],
            }
        )
    return found


def drift(
    results: RunResults, test: np.ndarray, shown: Sequence[int], held_out: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """Return for each class of `shown`, and up to MAX_ROWS others with a warning, the share of held-out
    images (N, C) 0/1 and of test images (M, C) 0/1 that are given the label, and a warning where the two
    differ by more than chance and by enough to matter. By default the held-out answers are the decisions."""
    held_out = results.decisions if held_out is None else held_out
    n, m = len(held_out), len(test)
    n_held, n_test = held_out.sum(0, dtype=int).tolist(), test.sum(0, dtype=int).tolist()
    rows = {}
    for c, (a, b) in enumerate(zip(n_held, n_test)):
        pooled = (a + b) / (n + m)
        error = (pooled * (1 - pooled) * (1 / n + 1 / m)) ** 0.5
        far = max(a / n, b / m) > DRIFT_RATIO * min(a / n, b / m)
        warn = bool(far and error and abs(a / n - b / m) > DRIFT_ERRORS * error)
        rows[c] = {"held_out": a / n, "test": b / m, "warn": warn}
    return _named(results, rows, shown)


def drift_of_means(
    results: RunResults, test: np.ndarray, shown: Sequence[int], with_bars: Sequence[int]
) -> list[dict[str, Any]]:
    """Return for each column of `shown`, and up to MAX_ROWS others with a warning, the mean of the answers
    (N, C) for held-out images and of those (M, C) for test images, a warning where they differ by more than
    chance and by enough to matter, and for some columns the histograms of both."""
    rows = {}
    for c in range(test.shape[1]):
        a, b = (answers[:, c].astype(float) for answers in (results.decisions, test))
        error = (a.var() / len(a) + b.var() / len(b)) ** 0.5
        shift, spread = abs(a.mean() - b.mean()), ((a.var() + b.var()) / 2) ** 0.5
        ends = (0.0, 1.0) if results.scorer.answer != "numbers" else (min(*a, *b), max(*a, *b))
        rows[c] = {
            "held_out": short(a.mean()),
            "test": short(b.mean()),
            "warn": bool(shift > DRIFT_ERRORS * error and shift > DRIFT_SHIFT * spread),
            "bars": histograms({"held_out": a, "test": b}, *ends) if c in with_bars else None,
        }
    return _named(results, rows, shown)


def _named(
    results: RunResults, rows: dict[int, dict[str, Any]], shown: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the rows of the classes `shown` and up to MAX_ROWS others with a warning, with their names and
    the means of their targets."""
    others = [c for c, row in rows.items() if row["warn"] and c not in set(shown)][:MAX_ROWS]
    names = results.labels.classes
    return [
        {"name": visible(names[c], MAX_NAME), "true": known_mean(results.targets[:, c]), **rows[c]}
        for c in sorted([*shown, *others])
    ]


def known_mean(values: np.ndarray) -> float | None:
    """Return the mean of the values (N,) that are known; None without any."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None

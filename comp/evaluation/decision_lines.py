"""What `comp decide` prints: the rules with their scores, and each class."""

import numpy as np

from comp.config.metric import Metric
from comp.console import info, show_headline, table
from comp.decisions.class_scores import class_scores, own_column
from comp.decisions.decide import Decision
from comp.decisions.metrics import FBeta, average_precisions, mean_average_precision
from comp.decisions.rules import FittedRule, is_single_label
from comp.decisions.selection import reference_of

# both are printed for data with exactly one label per image, whichever is the metric
SINGLE_LABEL_METRICS = (Metric(name="accuracy"), Metric(average="macro", beta=1))
MAX_CLASSES_SHOWN = 100  # rows of the table of classes
AS_THEY_ARE = {
    "probabilities": "only the order of the probabilities counts, so they are the answer as they are",
    "ranking": "only the order of the probabilities counts, so they are the answer as they are",
}


def show_decision(
    decision: Decision,
    probs: np.ndarray,
    targets: np.ndarray,
    classes: tuple[str, ...],
    title: str,
    metric: Metric,
    none: str,
) -> None:
    """Print what was decided, by rule and by class. `none` names the row of images without labels."""
    several = len(decision.scored) > 1
    show_headline(title, str(metric), decision.scores["cross_fitted"], chosen=several)
    info("")
    if not several and decision.rule == "as-is" and (why := AS_THEY_ARE.get(decision.metric.answer)):
        info(f"nothing is to be decided: {why}")
    else:
        info("each rule alone; * marks the chosen one" if several else "the rule")
        table(*_rules(decision, targets, metric))
    info("")
    if isinstance(decision.fitted, FittedRule):
        _show_labels(decision, decision.fitted, probs, targets, classes, none)
    else:
        _show_answers(decision, probs, targets, classes)


def _rules(decision: Decision, targets: np.ndarray, metric: Metric) -> tuple[list[str], list[list[str]]]:
    several, reference = len(decision.scored) > 1, reference_of(decision.scored)
    header = [
        "rule",
        "cross-fitted",
        "in-sample",
        f"beats {reference.rule}" if reference else "the best beats it",
    ]
    rows = [
        [
            f"{s.rule} *" if several and s.rule == decision.rule else s.rule,
            *(f"{s.cross_fitted:.4f}", f"{s.in_sample:.4f}", f"{decision.win_probabilities[s.rule]:.0%}"),
        ]
        for s in decision.scored
    ]
    fitted = decision.fitted
    one_label = isinstance(fitted, FittedRule) and is_single_label(targets, fitted.groups)
    for other in SINGLE_LABEL_METRICS if one_label or decision.metric.answer == "grades" else ():
        if str(other) != str(metric):  # cross-fitted as well
            header.append(str(other))
            for row, s in zip(rows, decision.scored):
                row.append(f"{FBeta.from_metric(other).score(targets, s.decisions):.4f}")
    return header, rows


def _show_labels(
    decision: Decision,
    fitted: FittedRule,
    probs: np.ndarray,
    targets: np.ndarray,
    classes: tuple[str, ...],
    none: str,
) -> None:
    precision, own = average_precisions(probs, targets), own_column(decision.metric)
    by_fold = [rule.thresholds for rule in decision.chosen.by_fold if isinstance(rule, FittedRule)]
    spread = np.std(by_fold, axis=0)
    per_class = decision.metric.per_class(targets, decision.choice.decisions)
    rows = []
    shown = _shown(targets)
    for c, name in ((c, classes[c]) for c in shown):
        at, n = fitted.threshold_of(c), int(np.nansum(targets[:, c]))
        thresholds = ["", ""] if at is None else [f"{at:.3f}", f"{spread[c]:.3f}"]
        score = [f"{per_class[c]:.4f}"] if own else []
        rows.append([name, f"{n:,}", f"{precision[c]:.4f}" if n else "", *thresholds, *score])
    bare, answered = (matrix.sum(1, keepdims=True) == 0 for matrix in (targets, decision.choice.decisions))
    if bare.any() and decision.metric.metric.name == "fbeta":
        (value,) = decision.metric.per_class(bare, answered)
        rows.append([f"({none})", f"{bare.sum():,}", "", "", "", f"{value:.4f}"])
    which = _which("label", len(shown), len(classes))
    info(f"{which}, mAP {mean_average_precision(precision):.4f}" if targets.any() else which)
    table(["class", "images", "AP", "threshold", "± folds", *([own] if own else [])], rows)


def _shown(targets: np.ndarray) -> list[int]:
    """Return the columns that the table shows: the most frequent classes, in their order."""
    frequent = np.argsort(-np.nansum(targets, 0), kind="stable")
    return np.sort(frequent[:MAX_CLASSES_SHOWN]).tolist()


def _which(word: str, n_shown: int, n: int) -> str:
    return (
        f"each {word}"
        if n_shown == n
        else f"the {n_shown} most frequent of {n:,} {word}{'e' * (word[-1] == 's')}s"
    )


def _show_answers(
    decision: Decision, probs: np.ndarray, targets: np.ndarray, classes: tuple[str, ...]
) -> None:
    cuts = None if isinstance(decision.fitted, FittedRule) else decision.fitted.cut_points
    if cuts is not None and decision.rule != "rounded":
        by_fold = [rule.cut_points for rule in decision.chosen.by_fold if not isinstance(rule, FittedRule)]
        spread = np.std([each for each in by_fold if each is not None], axis=0)
        info(
            "cut points on the expected grade: "
            + ", ".join(f"{c:.3f} ± {s:.3f}" for c, s in zip(cuts, spread))
        )
        info("")
    frame = class_scores(decision.metric, probs, targets, decision.choice.decisions, classes)
    shown = _shown(targets)
    info(_which("grade" if decision.metric.answer == "grades" else "class", len(shown), len(classes)))
    table(
        ["class", *frame.columns],
        [
            [
                name,
                *(
                    f"{value:,}" if isinstance(value, int) else "" if np.isnan(value) else f"{value:.4f}"
                    for value in row
                ),
            ]
            for name, row in ((classes[c], frame.astype(object).iloc[c]) for c in shown)
        ],
    )

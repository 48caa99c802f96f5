"""The picture of `comp decide`, which depends on what an answer is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from comp.decisions.answer_rules import Rule, cuts_by_fold
from comp.decisions.decide import Decision
from comp.decisions.rules import FittedRule, is_single_label
from comp.decisions.scorers import Scorer
from comp.plots.answers import new_curves, new_grades, new_numbers, new_ranks
from comp.plots.style import escape_text, save, styled
from comp.plots.thresholds import most_common, new_confusion, new_thresholds


@dataclass(frozen=True)
class Shown:
    """What the picture shows: a rule, and the held-out rows that it was fitted to."""

    rule: str
    fitted: Rule
    thresholds_by_fold: np.ndarray | None  # (K, C), or (K, C - 1) cut points, each fitted without one fold
    metric: Scorer
    classes: tuple[str, ...]
    probs: np.ndarray  # (N, C)
    targets: np.ndarray  # (N, C)
    decisions: np.ndarray  # (N, C) answers, cross-fitted


def draw(
    decision: Decision,
    probs: np.ndarray,
    targets: np.ndarray,
    classes: tuple[str, ...],
    path: Path,
) -> None:
    """Write the picture of a decision as PNG."""
    without = cuts_by_fold(decision.chosen.by_fold)
    rule, fitted, metric = decision.rule, decision.fitted, decision.metric
    decisions = decision.choice.decisions
    save(new_picture(Shown(rule, fitted, without, metric, classes, probs, targets, decisions)), path)


@styled
def new_picture(of: Shown) -> Any:
    """Return a figure that suits the answers, under a line with the score."""
    figure = _new_figure(of)
    if not figure.get_suptitle():
        rule = f"rule: {escape_text(of.rule)}"
        score = of.metric.score(of.targets, of.decisions)
        title = f"{escape_text(of.metric.metric)} {score:.4f}\ncross-fitted; {rule}"
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def _new_figure(of: Shown) -> Any:
    """Return a figure that suits the answers. Labels: their thresholds and what these gain or, where each
    image has exactly one, their confusion. Grades: expected grades with the cut points, and the confusion.
    Probabilities: ROC curves and reliability. A ranking: how often the true label is among the first.
    Numbers: given against true ones."""
    if isinstance(of.fitted, FittedRule):
        shown = most_common(of.targets)
        if is_single_label(of.targets, of.fitted.groups):
            return new_confusion(of.decisions, of.targets, of.classes, shown)
        assert of.thresholds_by_fold is not None
        return new_thresholds(
            of.fitted,
            of.thresholds_by_fold,
            of.metric,
            of.classes,
            of.probs,
            of.targets,
            of.decisions,
            of.rule,
        )
    if of.metric.answer == "grades":
        return new_grades(
            of.probs, of.targets, of.decisions, of.classes, of.fitted.cut_points, of.thresholds_by_fold
        )
    if of.metric.answer == "numbers":
        return new_numbers(of.targets, of.decisions, of.classes)
    if of.metric.answer == "ranking":
        return new_ranks(of.targets, of.decisions, of.metric.metric.k)
    return new_curves(of.targets, of.probs if of.fitted.binary is not None else of.decisions, of.classes)

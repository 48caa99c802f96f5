"""The picture of `comp decide`: score against threshold, or confusion."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.cells import cell_len

from comp.decisions.decide import Decision
from comp.decisions.metrics import FBeta
from comp.decisions.rules import FittedRule, is_single_label
from comp.plots.style import escape_text, new_figure, save

MAX_CLASSES = 60  # with more classes, only the most common are shown


@dataclass(frozen=True)
class Shown:
    """What the picture shows: a rule, and the held-out rows that it was fitted to."""

    rule: str
    fitted: FittedRule
    thresholds_by_fold: np.ndarray  # (K, C) each fitted without one fold
    metric: FBeta
    classes: tuple[str, ...]
    probs: np.ndarray  # (N, C)
    targets: np.ndarray  # (N, C) 0/1
    decisions: np.ndarray  # (N, C) 0/1, cross-fitted


def draw(
    decision: Decision,
    probs: np.ndarray,
    targets: np.ndarray,
    classes: tuple[str, ...],
    path: Path,
) -> None:
    """Write the picture of a decision as PNG."""
    without = np.array([fitted.thresholds for fitted in decision.chosen.by_fold])
    rule, fitted, metric = decision.rule, decision.fitted, decision.metric
    decisions = decision.choice.decisions
    save(new_picture(Shown(rule, fitted, without, metric, classes, probs, targets, decisions)), path)


def new_picture(of: Shown) -> Any:
    """Return a figure of each class's F-beta against its threshold, with the chosen threshold and those of
    the folds. The flatter the curve's top, the less the exact threshold matters. Where each image has exactly
    one label, the figure is the confusion of labels instead."""
    probs, targets, classes = of.probs, of.targets, of.classes
    shown = np.sort(np.argsort(-targets.sum(0, dtype=int), kind="stable")[:MAX_CLASSES])
    if is_single_label(targets, of.fitted.groups):
        return new_confusion(of.decisions, targets, classes, shown)
    alone = FBeta(of.metric.beta, "macro")
    n_columns = min(4, len(shown))
    n_rows = -(-len(shown) // n_columns)
    figure = new_figure(figsize=(3.2 * n_columns, 1.9 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True).ravel()
    for panel in panels[len(shown) :]:
        panel.axis("off")
    for c, panel in zip(shown, panels):
        order = np.argsort(-probs[:, c])
        hits = np.cumsum(targets[order, c])
        values = alone.score_counts(hits, np.arange(1, len(order) + 1), hits[-1:])
        keep = np.unique(np.linspace(0, len(order) - 1, 2000).astype(int))
        panel.plot(probs[order[keep], c], values[keep], color="tab:blue", linewidth=1)
        settings: dict[str, Any] = {"color": "tab:orange"}
        for at in () if of.fitted.expected else of.thresholds_by_fold[:, c]:
            panel.axvline(at, alpha=0.35, linewidth=0.8, **settings)
        if not of.fitted.expected:
            panel.axvline(of.fitted.thresholds[c], linewidth=1.6, **settings)
        panel.set_title(f"{escape_text(classes[c], 40)} ({targets[:, c].sum():,})", fontsize=8)
        panel.set_xlim(0, 1)
        panel.set_ylim(bottom=0)
        panel.tick_params(labelsize=7)
    lines = "thick: the chosen threshold, thin: fitted without one fold"
    if of.fitted.expected:
        lines = f"the rule {of.rule!r} has no thresholds"
    figure.suptitle(
        f"F{of.metric.beta:g} of each label (number of images) against its threshold; {lines}",
        fontsize=9,
    )
    return figure


def new_confusion(
    decisions: np.ndarray, targets: np.ndarray, classes: tuple[str, ...], shown: np.ndarray
) -> Any:
    """Return a figure of how many images of each true label (a row) were given each label (a column), among
    the labels `shown`. A cell is dark where it holds a large share of its row. Decisions (N, C) are
    cross-fitted."""
    n_images = (targets.T.astype(int) @ decisions.astype(int))[np.ix_(shown, shown)]
    shares = n_images / np.maximum(targets[:, shown].sum(0, dtype=int), 1)[:, None]
    names = [escape_text(classes[c]) for c in shown]
    side = 1.3 + 0.45 * len(shown) + max(1.2, 0.075 * max(map(cell_len, names)))
    figure = new_figure(figsize=(side, side), layout="constrained")
    panel = figure.subplots()
    panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), n in np.ndenumerate(n_images):
        if n:
            colour = "white" if shares[row, column] > 0.5 else "black"
            panel.text(column, row, f"{n:,}", ha="center", va="center", fontsize=7, color=colour)
    panel.set_xticks(range(len(shown)), names, rotation=90, fontsize=8)
    panel.set_yticks(range(len(shown)), names, fontsize=8)
    panel.set_xlabel("decided (cross-fitted)")
    panel.set_ylabel("true")
    return figure

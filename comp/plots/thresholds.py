"""The picture of `comp decide`: score against threshold, or confusion."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.cells import cell_len

from comp.decisions.decide import Decision
from comp.decisions.metrics import FBeta
from comp.decisions.rules import is_single_label
from comp.plots.style import escape_text, new_figure, save

MAX_CLASSES = 60  # with more classes, only the most common are shown


def draw(
    decision: Decision,
    probs: np.ndarray,
    targets: np.ndarray,
    classes: tuple[str, ...],
    path: Path,
) -> None:
    """Draw each class's F-beta against its threshold, with the chosen threshold and those of the folds. The
    flatter the curve's top, the less the exact threshold matters. Where each image has exactly one label,
    draw the confusion of labels instead."""
    chosen = decision.chosen
    shown = np.sort(np.argsort(-targets.sum(0, dtype=int), kind="stable")[:MAX_CLASSES])
    if is_single_label(targets, decision.fitted.groups):
        draw_confusion(chosen.decisions, targets, classes, shown, path)
        return
    alone = FBeta(decision.metric.beta, "macro")
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
        for fitted in () if chosen.fitted.expected else chosen.by_fold:
            panel.axvline(fitted.thresholds[c], alpha=0.35, linewidth=0.8, **settings)
        if not chosen.fitted.expected:
            panel.axvline(chosen.fitted.thresholds[c], linewidth=1.6, **settings)
        panel.set_title(f"{escape_text(classes[c], 40)} ({targets[:, c].sum():,})", fontsize=8)
        panel.set_xlim(0, 1)
        panel.set_ylim(bottom=0)
        panel.tick_params(labelsize=7)
    lines = "thick: the chosen threshold, thin: fitted without one fold"
    if chosen.fitted.expected:
        lines = f"the rule {decision.rule!r} has no thresholds"
    figure.suptitle(
        f"F{decision.metric.beta:g} of each label (number of images) against its threshold; {lines}",
        fontsize=9,
    )
    save(figure, path)


def draw_confusion(
    decisions: np.ndarray, targets: np.ndarray, classes: tuple[str, ...], shown: np.ndarray, path: Path
) -> None:
    """Draw how many images of each true label (a row) were given each label (a column), among the labels
    `shown`. A cell is dark where it holds a large share of its row. Decisions (N, C) are cross-fitted."""
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
    save(figure, path)

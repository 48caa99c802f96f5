"""The picture of a decision: score against threshold, and confusion."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.cells import cell_len

from comp.decisions.cross_fitting import Weighed
from comp.decisions.decide import Decision
from comp.decisions.metrics import score
from comp.decisions.rules import is_single
from comp.plots.style import new_figure, save, written

MOST_SHOWN = 60  # classes in the picture: of more, the commonest


def draw(
    decision: Decision,
    chosen: Weighed,
    probs: np.ndarray,
    targets: np.ndarray,
    classes: tuple[str, ...],
    path: Path,
) -> None:
    """A picture: F-beta of each class against its threshold, with the one chosen and those of the folds. A
    flat top forgives a threshold that is off, a narrow one does not. Where each image has one label: which
    are taken for which."""

    shown = np.sort(np.argsort(-targets.sum(0, dtype=int), kind="stable")[:MOST_SHOWN])
    if is_single(targets, decision.fitted.groups):
        draw_confusion(chosen.decisions, targets, classes, shown, path)
        return
    n_columns = min(4, len(shown))
    n_rows = -(-len(shown) // n_columns)
    figure = new_figure(figsize=(3.2 * n_columns, 1.9 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True).ravel()
    for panel in panels[len(shown) :]:
        panel.axis("off")
    for c, panel in zip(shown, panels):
        order = np.argsort(-probs[:, c])
        hits = np.cumsum(targets[order, c])
        values = score(hits, np.arange(1, len(order) + 1), hits[-1:], decision.beta)
        keep = np.unique(np.linspace(0, len(order) - 1, 2000).astype(int))
        panel.plot(probs[order[keep], c], values[keep], color="tab:blue", linewidth=1)
        settings: dict[str, Any] = {"color": "tab:orange"}
        for fitted in () if chosen.fitted.expected else chosen.by_fold:
            panel.axvline(fitted.thresholds[c], alpha=0.35, linewidth=0.8, **settings)
        if not chosen.fitted.expected:
            panel.axvline(chosen.fitted.thresholds[c], linewidth=1.6, **settings)
        panel.set_title(f"{written(classes[c], 40)} ({targets[:, c].sum():,})", fontsize=8)
        panel.set_xlim(0, 1)
        panel.set_ylim(bottom=0)
        panel.tick_params(labelsize=7)
    lines = "thick: the threshold chosen, thin: those fitted without a fold"
    if chosen.fitted.expected:
        lines = f"the rule {decision.rule!r} has none"
    figure.suptitle(
        f"F{decision.beta:g} of each label (number of images) alone against its threshold; {lines}",
        fontsize=9,
    )
    save(figure, path)


def draw_confusion(
    decisions: np.ndarray, targets: np.ndarray, classes: tuple[str, ...], shown: np.ndarray, path: Path
) -> None:
    """How many images of each of the labels `shown` (its row) were given each of them, cross-fitted; dark
    where that is a large share of the label's images."""

    n_images = (targets.T.astype(int) @ decisions.astype(int))[np.ix_(shown, shown)]
    shares = n_images / np.maximum(targets[:, shown].sum(0, dtype=int), 1)[:, None]
    names = [written(classes[c]) for c in shown]
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
    panel.set_xlabel("decided, by the other folds' rule")
    panel.set_ylabel("true")
    save(figure, path)

"""Pictures of decided labels: score against threshold, and confusion."""

from typing import Any

import numpy as np
from rich.cells import cell_len

from comp.decisions.metrics import FBeta
from comp.decisions.rules import FittedRule
from comp.plots.style import escape_text, new_figure

MAX_CLASSES = 60  # with more classes, only the most common are shown


def most_common(targets: np.ndarray) -> np.ndarray:
    """Return the columns of the most common classes, MAX_CLASSES at most, in order."""
    return np.sort(np.argsort(-np.nansum(targets, 0).astype(int), kind="stable")[:MAX_CLASSES])


def new_thresholds(
    fitted: FittedRule,
    thresholds_by_fold: np.ndarray,
    beta: float,
    classes: tuple[str, ...],
    probs: np.ndarray,
    targets: np.ndarray,
    rule: str,
) -> Any:
    """Return a figure of each class's F-beta against its threshold, with the chosen threshold and those of
    the folds (K, C). The flatter the curve's top, the less the exact threshold matters."""
    shown, alone = most_common(targets), FBeta(beta, "macro")
    n_columns = min(4, len(shown))
    n_rows = -(-len(shown) // n_columns)
    figure = new_figure(figsize=(3.2 * n_columns, 1.9 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True).ravel()
    for panel in panels[len(shown) :]:
        panel.axis("off")
    for c, panel in zip(shown, panels):
        known = ~np.isnan(targets[:, c]) if targets.dtype.kind == "f" else slice(None)
        column, true = probs[known, c], targets[known, c].astype(int)
        order = np.argsort(-column)
        hits = np.cumsum(true[order])
        values = alone.score_counts(hits, np.arange(1, len(order) + 1), hits[-1:])
        keep = np.unique(np.linspace(0, len(order) - 1, 2000).astype(int))
        panel.plot(column[order[keep]], values[keep], color="tab:blue", linewidth=1)
        settings: dict[str, Any] = {"color": "tab:orange"}
        for at in () if fitted.expected else thresholds_by_fold[:, c]:
            panel.axvline(at, alpha=0.35, linewidth=0.8, **settings)
        if not fitted.expected:
            panel.axvline(fitted.thresholds[c], linewidth=1.6, **settings)
        panel.set_title(f"{escape_text(classes[c], 40)} ({true.sum():,})", fontsize=8)
        panel.set_xlim(0, 1)
        panel.set_ylim(bottom=0)
        panel.tick_params(labelsize=7)
    lines = "thick: the chosen threshold, thin: fitted without one fold"
    if fitted.expected:
        lines = f"the rule {rule!r} has no thresholds"
    figure.suptitle(
        f"F{beta:g} of each label (number of images) against its threshold; {lines}",
        fontsize=9,
    )
    return figure


def new_confusion(
    decisions: np.ndarray, targets: np.ndarray, classes: tuple[str, ...], shown: np.ndarray
) -> Any:
    """Return a figure of how many images of each true label (a row) were given each label (a column), among
    the labels `shown`. A cell is dark where it holds a large share of its row. Decisions (N, C) are
    cross-fitted."""
    n_images = targets[:, shown].T.astype(int) @ decisions[:, shown].astype(int)
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

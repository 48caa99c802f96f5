"""Pictures of answers that are no labels: probabilities, grades, rankings and numbers."""

from typing import Any

import numpy as np

from comp.decisions.cut_points import expected_grades
from comp.decisions.scorers import first_classes, known_cells, roc_auc
from comp.plots.style import ACCENT, MAIN, SHARES, escape_text, new_figure, styled
from comp.plots.thresholds import most_common

MAX_NAMED = 10  # curves that the legend names, the most common classes
MAX_POINTS = 2000  # of a curve
N_BINS = 10  # of the reliability, with equally many answers each
N_FIRST = 10  # places of a ranking that are drawn
MAX_COLUMNS = 6  # of numbers


@styled
def new_curves(targets: np.ndarray, probs: np.ndarray, classes: tuple[str, ...]) -> Any:
    """Return a figure of the classes' ROC curves, and of how often a class is true where it gets a
    probability. Both arrays are (N, C); unknown targets are left out."""
    figure = new_figure(figsize=(11, 5), layout="constrained")
    roc, reliability = figure.subplots(1, 2)
    shown = most_common(targets)
    areas = {c: _known_auc(targets[:, c], probs[:, c]) for c in shown}
    named = [c for c in shown if np.isfinite(areas[c])][:MAX_NAMED]
    for c in shown:
        if np.isfinite(areas[c]):
            name = f"{escape_text(classes[c], 30)} {areas[c]:.3f}" if c in named else None
            style = {"label": name} if name else {"color": "0.8", "zorder": 0}
            roc.plot(*_roc(targets[:, c], probs[:, c]), linewidth=1, **style)
    roc.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, zorder=0)
    roc.set(xlabel="share of the images without the label", ylabel="share of the images with it", title="ROC")
    if named:
        roc.legend(loc="lower right", fontsize=8, title="area", title_fontsize=8)
    known = known_cells(targets[:, shown])
    said, true = (values[:, shown][known].astype(float) for values in (probs, targets))
    parts = np.array_split(np.argsort(said, kind="stable"), min(N_BINS, len(said)))
    x, y = (np.array([values[part].mean() for part in parts]) for values in (said, true))
    error = np.array([1.96 * np.sqrt(max(v * (1 - v), 1e-9) / len(part)) for v, part in zip(y, parts)])
    reliability.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, zorder=0)
    reliability.errorbar(x, y, np.minimum(error, [y, 1 - y]), marker="o", markersize=4, capsize=2)
    reliability.set(
        xlabel="mean probability", ylabel="share that is true",
        title=f"reliability, {len(parts)} parts of equal size",
    )  # fmt: skip
    for panel in (roc, reliability):
        panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    return figure


@styled
def new_grades(
    probs: np.ndarray,
    targets: np.ndarray,
    chosen: np.ndarray,
    classes: tuple[str, ...],
    cut_points: np.ndarray | None,
    by_fold: np.ndarray | None,
) -> Any:
    """Return a figure of the expected grades of each true grade's images, with the cut points (C - 1,) and
    those of the folds (K, C - 1), and of the confusion."""
    n, n_images = len(classes), targets.T.astype(int) @ chosen.astype(int)
    figure = new_figure(figsize=(11, max(4.5, 1.0 + 0.6 * n)), layout="constrained")
    left, right = figure.subfigures(1, 2)
    panels = left.subplots(n, 1, sharex=True, squeeze=False)[:, 0]
    expected, edges = expected_grades(probs), np.linspace(0, max(n - 1, 1), 61)
    for c, panel in enumerate(panels):
        panel.hist(expected[targets[:, c] > 0.5], edges, color=MAIN)
        for at in () if by_fold is None else by_fold.ravel():
            panel.axvline(at, alpha=0.35, linewidth=0.8, color=ACCENT)
        for at in () if cut_points is None else cut_points:
            panel.axvline(at, linewidth=1.6, color=ACCENT)
        panel.set_ylabel(escape_text(classes[c], 14), rotation=0, ha="right", va="center", fontsize=8)
        panel.set_yticks([])
    panels[-1].set_xlabel("expected grade; thick: cut points, thin: fitted without one fold")
    panels[0].set_title("images of each true grade", fontsize=10)
    panel = right.subplots()
    shares = n_images / np.maximum(n_images.sum(1, keepdims=True), 1)
    panel.imshow(shares, cmap=SHARES, vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(n_images):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            panel.text(column, row, f"{count:,}", ha="center", va="center", fontsize=8, color=colour)
    names = [escape_text(name, 20) for name in classes]
    panel.set_xticks(range(n), names, rotation=90 if max(map(len, names)) > 3 else 0, fontsize=8)
    panel.set_yticks(range(n), names, fontsize=8)
    panel.set(xlabel="given (cross-fitted)", ylabel="true")
    return figure


@styled
def new_ranks(targets: np.ndarray, probs: np.ndarray, k: int) -> Any:
    """Return a figure of the share of images with a true label among the first 1, 2, … of a ranking; k is how
    many an answer has."""
    first = first_classes(probs, max(N_FIRST, k))
    found = np.take_along_axis(np.asarray(targets), first, 1) > 0.5
    shares = np.maximum.accumulate(found, axis=1).mean(0)
    places = np.arange(1, len(shares) + 1)
    figure = new_figure(figsize=(6.4, 4.2), layout="constrained")
    panel = figure.subplots()
    panel.bar(places, shares, color=[MAIN if place <= k else "0.8" for place in places])
    for place, share in zip(places, shares):
        panel.text(place, share, f"{share:.3f}", ha="center", va="bottom", fontsize=8)
    panel.set(xlabel=f"first labels of the ranking (an answer has {min(k, len(shares))})", ylim=(0, 1.08))
    panel.set_ylabel("share of images with a true label among them")
    panel.set_xticks(places)
    return figure


@styled
def new_numbers(targets: np.ndarray, numbers: np.ndarray, classes: tuple[str, ...]) -> Any:
    """Return a figure of given against true numbers, a panel per column."""
    n = min(len(classes), MAX_COLUMNS)
    n_columns = min(n, 3)
    n_rows = -(-n // n_columns)
    figure = new_figure(figsize=(4.6 * n_columns, 4.4 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for panel in panels[n:]:
        panel.axis("off")
    for c, panel in zip(range(n), panels):
        known = ~np.isnan(targets[:, c])
        true, given = targets[known, c].astype(float), numbers[known, c].astype(float)
        low, high = min(true.min(), given.min()), max(true.max(), given.max())
        if len(true) > MAX_POINTS:
            panel.hexbin(true, given, gridsize=50, mincnt=1, cmap=SHARES, bins="log")
        else:
            panel.scatter(true, given, s=8, alpha=0.4, linewidths=0)
        panel.plot([low, high], [low, high], color=ACCENT, linewidth=1)
        panel.set(title=escape_text(classes[c], 40), xlabel="true", ylabel="given (cross-fitted)")
    return figure


def _known_auc(true: np.ndarray, probs: np.ndarray) -> float:
    known = known_cells(true)
    return roc_auc(true[known], probs[known])


def _roc(true: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of a ROC curve, MAX_POINTS at most."""
    known = known_cells(true)
    order = np.argsort(-probs[known], kind="stable")
    falling, positive = probs[known][order], true[known][order] > 0.5
    ends = np.flatnonzero(np.r_[falling[1:] != falling[:-1], True])
    x, y = np.r_[0, np.cumsum(~positive)[ends]], np.r_[0, np.cumsum(positive)[ends]]
    keep = np.unique(np.linspace(0, len(x) - 1, MAX_POINTS).astype(int))
    return x[keep] / x[-1], y[keep] / y[-1]

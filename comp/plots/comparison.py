"""The picture of `comp compare`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from comp.decisions.bootstrap import interval
from comp.plots.style import MAIN, bare, escape_text, new_figure, save, styled


def draw(path: Path, *arguments: Any) -> None:
    """Write the picture of a comparison as PNG; the arguments are those of `new_comparison`."""
    save(new_comparison(*arguments), path)


@styled
def new_comparison(
    names: Sequence[str],
    values: Sequence[float],
    resamples: np.ndarray,
    correlation: np.ndarray,
    title: str,
    metric: str,
    sign: int = 1,
) -> Any:
    """Return a figure of the runs' scores (M,), the best on top, and their differences to the first run, both
    with 95 % intervals of `resamples` (B, M), and of the correlation (M, M) of their errors. A lower score is
    better with the sign -1."""
    order = np.argsort(-sign * np.array(values), kind="stable")
    n, first = len(names), int(np.flatnonzero(order == 0)[0])  # the place of the first run
    names, scores = [escape_text(names[i], 36) for i in order], np.array(values)[order]
    resamples, correlation = resamples[:, order], correlation[np.ix_(order, order)]
    others = np.arange(n) != first
    figure = new_figure(figsize=(13, 1.9 + 0.55 * n), layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(1.2, 1.2, 1))
    places = np.arange(n)[::-1]
    gains = resamples - resamples[:, first : first + 1]
    for panel, samples, at, where in (
        (panels[0], resamples, scores, places),
        (panels[1], gains[:, others], (scores - scores[first])[others], places[others]),
    ):
        low, high = np.array([interval(column) for column in samples.T]).T
        panel.hlines(where, low, high, color=MAIN, linewidth=3, alpha=0.5)
        panel.plot(at, where, "o", color=MAIN)
        for x, y in zip(at, where):
            text = f"{x:.4f}" if panel is panels[0] else f"{x:+.4f}"
            panel.annotate(text, (x, y), (0, 6), textcoords="offset points", ha="center", fontsize=8)
        panel.set_ylim(-0.6, n - 0.3)
        panel.grid(axis="x")
        panel.tick_params(axis="y", length=0)
        panel.locator_params(axis="x", nbins=5)
    panels[1].plot(0, places[first], "D", color="0.4")
    panels[1].annotate(
        "first run", (0, places[first]), (0, 7), textcoords="offset points", ha="center", fontsize=8
    )
    left, right = ("worse", "better")[::sign]
    panels[1].set_xlabel(f"{left}  ←  0  →  {right}", fontsize=8)
    panels[0].set_yticks(places, names)
    panels[0].set_title(f"{escape_text(metric)}, cross-fitted, the best on top; bars: 95 %", fontsize=9)
    panels[1].set_yticks(places, names)
    panels[1].axvline(0, color="0.4", linewidth=1)
    panels[1].set_title(f"paired difference to {names[first]}; bars: 95 %", fontsize=9)
    pairs = np.where(np.eye(n, dtype=bool), np.nan, correlation)
    panels[2].imshow(pairs, cmap="Oranges", vmin=min(0.5, np.nanmin(pairs)), vmax=1)
    bare(panels[2])
    for (row, column), r in np.ndenumerate(correlation):
        colour = "white" if r > 0.8 else "black"
        panels[2].text(
            column,
            row,
            f"{r:.3f}" if row != column else "",
            ha="center",
            va="center",
            fontsize=8,
            color=colour,
        )
    panels[2].set_xticks(range(n), names, rotation=30, ha="right", fontsize=8)
    panels[2].set_yticks(range(n), names, fontsize=8)
    panels[2].set_title("correlation of errors\n(low: they blend well)", fontsize=9)
    figure.suptitle(escape_text(title, 200), fontsize=10)
    return figure

"""Pictures of decided labels: thresholds and what they gain, and confusion."""

from typing import Any

import numpy as np
from rich.cells import cell_len

from comp.decisions.bootstrap import N_RESAMPLES, N_SLOW, bootstrap, gains_by_class, interval
from comp.decisions.metrics import FBeta
from comp.decisions.resampling import is_fast
from comp.decisions.rules import FittedRule
from comp.decisions.scorers import Scorer
from comp.plots.style import ACCENT, BAD, GOOD, MUTED, SHARES, bare, escape_text, new_figure, styled

MAX_CLASSES = 60  # with more classes, only the most common are shown
MAX_CELLS = 20_000_000  # decisions; resamples of more take long
FLAT = 0.01  # a difference of F-beta that hardly matters


def most_common(targets: np.ndarray) -> np.ndarray:
    """Return the columns of the most common classes, MAX_CLASSES at most, in order."""
    return np.sort(np.argsort(-np.nansum(targets, 0).astype(int), kind="stable")[:MAX_CLASSES])


@styled
def new_thresholds(
    fitted: FittedRule,
    thresholds_by_fold: np.ndarray,
    metric: Scorer,
    classes: tuple[str, ...],
    probs: np.ndarray,
    targets: np.ndarray,
    decisions: np.ndarray,
    rule: str,
) -> Any:
    """Return a figure with a row per label, the largest gain first: the chosen threshold with those of the
    folds (K, C), on the range in which the label's F-beta hardly changes; and what the cross-fitted decisions
    (N, C) gain on thresholds of 0.5, with 95 % intervals. Rules without thresholds have the gains alone."""
    shown, beta = most_common(targets), metric.metric.beta if metric.metric.name == "fbeta" else 1.0
    alone = FBeta(beta, "macro")
    half = FittedRule(np.full(len(classes), 0.5), min_labels=fitted.min_labels).decide(probs, metric)
    gains = alone.per_class(targets, decisions)[shown] - alone.per_class(targets, half)[shown]
    order = np.argsort(-gains, kind="stable")
    shown, gains = shown[order], gains[order]
    low, high = intervals(gains_by_class(decisions[:, shown], half[:, shown], targets[:, shown], beta))
    with_thresholds = not fitted.expected
    names = [f"{escape_text(classes[c], 34)}  {int(np.nansum(targets[:, c])):,}" for c in shown]
    height = 1.35 + 0.26 * max(4, len(shown))  # inches
    figure = new_figure(figsize=(11 if with_thresholds else 9.5, height), layout="constrained")
    panels = figure.subplots(1, 1 + with_thresholds, squeeze=False, sharey=True)[0]
    places = np.arange(len(shown))[::-1]
    if with_thresholds:
        panel = panels[0]
        flat = np.array([flat_top(probs[:, c], targets[:, c], alone) for c in shown])
        folds = thresholds_by_fold[:, shown]
        panel.hlines(
            places, *flat.T, color="#dfe5ea", linewidth=9, label=f"F{beta:g} at most {FLAT:g} below its best"
        )
        panel.hlines(
            places, folds.min(0), folds.max(0), color=ACCENT, linewidth=2, label="fitted without one fold"
        )
        panel.plot(fitted.thresholds[shown], places, "o", color=ACCENT, markersize=5, label="chosen")
        panel.set(xlim=(0, 1), xlabel="threshold")
        panel.set_title("chosen thresholds", pad=24)
    gain = panels[-1]
    colours = np.select([low > 0, high < 0], [GOOD, BAD], MUTED)
    gain.hlines(places, low, high, color=colours.tolist(), linewidth=2.5, alpha=0.55)
    gain.scatter(gains, places, c=colours.tolist(), s=24, zorder=3)
    gain.axvline(0, color="#8a8f94", linewidth=0.8, zorder=0)
    gain.set_xlabel(f"F{beta:g} of the cross-fitted decisions, minus that with 0.5")
    gain.set_title("gain over 0.5, bars: 95 %; grey: may be chance", pad=24)
    panels[0].set_yticks(places, names)
    panels[0].set_ylim(-0.7, len(shown) - 0.3)
    for panel in panels:
        panel.grid(axis="x")
        panel.tick_params(axis="y", length=0)
    if with_thresholds:
        panels[0].legend(
            loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, borderaxespad=0.2, handlelength=1.2
        )
    figure.suptitle(_headline(metric, targets, decisions, half, rule), fontsize=10, x=0.01, ha="left")
    return figure


def _headline(metric: Scorer, targets: np.ndarray, decisions: np.ndarray, half: np.ndarray, rule: str) -> str:
    score, by_half = metric.score(targets, decisions), metric.score(targets, half)
    gain = f"gain {score - by_half:+.4f}"
    if decisions.size <= MAX_CELLS:
        n_resamples = N_RESAMPLES if isinstance(metric, FBeta) or is_fast(metric) else N_SLOW
        resamples = bootstrap([decisions, half], targets, metric, n_resamples=n_resamples)
        low, high = interval(resamples[:, 0] - resamples[:, 1])
        gain += f", 95 % {low:+.4f} to {high:+.4f}"
    return (
        f"{escape_text(metric.metric, 30)} {score:.4f} cross-fitted, by the rule {escape_text(rule)}; "
        f"0.5 for all labels: {by_half:.4f}\n{gain}; labels with their numbers of images, the largest gain "
        "first"
    )


def intervals(resamples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (C,) lower and (C,) upper ends of the 95 % intervals of resamples (B, C)."""
    low, high = np.array([interval(column) for column in resamples.T]).T
    return low, high


def flat_top(probs: np.ndarray, targets: np.ndarray, metric: FBeta) -> tuple[float, float]:
    """Return the lowest and the highest threshold around the best one with which the score of a label, of
    probabilities (N,) and targets (N,), stays within FLAT of its best. The wider the range, the less the
    exact threshold matters."""
    known = ~np.isnan(targets) if targets.dtype.kind == "f" else slice(None)
    column, true = probs[known], targets[known].astype(int)
    order = np.argsort(-column, kind="stable")
    hits = np.cumsum(true[order])
    values = metric.score_counts(hits, np.arange(1, len(order) + 1), hits[-1:])
    best, near = int(values.argmax()), values >= values.max() - FLAT
    first = best - int(np.argmin(near[best::-1])) + 1 if not near[: best + 1].all() else 0
    last = best + int(np.argmin(near[best:])) - 1 if not near[best:].all() else len(values) - 1
    return float(column[order[last]]), float(column[order[first]])


@styled
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
    panel.imshow(shares, cmap=SHARES, vmin=0, vmax=1)
    for (row, column), n in np.ndenumerate(n_images):
        if n:
            colour = "white" if shares[row, column] > 0.5 else "black"
            panel.text(column, row, f"{n:,}", ha="center", va="center", fontsize=7, color=colour)
    panel.set_xticks(range(len(shown)), names, rotation=90, fontsize=8)
    panel.set_yticks(range(len(shown)), names, fontsize=8)
    panel.set_xlabel("decided (cross-fitted)")
    panel.set_ylabel("true")
    bare(panel)
    return figure

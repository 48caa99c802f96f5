"""compare: finished runs of one competition beside each other.

Reads each run's oof.npz, decision.json, stamps and logs, labels and folds; writes
runs/compare-<names>.png. Rows are joined by id, those that all runs have.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.paths import (
    compared_path,
)
from comp.config.recipe import Phase
from comp.console import clock, say, size_text, table
from comp.data.labels import Labels
from comp.data.manifest import read_training
from comp.decisions.bootstrap import bootstrap, interval, share_above
from comp.decisions.metrics import fbeta, fbeta_per_class, log_losses, precision_per_class
from comp.errors import CompError
from comp.evaluation.comparison import Run, _remarks, _rows, cost_of, error_correlation, read_run
from comp.plots.comparison import draw

N_RESAMPLES = 4000
SIDE_BY_SIDE = 3  # runs whose average precision and F-beta by class fit into one table


def run(names: Sequence[str], *, to: str | None, force: bool) -> None:
    if len(names) < 2:
        raise CompError("two runs or more are expected")
    if to and Path(to).suffix != ".png":
        raise CompError(f"--to {to}: a name that ends in .png is expected")
    if to and Path(to).exists() and not force:
        raise CompError(f"{to} is there; --force replaces it, --to names another file")
    runs: list[Run] = []
    for name in names:
        runs.append(read_run(name, runs))
    names, first = [r.name for r in runs], runs[0]
    competition = first.recipe.competition
    _, labels, _ = read_training(first.recipe)
    ids = labels.ids[np.logical_and.reduce([np.isin(labels.ids, r.ids) for r in runs])]
    if not len(ids):
        raise CompError(f"no image was held out in all of {', '.join(names)}")
    targets = labels.targets[np.isin(labels.ids, ids)]
    rows = [_rows(r.ids, ids) for r in runs]
    probs = np.stack([r.probs[at] for r, at in zip(runs, rows)])  # (M, N, C)
    decisions = [r.decisions[at] for r, at in zip(runs, rows)]
    letters = [chr(ord("A") + i) for i in range(len(runs))]
    n_images, n_labels = f"{len(ids):,} images", f"{len(labels.classes)} labels"
    say(f"compare: {competition.name}, {n_labels}, {n_images} that all runs held out")
    for letter, r, at in zip(letters, runs, rows):
        left = f", {len(r.ids) - len(at):,} more images left out" if len(at) < len(r.ids) else ""
        say(f"{letter}  {r.name}{left}")
    for remark in _remarks(runs):
        say(f"note: {remark}")
    show_settings(runs, letters)
    metric = first.metric
    values = [fbeta(targets, chosen, **metric.settings) for chosen in decisions]
    drawn = bootstrap(decisions, targets, **metric.settings, n_resamples=N_RESAMPLES)
    precision = [precision_per_class(p, targets) for p in probs]
    say("")
    say(f"{metric} cross-fitted, with 95 % intervals of {N_RESAMPLES:,} paired bootstrap resamples")
    lines = []
    for letter, r, value, samples, ap in zip(letters, runs, values, drawn.T, precision):
        gains = samples - drawn[:, 0]
        beside = ["", "", ""]
        if r is not first:
            beside = [f"{value - values[0]:+.4f}", _range(gains, "+.4f"), f"{share_above(gains):.0%}"]
        lines.append([f"{letter} {r.name}", f"{value:.4f}", _range(samples, ".4f"), *beside])
        lines[-1] += [f"{_mean(ap):.4f}", r.rule]
    table(["run", "score", "95 %", "minus A", "95 %", "beats A", "mAP", "rule"], lines)
    per_class = [fbeta_per_class(targets, chosen, beta=metric.settings["beta"]) for chosen in decisions]
    show_classes(labels, targets, letters, precision, per_class, f"F{metric.settings['beta']:g}")
    show_cost(runs, letters)
    correlation = error_correlation(probs, targets)
    show_errors(probs, targets, letters, correlation, [_mean(ap) for ap in precision])
    path = Path(to) if to else compared_path(names)
    draw(path, names, values, drawn, correlation, f"{competition.name}, {n_images}", str(metric))
    say(f"compare: {path}")


# --- what a run was -----------------------------------------------------------------------------------------


# --- what is shown ------------------------------------------------------------------------------------------


def show_settings(runs: Sequence[Run], letters: Sequence[str]) -> None:
    """The settings that differ. Those of training are no settings of a blend, and differ between others."""
    blends = [r for r in runs if "how" in r.made]
    lines = []
    for key in dict.fromkeys(key for r in runs for key in r.settings):
        values = [_text(r.settings[key]) if key in r.settings else "" for r in runs]
        field = Phase.model_fields[key.split(".")[2]] if key.startswith("phases.") else None
        if field and not field.is_required() and set(values) <= {"", _text(field.default)}:
            continue  # of a phase that others lack
        of_blends = any(key in r.settings for r in blends)
        if len({value for r, value in zip(runs, values) if of_blends or r not in blends}) > 1:
            lines.append([key, *values])
    if not lines:
        say("")
        say("nothing differs in what they were made with")
        return
    say("")
    say("what differs")
    table(["", *letters], lines)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _range(values: np.ndarray, form: str) -> str:
    low, high = interval(values)
    return f"{low:{form}} {high:{form}}"


def _mean(precision: np.ndarray) -> float:
    """mAP over the classes that have images."""
    return float(np.nanmean(precision)) if np.isfinite(precision).any() else float("nan")


def show_classes(
    labels: Labels,
    targets: np.ndarray,
    letters: Sequence[str],
    precision: Sequence[np.ndarray],
    per_class: Sequence[np.ndarray],
    score_name: str,
) -> None:
    """Average precision and F-beta of each run by class; * marks the best."""
    blocks = [("AP", np.stack(precision)), (score_name, np.stack(per_class))]
    for several in [blocks] if len(letters) <= SIDE_BY_SIDE else [[block] for block in blocks]:
        header = ["class", "images", *(f"{what} {letter} " for what, _ in several for letter in letters)]
        lines = []
        for c, name in enumerate(labels.classes):
            cells = [cell for _, values in several for cell in _marked(values[:, c])]
            lines.append([name, f"{targets[:, c].sum():,}", *cells])
        say("")
        say("by class, the best of each marked *")
        table(header, lines)


def _marked(values: np.ndarray) -> list[str]:
    texts = ["" if np.isnan(value) else f"{value:.4f}" for value in values]
    alone = texts.count(max(texts)) == 1
    return [f"{text}{'*' if alone and text and text == max(texts) else ' '}" for text in texts]


def show_cost(runs: Sequence[Run], letters: Sequence[str]) -> None:
    say("")
    say("cost; training as if one network after the other, memory of the GPU, or of the process on a CPU")
    lines = []
    for letter, r in zip(letters, runs):
        cost = cost_of(r.name, r.made)
        rate = "" if cost.rate is None else f"{cost.rate:,.0f} at {r.recipe.phases[-1].size} px"
        lines.append([f"{letter} {r.name}", cost.n_networks, f"{cost.n_parameters / 1e6:,.2f} M"])
        lines[-1] += [clock(cost.seconds), rate, size_text(cost.memory)]
    table(["run", "networks", "parameters", "training", "images/s", "memory"], lines)


def show_errors(
    probs: np.ndarray,
    targets: np.ndarray,
    letters: Sequence[str],
    correlation: np.ndarray,
    mean_ap: Sequence[float],
) -> None:
    """Each pair: how alike they err, and what the plain mean of their probabilities gains over the better of
    them. Neither mAP nor log loss needs a threshold, and the mean nothing that is fitted."""
    losses = [log_losses(p, targets).mean() / targets.shape[1] for p in probs]
    lines = []
    for a, b in itertools.combinations(range(len(letters)), 2):
        both = (probs[a] + probs[b]) / 2
        ap = _mean(precision_per_class(both, targets))
        loss = log_losses(both, targets).mean() / targets.shape[1]
        lines.append([f"{letters[a]} + {letters[b]}", f"{correlation[a, b]:.3f}"])
        lines[-1] += [f"{ap:.4f}", f"{ap - max(mean_ap[a], mean_ap[b]):+.4f}"]
        lines[-1] += [f"{loss:.4f}", f"{loss - min(losses[a], losses[b]):+.4f}"]
    say("")
    say("correlation of errors (target - probability, Pearson over all cells), and the mean of two")
    header = ["pair", "correlation", "mAP", "to the better", "log loss", "to the better"]
    table(header, lines)

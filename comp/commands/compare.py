"""compare: finished runs of one competition beside each other.

Reads each run's oof.npz, decision.json, stamps and logs, and the labels and folds; writes
runs/compare-<names>.png. Rows are joined by id; those that all runs have are compared.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.paths import compared_path
from comp.config.recipe import Phase
from comp.console import clock, info, size_text, table
from comp.data.labels import Labels
from comp.decisions.bootstrap import interval, share_above
from comp.decisions.metrics import FBeta, mean_average_precision
from comp.errors import CompError
from comp.evaluation.comparison import N_RESAMPLES, Comparison, Run, compare, cost_of, read_runs
from comp.plots.comparison import draw

SIDE_BY_SIDE = 3  # runs whose average precision and F-beta by class fit into one table


def run(names: Sequence[str], *, to: str | None, force: bool) -> None:
    if len(names) < 2:
        raise CompError("two runs or more are expected")
    if to and Path(to).suffix != ".png":
        raise CompError(f"--to {to}: a name that ends in .png is expected")
    if to and Path(to).exists() and not force:
        raise CompError(f"{to} is there; --force replaces it, --to names another file")
    joined = read_runs(names)
    runs, labels, targets = joined.runs, joined.labels, joined.targets
    names = [r.name for r in runs]
    competition, metric = runs[0].recipe.competition, runs[0].metric
    letters = [chr(ord("A") + i) for i in range(len(runs))]
    n_images, n_labels = f"{len(targets):,} images", f"{len(labels.classes)} labels"
    info(f"compare: {competition.name}, {n_labels}, {n_images} that all runs held out")
    for letter, r in zip(letters, runs):
        n_more = len(r.ids) - len(targets)
        info(f"{letter}  {r.name}" + (f", {n_more:,} more images left out" if n_more else ""))
    for remark in joined.remarks:
        info(f"note: {remark}")
    show_settings(runs, letters)
    result = compare(joined)
    show_scores(runs, result, letters)
    show_classes(
        labels, targets, letters, result.precisions, result.per_class, f"F{FBeta.from_metric(metric).beta:g}"
    )
    show_cost(runs, letters)
    show_errors(result, letters)
    path = Path(to) if to else compared_path(names)
    title = f"{competition.name}, {n_images}"
    draw(path, names, result.values, result.resamples, result.correlation, title, str(metric))
    info(f"compare: {path}")
    show_verdicts(names, result)


def show_settings(runs: Sequence[Run], letters: Sequence[str]) -> None:
    """Print the settings that differ. Blends have no training settings, which are compared between the other
    runs."""
    blends = [r for r in runs if "how" in r.made]
    lines = []
    for key in dict.fromkeys(key for r in runs for key in r.settings):
        values = [_text(r.settings[key]) if key in r.settings else "" for r in runs]
        field = Phase.model_fields[key.split(".")[2]] if key.startswith("phases.") else None
        if field and not field.is_required() and set(values) <= {"", _text(field.default)}:
            continue  # the default, in a phase that other runs lack
        of_blends = any(key in r.settings for r in blends)
        if len({value for r, value in zip(runs, values) if of_blends or r not in blends}) > 1:
            lines.append([key, *values])
    info("")
    if not lines:
        info("the runs were made with the same settings")
        return
    info("what differs")
    table(["", *letters], lines)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def show_scores(runs: Sequence[Run], result: Comparison, letters: Sequence[str]) -> None:
    """Print each run's score and its difference to the first run, with bootstrap intervals."""
    info("")
    metric = runs[0].metric
    info(f"{metric} cross-fitted, with 95 % intervals of {N_RESAMPLES:,} paired bootstrap resamples")
    first, lines = result.resamples[:, 0], []
    for i, (letter, r, value) in enumerate(zip(letters, runs, result.values)):
        samples = result.resamples[:, i]
        gains, difference = samples - first, ["", "", ""]
        if i:
            difference = [
                f"{value - result.values[0]:+.4f}", _range(gains, "+.4f"), f"{share_above(gains):.0%}"
            ]  # fmt: skip
        lines.append([f"{letter} {r.name}", f"{value:.4f}", _range(samples, ".4f"), *difference])
        lines[-1] += [f"{mean_average_precision(result.precisions[i]):.4f}", r.rule]
    table(["run", "score", "95 %", "minus A", "95 %", "beats A", "mAP", "rule"], lines)


def _range(values: np.ndarray, form: str) -> str:
    low, high = interval(values)
    return f"{low:{form}} {high:{form}}"


def show_verdicts(names: Sequence[str], result: Comparison) -> None:
    """Print in a sentence for each run whether it differs from the first: whether the 95 % interval of the
    difference is on one side of 0."""
    for name, value, samples in zip(names[1:], result.values[1:], result.resamples.T[1:]):
        low, high = interval(samples - result.resamples[:, 0])
        sure = "better" if low > 0 else "worse" if high < 0 else "no difference"
        verdict = sure if sure == "no difference" else f"{sure} than {names[0]}"
        info(f"{name}: {value - result.values[0]:+.4f}, 95 % {low:+.4f} to {high:+.4f}: {verdict}")


def show_classes(
    labels: Labels,
    targets: np.ndarray,
    letters: Sequence[str],
    precision: Sequence[np.ndarray],
    per_class: Sequence[np.ndarray],
    score_name: str,
) -> None:
    """Print each run's average precision and F-beta by class; * marks the best."""
    blocks = [("AP", np.stack(precision)), (score_name, np.stack(per_class))]
    for several in [blocks] if len(letters) <= SIDE_BY_SIDE else [[block] for block in blocks]:
        header = ["class", "images", *(f"{what} {letter} " for what, _ in several for letter in letters)]
        lines = []
        for c, name in enumerate(labels.classes):
            cells = [cell for _, values in several for cell in _marked(values[:, c])]
            lines.append([name, f"{targets[:, c].sum():,}", *cells])
        info("")
        info("by class; * marks the best")
        table(header, lines)


def _marked(values: np.ndarray) -> list[str]:
    texts = ["" if np.isnan(value) else f"{value:.4f}" for value in values]
    alone = texts.count(max(texts)) == 1
    return [f"{text}{'*' if alone and text and text == max(texts) else ' '}" for text in texts]


def show_cost(runs: Sequence[Run], letters: Sequence[str]) -> None:
    info("")
    info("cost; training time is summed over networks, memory is the GPU's, or the process's on a CPU")
    lines = []
    for letter, r in zip(letters, runs):
        cost = cost_of(r.name, r.made)
        rate = "" if cost.rate is None else f"{cost.rate:,.0f} at {r.recipe.phases[-1].size} px"
        lines.append([f"{letter} {r.name}", cost.n_networks, f"{cost.n_parameters / 1e6:,.2f} M"])
        lines[-1] += [clock(cost.seconds), rate, size_text(cost.memory)]
    table(["run", "networks", "parameters", "training", "images/s", "memory"], lines)


def show_errors(result: Comparison, letters: Sequence[str]) -> None:
    """Print for each pair the correlation of errors, and what the mean of their probabilities gains."""
    lines = []
    for pair in result.pairs:
        lines.append([f"{letters[pair.first]} + {letters[pair.second]}"])
        lines[-1] += [f"{result.correlation[pair.first, pair.second]:.3f}"]
        lines[-1] += [f"{pair.mean_ap:.4f}", f"{pair.mean_ap_gain:+.4f}"]
        lines[-1] += [f"{pair.log_loss:.4f}", f"{pair.log_loss_gain:+.4f}"]
    info("")
    info("correlation of errors (target - probability, Pearson over all cells), and the mean of two")
    header = ["pair", "correlation", "mAP", "to the better", "log loss", "to the better"]
    table(header, lines)

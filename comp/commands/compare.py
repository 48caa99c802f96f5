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
from comp.data.corrections import describe_corrections
from comp.decisions.bootstrap import interval, share_above
from comp.decisions.class_scores import n_images
from comp.decisions.metrics import mean_average_precision
from comp.errors import CompError
from comp.evaluation.comparison import Comparison, compare, cost_of
from comp.evaluation.joined_runs import JoinedRuns, Run, read_runs
from comp.plots.comparison import draw

SIDE_BY_SIDE = 3  # runs whose average precision and F-beta by class fit into one table
MAX_CLASSES = 60  # rows of that table


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
    n_classes, images = metric.count(len(labels.classes)), f"{len(targets):,} images"
    info(f"compare: {competition.name}, {n_classes}, {images} that all runs held out")
    for letter, r in zip(letters, runs):
        n_more = len(r.ids) - len(targets)
        info(f"{letter}  {r.name}" + (f", {n_more:,} more images left out" if n_more else ""))
    for remark in joined.remarks:
        info(f"note: {remark}")
    show_settings(runs, letters)
    result = compare(joined)
    show_scores(runs, result, letters)
    show_corrected(joined, result, letters)
    show_classes(joined, result, letters)
    show_cost(runs, letters)
    show_errors(result, letters, numbers=metric.kind == "numbers")
    path = Path(to) if to else compared_path(names)
    title = f"{competition.name}, {images}"
    draw(
        path, names, result.values, result.resamples, result.correlation, title, str(metric), result.sign
    )  # fmt: skip
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
    lower = " (lower is better)" if result.sign < 0 else ""
    n = len(result.resamples)
    info(f"{metric}{lower} cross-fitted, with 95 % intervals of {n:,} paired bootstrap resamples")
    first, lines = result.resamples[:, 0], []
    for i, (letter, r, value) in enumerate(zip(letters, runs, result.values)):
        samples = result.resamples[:, i]
        gains, difference = samples - first, ["", "", ""]
        if i:
            difference = [
                f"{value - result.values[0]:+.4f}",
                _range(gains, "+.4f"),
                f"{share_above(result.sign * gains):.0%}",
            ]
        mean_ap = [f"{mean_average_precision(each):.4f}" for each in result.precisions[i : i + 1]]
        lines.append([f"{letter} {r.name}", f"{value:.4f}", _range(samples, ".4f"), *difference])
        lines[-1] += [*mean_ap, r.rule]
    of_labels = ["mAP"] if result.precisions else []
    table(["run", "score", "95 %", "minus A", "95 %", "beats A", *of_labels, "rule"], lines)


def show_corrected(joined: JoinedRuns, result: Comparison, letters: Sequence[str]) -> None:
    """Print all scores by the corrected labels too, if a run has corrections."""
    if (corrected := joined.corrected) is None:
        return
    name, targets = corrected
    changed = describe_corrections(joined.targets, targets, joined.runs[0].recipe.competition)
    info("")
    info(f"by the given labels, which the leaderboard has, and as corrected in {name}: {changed}")
    scores = [joined.scorer.score(targets, decisions) for decisions in joined.decisions]
    rows = zip(letters, joined.runs, result.values, scores)
    table(
        ["run", "given", "corrected"],
        [[f"{letter} {run.name}", f"{given:.4f}", f"{score:.4f}"] for letter, run, given, score in rows],
    )


def _range(values: np.ndarray, form: str) -> str:
    low, high = interval(values)
    return f"{low:{form}} {high:{form}}"


def show_verdicts(names: Sequence[str], result: Comparison) -> None:
    """Print in a sentence for each run whether it differs from the first: whether the 95 % interval of the
    difference is on one side of 0."""
    for name, value, samples in zip(names[1:], result.values[1:], result.resamples.T[1:]):
        low, high = interval(samples - result.resamples[:, 0])
        above, below = ("better", "worse") if result.sign > 0 else ("worse", "better")
        sure = above if low > 0 else below if high < 0 else "no difference"
        verdict = sure if sure == "no difference" else f"{sure} than {names[0]}"
        info(f"{name}: {value - result.values[0]:+.4f}, 95 % {low:+.4f} to {high:+.4f}: {verdict}")


def show_classes(joined: JoinedRuns, result: Comparison, letters: Sequence[str]) -> None:
    """Print each run's scores by class, of labels with average precision; * marks the best. Of very many
    classes show those with most images."""
    classes, images = joined.labels.classes, n_images(joined.scorer, joined.targets)
    own = result.per_class[0]
    blocks = [(own.name, own.sign, np.stack([each.values for each in result.per_class]))]
    if result.precisions:
        blocks.insert(0, ("AP", 1, np.stack(result.precisions)))
    shown = np.arange(len(classes))
    which = "by class"
    if len(classes) > MAX_CLASSES:
        shown = np.sort(np.argsort(-images, kind="stable")[:MAX_CLASSES])
        which = f"by class, for the {MAX_CLASSES} of {len(classes):,} with most images"
    for several in [blocks] if len(letters) <= SIDE_BY_SIDE else [[block] for block in blocks]:
        header = ["class", "images", *(f"{what} {letter} " for what, _, _ in several for letter in letters)]
        lines = []
        for c in shown.tolist():
            cells = [cell for _, sign, values in several for cell in _marked(values[:, c], sign)]
            lines.append([classes[c], f"{images[c]:,}", *cells])
        info("")
        info(f"{which}; * marks the best")
        table(header, lines)


def _marked(values: np.ndarray, sign: int) -> list[str]:
    texts = ["" if np.isnan(value) else f"{value:.4f}" for value in values]
    best = texts[int(np.argmax(np.where(np.isnan(values), -np.inf, sign * values)))]
    alone = texts.count(best) == 1
    return [f"{text}{'*' if alone and text and text == best else ' '}" for text in texts]


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


def show_errors(result: Comparison, letters: Sequence[str], *, numbers: bool) -> None:
    """Print for each pair the correlation of errors, and what the mean of both gains."""
    lines = []
    for pair in result.pairs:
        lines.append([f"{letters[pair.first]} + {letters[pair.second]}"])
        lines[-1] += [f"{result.correlation[pair.first, pair.second]:.3f}"]
        for score, gain in zip(pair.scores, pair.gains):
            lines[-1] += [f"{score:.4f}", f"{gain:+.4f}"]
    info("")
    what = "number" if numbers else "probability"
    info(f"correlation of errors (target - {what}, Pearson over all cells), and the mean of two")
    columns = [column for measure in result.measures for column in (measure.name, "to the better")]
    table(["pair", "correlation", *columns], lines)

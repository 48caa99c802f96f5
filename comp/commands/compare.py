"""compare: finished runs of one competition beside each other.

Reads each run's oof.npz, decision.json, stamps and logs, labels and folds; writes
runs/compare-<names>.png. Rows are joined by id, those that all runs have.
"""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.schemas import Blended, Decision
from comp.artifacts.stamps import (
    compared_path,
    decision_path,
    digest,
    finished_runs,
    flat,
    model_path,
    oof_path,
    read_json,
    read_log,
    read_safetensors_header,
    read_stamp,
    run_dir,
    runs_dir,
)
from comp.config.loading import Metric, Phase, Recipe, load_recipe
from comp.console import clock, say, size_text, table
from comp.data.labels import Labels
from comp.data.manifest import read_training
from comp.decisions.blending import weigh
from comp.decisions.metrics import fbeta, fbeta_per_class
from comp.decisions.rules import decide_by_fold
from comp.errors import CompError, some
from comp.evaluation.comparison import (
    bootstrap,
    error_correlation,
    interval,
    log_losses,
    precision_per_class,
    share_above,
)
from comp.evaluation.results import held_out, parts_of, rules_of
from comp.evaluation.run_metadata import origin_of
from comp.plots.style import new_figure, save, written

N_RESAMPLES = 4000
NO_PARAMETERS = ("running_mean", "running_var", "num_batches_tracked")
SIDE_BY_SIDE = 3  # runs whose average precision and F-beta by class fit into one table


@dataclass(frozen=True)
class Run:
    """A finished run: what it was, by its stamps, and what it said about held-out images."""

    name: str
    recipe: Recipe
    settings: dict[str, Any]  # what it was made with, by dotted keys
    made: dict[str, Any]  # the stamp of oof.npz
    ids: np.ndarray  # (N,) str
    probs: np.ndarray  # (N, C)
    decisions: np.ndarray  # (N, C) 0/1, each fold's by a rule that was fitted without it
    rule: str
    metric: Metric  # which decided
    remarks: tuple[str, ...]


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


def read_run(name: str, before: Sequence[Run]) -> Run:
    """A finished run, by its own name or a recipe's TOML. Raises CompError where there is none, where it is
    of another competition than the runs `before` or of other classes than its labels, or named twice."""
    given = load_recipe(name) if name.endswith(".toml") else None
    name = given.name if given else name
    if "/" in name:
        raise CompError(f"{name}: a run's name, as in {runs_dir()}, or its recipe's TOML file is expected")
    if name in [r.name for r in before]:
        raise CompError(f"{name} is named twice")
    made = read_stamp(oof_path(name), Blended)
    if made is None:
        known = some(finished_runs(), 20) if finished_runs() else "none"
        raise CompError(f"{oof_path(name)} is not there; run `comp blend` first. Finished runs: {known}")
    remarks: list[str] = []
    recipe, settings = _origin(name, made, given, remarks)
    if before and recipe.competition.name != (other := before[0].recipe.competition.name):
        raise CompError(f"{name} is of {recipe.competition.name}, {before[0].name} of {other}")
    data, labels, fold_of = read_training(recipe)
    at, probs = held_out(name, labels)
    if not len(at):
        raise CompError(f"{oof_path(name)} holds no image")
    if made.get("fold_of") != digest(labels.ids, fold_of):
        raise CompError(f"{oof_path(name)} was made with other folds than now; run its stages again")
    settled, parts = recipe.competition, parts_of(recipe, data, labels, at, fold_of)
    path = decision_path(name)
    decision = read_json(path, Decision) if path.exists() else {}
    stamp = decision.get("stamp", {})
    settings["rule"] = stamp.get("rule", recipe.rule)
    now = {"oof": digest(made), "labels": digest(labels.ids, labels.classes, labels.targets)}
    theirs = all(stamp.get(key) == value for key, value in now.items())
    rules = rules_of(decision, labels.classes) if theirs else {}
    if rules:
        rule, settings_then = decision["rule"], stamp["metric"]
        options = {key: settings_then[key] for key in ("beta", "empty") if key in settings_then}
        alike = settings_then == settled.metric.settings
        metric = settled.metric if alike else Metric.model_validate(settings_then)
        decisions = decide_by_fold(rules, probs, parts, **options)
    else:
        metric = settled.metric
        least, single = 0 if settled.labels.empty else 1, settled.labels.single
        weighed = weigh(
            probs, labels.targets[at], parts, **metric.settings, least=least, single=single,
            seed=recipe.seed,
        )  # fmt: skip
        decisions, rule = weighed.decisions, weighed.rule
        why = "decision.json is of other predictions or labels" if path.exists() else "no decision.json"
        remarks.append(f"{name}: {why}, so {rule!r} is cross-fitted here")
    return Run(name, recipe, settings, made, labels.ids[at], probs, decisions, rule, metric, tuple(remarks))


def _origin(
    name: str, made: dict[str, Any], given: Recipe | None, remarks: list[str]
) -> tuple[Recipe, dict[str, Any]]:
    """(the recipe, what was made with it) as files of the run have it."""
    if "how" in made:
        now = {member: digest(read_stamp(oof_path(member))) for member in made["members"]}
        again = [member for member, stamp in made["members"].items() if now[member] != stamp]
        remarks += [f"{name}: {member} was trained or predicted again after `comp blend`" for member in again]
        blended = load_recipe(str(run_dir(name) / "recipe.toml"))
        return blended, {"blend of": ", ".join(made["members"]), "how": made["how"]}
    origin = origin_of(name, made)
    remarks += [f"{name}: fold {k} was trained or predicted again after `comp blend`" for k in origin.changed]
    settings = dict[str, Any]()
    if origin.recipe:
        settings = origin.recipe.model_dump(mode="json", exclude={"name", "track", "tune", "views", "rule"})
        settings["views"] = " ".join(origin.views)
    recipe = origin.recipe or given or load_recipe(name)
    if made["folds"] != list(range(recipe.n_networks)):
        settings["folds"] = ", ".join(map(str, made["folds"]))
    return recipe, flat(settings)


def _rows(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where the wanted ids, which all are there, stand."""
    row = {name: i for i, name in enumerate(ids.tolist())}
    return np.array([row[name] for name in wanted.tolist()], int)


def _remarks(runs: Sequence[Run]) -> list[str]:
    first, remarks = runs[0], [remark for r in runs for remark in r.remarks]
    for r in runs[1:]:
        if r.made["fold_of"] != first.made["fold_of"]:
            remarks.append(
                f"{r.name} has other folds than {first.name}: each is scored by its own, and `comp blend` "
                "doesn't take both"
            )
        if r.metric != first.metric:
            remarks.append(f"{r.name} was decided for another metric than {first.name}'s, which scores it")
    return remarks


@dataclass(frozen=True)
class Cost:
    n_networks: int
    n_parameters: int
    seconds: float  # of training, one fold after the other
    memory: int  # bytes, the most of any
    rate: float | None  # images a second of training at the last size; None of several recipes


def cost_of(name: str, made: dict[str, Any]) -> Cost:
    """What a run took by its logs; of a blend, its members' together."""
    if "how" in made:
        known = {member: read_stamp(oof_path(member), Blended) for member in made["members"]}
        parts = [cost_of(member, stamp) for member, stamp in known.items() if stamp]
        return Cost(
            sum(part.n_networks for part in parts),
            sum(part.n_parameters for part in parts),
            sum(part.seconds for part in parts),
            max((part.memory for part in parts), default=0),
            None,
        )
    rows = [row for fold in made["folds"] for row in read_log(name, fold)]
    models = [path for fold in made["folds"] if (path := model_path(name, fold)).exists()]
    n_parameters = sum(
        math.prod(shape)
        for path in models
        for key, shape in read_safetensors_header(path)[1].items()
        if not key.endswith(NO_PARAMETERS)
    )
    last = [row["images_per_second"] for row in rows if row["size"] == rows[-1]["size"]]
    return Cost(
        len(models),
        n_parameters,
        sum(row["seconds"] for row in rows),
        max((row["memory"] for row in rows), default=0),
        len(last) / sum(1 / rate for rate in last) if last else None,
    )


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


def draw(
    path: Path,
    names: Sequence[str],
    values: Sequence[float],
    drawn: np.ndarray,
    correlation: np.ndarray,
    title: str,
    metric: str,
) -> None:
    """A picture: scores and their differences to the first run with 95 % intervals, and how alike they
    err."""

    n, names = len(names), [written(name, 36) for name in names]
    figure = new_figure(figsize=(13, 1.9 + 0.55 * n), layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(1.2, 1.2, 1))
    places = np.arange(n)[::-1]
    gains = drawn - drawn[:, :1]
    for panel, samples, at in (
        (panels[0], drawn, np.array(values)),
        (panels[1], gains[:, 1:], np.array(values[1:]) - values[0]),
    ):
        low, high = np.array([interval(column) for column in samples.T]).T
        where = places[-len(at) :]
        panel.hlines(where, low, high, color="tab:blue", linewidth=3, alpha=0.5)
        panel.plot(at, where, "o", color="tab:blue")
        for x, y in zip(at, where):
            text = f"{x:.4f}" if panel is panels[0] else f"{x:+.4f}"
            panel.annotate(text, (x, y), (0, 6), textcoords="offset points", ha="center", fontsize=8)
        panel.set_ylim(-0.6, n - 0.3)
        panel.grid(axis="x", color="0.9")
        panel.tick_params(labelsize=8)
        panel.locator_params(axis="x", nbins=5)
    panels[1].plot(0, places[0], "D", color="0.4")
    panels[1].annotate(
        "first run", (0, places[0]), (0, 7), textcoords="offset points", ha="center", fontsize=8
    )
    panels[1].set_xlabel("worse  ←  0  →  better", fontsize=8)
    panels[0].set_yticks(places, names)
    panels[0].set_title(f"{written(metric)}, cross-fitted; bars: 95 %", fontsize=9)
    panels[1].set_yticks(places, names)
    panels[1].axvline(0, color="0.4", linewidth=1)
    panels[1].set_title(f"paired difference to {names[0]}; bars: 95 %", fontsize=9)
    others = np.where(np.eye(n, dtype=bool), np.nan, correlation)
    panels[2].imshow(others, cmap="Oranges", vmin=min(0.5, np.nanmin(others)), vmax=1)
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
    panels[2].set_title("correlation of errors\n(the lower, the better they blend)", fontsize=9)
    figure.suptitle(written(title, 200), fontsize=10)
    save(figure, path)

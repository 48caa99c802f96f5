"""Several finished runs beside each other, on the images that all of them held out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from comp.artifacts.files import flat, read_json
from comp.artifacts.paths import decision_path, finished_runs, model_path, oof_path, run_dir, runs_dir
from comp.artifacts.resumable import read_log
from comp.artifacts.schemas import Blended, Decision
from comp.artifacts.stamps import digest, read_safetensors_header, read_stamp
from comp.config.competition import Metric
from comp.config.loading import load_recipe
from comp.config.recipe import Recipe
from comp.data.manifest import read_training
from comp.decisions.blending import weigh
from comp.decisions.rules import decide_by_fold
from comp.errors import CompError, some
from comp.evaluation.results import held_out, parts_of, rules_of
from comp.evaluation.run_metadata import origin_of

NO_PARAMETERS = ("running_mean", "running_var", "num_batches_tracked")


def error_correlation(members: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(M, M) Pearson correlation of the errors target - probability over all cells of (M, N, C). The less
    two runs err alike, the more their mean gains."""
    return np.atleast_2d(np.corrcoef((targets - members).reshape(len(members), -1)))


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

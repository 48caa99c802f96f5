"""Finished runs of one competition, joined on the images that all of them held out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from comp.artifacts.decision_schema import Decision
from comp.artifacts.files import flatten, read_json
from comp.artifacts.paths import decision_path, finished_runs, oof_path, runs_dir
from comp.artifacts.run_recipe import read_recipe
from comp.artifacts.schemas import BlendStamp
from comp.artifacts.stamps import digest, read_stamp
from comp.config.metric import Metric
from comp.config.recipe import Recipe
from comp.data.corrections import corrections_stamp
from comp.data.labels import Labels, exclusive_groups
from comp.data.manifest import read_training
from comp.decisions.answer_rules import decide_by_fold
from comp.decisions.blending import score_reference
from comp.decisions.decision_stamp import differences
from comp.decisions.rules import is_single_label
from comp.decisions.scorers import Scorer, make_scorer
from comp.errors import CompError, summarize
from comp.evaluation.results import corrected_targets, held_out_answers, parts_of, rules_of, stamp_now
from comp.evaluation.run_metadata import metadata_of

AGAIN = " was trained or predicted again after `comp blend`"


@dataclass(frozen=True)
class Run:
    """A finished run: its settings by its stamps, and its answers for held-out images."""

    name: str
    recipe: Recipe
    settings: dict[str, Any]  # the run's settings, by dotted key
    made: dict[str, Any]  # the stamp of oof.npz
    ids: np.ndarray  # (N,) str
    classes: tuple[str, ...]
    probs: np.ndarray  # (N, C), or numbers
    targets: np.ndarray  # (N, C)
    decisions: np.ndarray  # (N, C) answers, each fold's by a rule that was fitted to the others
    rule: str
    metric: Metric  # the metric that its rule was fitted for
    scorer: Scorer
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class JoinedRuns:
    """M runs of one competition, on the N images that all of them held out."""

    runs: tuple[Run, ...]
    labels: Labels  # of the competition
    targets: np.ndarray  # (N, C)
    probs: np.ndarray  # (M, N, C)
    decisions: list[np.ndarray]  # M times (N, C) answers

    @property
    def scorer(self) -> Scorer:
        """Return the scorer of the first run, which scores all."""
        return self.runs[0].scorer

    @property
    def corrected(self) -> tuple[str, np.ndarray] | None:
        """Return the name of the last run with corrections, and the targets (N, C) with them; None without
        any."""
        common = np.logical_and.reduce([np.isin(self.labels.ids, run.ids) for run in self.runs])
        for run in reversed(self.runs):
            targets = corrected_targets(run.recipe, self.labels, np.flatnonzero(common))
            if targets is not None:
                return run.name, targets
        return None

    @property
    def remarks(self) -> list[str]:
        """Return notes on the runs, and on what differs between them."""
        first, remarks = self.runs[0], [remark for run in self.runs for remark in run.remarks]
        for run in self.runs[1:]:
            if run.made["fold_of"] != first.made["fold_of"]:
                remarks.append(
                    f"{run.name} has other folds than {first.name}: each run is scored by its own folds, and "
                    "`comp blend` refuses the two"
                )
            if run.metric != first.metric:
                remarks.append(
                    f"{run.name} was decided for another metric than {first.name}, whose metric scores all"
                )
        return remarks


def read_runs(names: Sequence[str]) -> JoinedRuns:
    """Return the runs of these names or recipe files, on the images that all of them held out. Raise
    CompError for a name that is given twice, for runs of several competitions, and for none such image."""
    runs: list[Run] = []
    for name in names:
        runs.append(_read_run(name, runs))
    _, labels, _ = read_training(runs[0].recipe)
    common = np.logical_and.reduce([np.isin(labels.ids, run.ids) for run in runs])
    if not common.any():
        raise CompError(f"no image was held out in all of {', '.join(run.name for run in runs)}")
    rows = [_rows_of(labels.ids[common], run.ids) for run in runs]
    probs = np.stack([run.probs[at] for run, at in zip(runs, rows)])
    decisions = [run.decisions[at] for run, at in zip(runs, rows)]
    return JoinedRuns(tuple(runs), labels, runs[0].targets[rows[0]], probs, decisions)


def _read_run(name: str, before: Sequence[Run]) -> Run:
    """Return a finished run by its own name or by the TOML file of its recipe."""
    given = read_recipe(name) if name.endswith(".toml") else None
    name = given.name if given else name
    if "/" in name:
        raise CompError(f"{name}: a run's name, as in {runs_dir()}, or its recipe's TOML file is expected")
    if name in [run.name for run in before]:
        raise CompError(f"{name} is named twice")
    made = read_stamp(oof_path(name), BlendStamp)
    if made is None:
        known = summarize(finished_runs(), 20) if finished_runs() else "none"
        raise CompError(f"{oof_path(name)} is not there; run `comp blend` first. Finished runs: {known}")
    recipe, settings, remarks = _recipe_and_settings(name, made, given)
    if before and recipe.competition.name != (other := before[0].recipe.competition.name):
        raise CompError(f"{name} is of {recipe.competition.name}, {before[0].name} of {other}")
    data, labels, fold_of = read_training(recipe)
    at, probs, targets = held_out_answers(recipe.model_copy(update={"name": name}), labels)
    if not len(at):
        raise CompError(f"{oof_path(name)} holds no image")
    if made.get("fold_of") != labels.fingerprint_of(fold_of):
        raise CompError(f"{oof_path(name)} was made with other folds than now; run its stages again")
    competition, parts = recipe.competition, parts_of(recipe, data, labels, at, fold_of)
    path = decision_path(name)
    decision = read_json(path, Decision) if path.exists() else {}
    stamp = decision.get("stamp", {})
    settings["rule"] = stamp.get("rule", recipe.rule)
    other_inputs = differences(stamp, stamp_now(recipe, labels, fold_of, made), ("oof", "labels"))
    rules = {} if other_inputs else rules_of(decision, labels.classes)
    why = "decision.json is of other predictions or labels" if path.exists() else "no decision.json"
    metric = competition.metric
    if rules and stamp["metric"] != metric.stamp:
        metric = Metric.model_validate(stamp["metric"])
    scored_by = competition.model_copy(update={"metric": metric})
    scorer = make_scorer(scored_by, labels.classes, recipe.code)
    if before:
        first = before[0]
        check_answers(name, metric, labels.classes, first)
        if metric.kind != first.metric.kind:
            why = f"its answer is {metric.kind}, that of {first.name} {first.metric.kind}"
            metric, scorer, rules = first.metric, first.scorer, {}
    if rules:
        rule, decisions = decision["rule"], decide_by_fold(rules, probs, parts, scorer)
        if given := decision.get("given"):
            rule = given["automatic"]
            remarks.append(f"{name} is decided by given thresholds; compared is its automatic rule {rule!r}")
    else:
        scored = score_reference(
            probs, targets, parts, scorer,
            single=is_single_label(targets, exclusive_groups(competition.labels, labels.classes)),
            min_labels=0 if competition.labels.empty else 1, seed=recipe.seed,
        )  # fmt: skip
        decisions, rule = scored.decisions, scored.rule
        remarks.append(f"{name}: {why}, so the reference rule {rule!r} is cross-fitted here")
    return Run(
        name, recipe, settings, made, labels.ids[at], labels.classes, probs, targets, decisions, rule, metric,
        scorer, tuple(remarks),
    )  # fmt: skip


def check_answers(name: str, metric: Metric, classes: tuple[str, ...], first: Run) -> None:
    """Raise CompError unless a run answers for the same classes as the first one, both with numbers or both
    with probabilities."""
    if (metric.kind == "numbers") != (first.metric.kind == "numbers"):
        raise CompError(
            f"{name} answers with {metric.kind}, {first.name} with {first.metric.kind}; nothing scores both"
        )
    if classes != first.classes:
        raise CompError(
            f"{name} has the classes {summarize(classes)}, {first.name} {summarize(first.classes)}"
        )


def _recipe_and_settings(
    name: str, made: dict[str, Any], given: Recipe | None
) -> tuple[Recipe, dict[str, Any], list[str]]:
    """Return a run's recipe, its settings by dotted keys, and remarks, by the run's own files."""
    if "how" in made:
        now = {member: digest(read_stamp(oof_path(member))) for member in made["members"]}
        changed = [member for member, stamp in made["members"].items() if now[member] != stamp]
        remarks = [f"{name}: {member}{AGAIN}" for member in changed]
        blended = read_recipe(name)
        return blended, {"blend of": ", ".join(made["members"]), "how": made["how"]}, remarks
    metadata = metadata_of(name, made)
    remarks = [f"{name}: fold {k}{AGAIN}" for k in metadata.changed]
    settings = dict[str, Any]()
    if metadata.recipe:
        settings = metadata.recipe.model_dump(
            mode="json", exclude={"name", "track", "tune", "code", "views", "rule"}
        )
        settings["views"] = " ".join(metadata.views)
        settings["competition"]["labels"] |= corrections_stamp(metadata.recipe.competition)
    recipe = metadata.recipe or given or read_recipe(name)
    if made["folds"] != list(range(recipe.n_networks)):
        settings["folds"] = ", ".join(map(str, made["folds"]))
    return recipe, flatten(settings), remarks


def _rows_of(wanted: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return the row indices of `wanted` in `ids` (all are present)."""
    row = {name: i for i, name in enumerate(ids.tolist())}
    return np.array([row[name] for name in wanted.tolist()], int)

"""Several finished runs beside each other, on the images that all of them held out."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from comp.artifacts.files import flatten, read_json
from comp.artifacts.paths import decision_path, finished_runs, model_path, oof_path, runs_dir
from comp.artifacts.resumable import read_log
from comp.artifacts.run_recipe import read_recipe
from comp.artifacts.schemas import BlendStamp, Decision
from comp.artifacts.stamps import digest, read_safetensors_header, read_stamp
from comp.config.competition import Metric
from comp.config.recipe import Recipe
from comp.data.labels import Labels, exclusive_groups
from comp.data.manifest import read_training
from comp.decisions.blending import score_reference
from comp.decisions.bootstrap import bootstrap
from comp.decisions.decision_stamp import differences
from comp.decisions.metrics import FBeta, average_precisions, log_losses, mean_average_precision
from comp.decisions.rules import decide_by_fold, is_single_label
from comp.errors import CompError, summarize
from comp.evaluation.results import held_out, parts_of, rules_of, stamp_now
from comp.evaluation.run_metadata import metadata_of

N_RESAMPLES = 4000
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # in model files, but not learned

AGAIN = " was trained or predicted again after `comp blend`"


@dataclass(frozen=True)
class Run:
    """A finished run: its settings by its stamps, and its answers for held-out images."""

    name: str
    recipe: Recipe
    settings: dict[str, Any]  # the run's settings, by dotted key
    made: dict[str, Any]  # the stamp of oof.npz
    ids: np.ndarray  # (N,) str
    probs: np.ndarray  # (N, C)
    decisions: np.ndarray  # (N, C) 0/1, each fold's by a rule that was fitted to the others
    rule: str
    metric: Metric  # the metric that its rule was fitted for
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """The plain mean of two runs' probabilities. Neither mAP nor log loss needs a threshold, and nothing is
    fitted to the mean."""

    first: int
    second: int
    mean_ap: float
    mean_ap_gain: float  # over the better of the two
    log_loss: float  # nats per label
    log_loss_gain: float  # against the better of the two; below 0 it is better


@dataclass(frozen=True)
class JoinedRuns:
    """M runs of one competition, on the N images that all of them held out."""

    runs: tuple[Run, ...]
    labels: Labels  # of the competition
    targets: np.ndarray  # (N, C) 0/1
    probs: np.ndarray  # (M, N, C)
    decisions: list[np.ndarray]  # M times (N, C) 0/1

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


@dataclass(frozen=True)
class Comparison:
    values: list[float]  # (M,) scores by the metric of the first run
    resamples: np.ndarray  # (B, M) scores of bootstrap resamples
    precisions: list[np.ndarray]  # M times (C,) average precisions
    per_class: list[np.ndarray]  # M times (C,) F-beta
    correlation: np.ndarray  # (M, M) of errors
    pairs: list[Pair]


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
    return JoinedRuns(tuple(runs), labels, labels.targets[common], probs, decisions)


def compare(joined: JoinedRuns) -> Comparison:
    """Return the runs' scores and errors. Decisions are scored by the metric of the first run."""
    probs, decisions, targets = joined.probs, joined.decisions, joined.targets
    metric = FBeta.from_metric(joined.runs[0].metric)
    precisions = [average_precisions(p, targets) for p in probs]
    return Comparison(
        values=[metric.score(targets, chosen) for chosen in decisions],
        resamples=bootstrap(decisions, targets, metric, n_resamples=N_RESAMPLES),
        precisions=precisions,
        per_class=[metric.per_class(targets, chosen) for chosen in decisions],
        correlation=error_correlation(probs, targets),
        pairs=_pairs(probs, targets, [mean_average_precision(each) for each in precisions]),
    )


def error_correlation(members: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return (M, M) the Pearson correlation of the errors target - probability over all cells of (M, N, C).
    The lower the correlation of two runs, the more their mean gains."""
    return np.atleast_2d(np.corrcoef((targets - members).reshape(len(members), -1)))


def _pairs(probs: np.ndarray, targets: np.ndarray, mean_aps: Sequence[float]) -> list[Pair]:
    n_classes = targets.shape[1]
    losses = [log_losses(p, targets).mean() / n_classes for p in probs]
    pairs = []
    for a, b in itertools.combinations(range(len(probs)), 2):
        both = (probs[a] + probs[b]) / 2
        ap = mean_average_precision(average_precisions(both, targets))
        loss = log_losses(both, targets).mean() / n_classes
        pairs.append(
            Pair(a, b, ap, ap - max(mean_aps[a], mean_aps[b]), loss, loss - min(losses[a], losses[b]))
        )
    return pairs


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
    at, probs = held_out(name, labels)
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
    if rules:
        rule, same = decision["rule"], stamp["metric"] == competition.metric.stamp
        metric = competition.metric if same else Metric.model_validate(stamp["metric"])
        decisions = decide_by_fold(rules, probs, parts, FBeta.from_metric(metric))
    else:
        metric, targets = competition.metric, labels.targets[at]
        scored = score_reference(
            probs, targets, parts, FBeta.from_metric(metric),
            single=is_single_label(targets, exclusive_groups(competition.labels, labels.classes)),
            min_labels=0 if competition.labels.empty else 1, seed=recipe.seed,
        )  # fmt: skip
        decisions, rule = scored.decisions, scored.rule
        why = "decision.json is of other predictions or labels" if path.exists() else "no decision.json"
        remarks.append(f"{name}: {why}, so the reference rule {rule!r} is cross-fitted here")
    return Run(name, recipe, settings, made, labels.ids[at], probs, decisions, rule, metric, tuple(remarks))


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
    recipe = metadata.recipe or given or read_recipe(name)
    if made["folds"] != list(range(recipe.n_networks)):
        settings["folds"] = ", ".join(map(str, made["folds"]))
    return recipe, flatten(settings), remarks


def _rows_of(wanted: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return the row indices of `wanted` in `ids` (all are present)."""
    row = {name: i for i, name in enumerate(ids.tolist())}
    return np.array([row[name] for name in wanted.tolist()], int)


@dataclass(frozen=True)
class Cost:
    n_networks: int
    n_parameters: int
    seconds: float  # training time, summed over folds
    memory: int  # bytes, the highest of any fold
    rate: float | None  # trained images per second at the last size; None for several recipes


def cost_of(name: str, made: dict[str, Any]) -> Cost:
    """Return what a run took by its logs; a blend took what its members took together."""
    if "how" in made:
        known = {member: read_stamp(oof_path(member), BlendStamp) for member in made["members"]}
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
        if not key.endswith(BUFFERS)
    )
    last = [row["images_per_second"] for row in rows if row["size"] == rows[-1]["size"]]
    return Cost(
        len(models),
        n_parameters,
        sum(row["seconds"] for row in rows),
        max((row["memory"] for row in rows), default=0),
        len(last) / sum(1 / rate for rate in last) if last else None,
    )

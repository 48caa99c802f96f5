"""A decided run, read back: its out-of-fold probabilities, its cross-fitted decisions, and the truth."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from comp.artifacts.files import read_json
from comp.artifacts.paths import decision_path, oof_path
from comp.artifacts.predictions import load
from comp.artifacts.schemas import BlendStamp, Decision
from comp.artifacts.stamps import Stamp, digest, read_stamp
from comp.config.recipe import Recipe
from comp.data.duplicates import with_duplicate_groups
from comp.data.labels import Labels
from comp.data.manifest import CompetitionFiles, read_training
from comp.decisions.decision_stamp import decision_stamp, differences
from comp.decisions.metrics import FBeta
from comp.decisions.rules import FittedRule, decide_by_fold
from comp.errors import CompError, summarize


@dataclass(frozen=True)
class RunResults:
    recipe: Recipe
    data: CompetitionFiles
    labels: Labels
    rows: np.ndarray  # (N,) rows of the labels that were held out
    folds: np.ndarray  # (N,) the fold of each row
    parts: np.ndarray  # (N,) str, see parts_of
    probs: np.ndarray  # (N, C) float32
    decisions: np.ndarray  # (N, C) uint8, each part by the rule that was fitted to the others
    fitted: FittedRule  # the rule fitted to all rows
    rules: dict[str, FittedRule]  # by part, each fitted to the other parts
    made: dict[str, Any]  # the stamp of oof.npz
    decision: dict[str, Any]  # decision.json

    @property
    def targets(self) -> np.ndarray:
        return self.labels.targets[self.rows]

    @property
    def ids(self) -> np.ndarray:
        return self.labels.ids[self.rows]


def read_results(recipe: Recipe) -> RunResults:
    """Return a decided run. Raise CompError where it isn't decided, or was decided with other predictions,
    labels, folds or another metric."""
    path = decision_path(recipe.name)
    if not path.exists():
        raise CompError(f"{path} is not there; run `comp decide` first")
    data, labels, fold_of = read_training(recipe)
    decision, made_from = read_json(path, Decision), read_stamp(oof_path(recipe.name), BlendStamp)
    wanted = stamp_now(recipe, labels, fold_of, made_from)
    if other := differences(decision["stamp"], wanted, ("oof", "labels", "folds", "metric")):
        raise CompError(f"{path} was made with other {' and '.join(other)}; run `comp decide` again")
    rows, probs = held_out(recipe.name, labels)
    folds = fold_of[rows]
    parts, rules = parts_of(recipe, data, labels, rows, fold_of), rules_of(decision, labels.classes)
    if set(rules) != set(parts.tolist()) or "thresholds_by_fold" not in decision:
        raise CompError(f"{path} lacks the rules of some folds; remove it and run `comp decide` again")
    decisions = decide_by_fold(rules, probs, parts, FBeta.from_metric(recipe.competition.metric))
    fitted, made = FittedRule.from_json(decision, labels.classes), made_from or {}
    return RunResults(
        recipe, data, labels, rows, folds, parts, probs, decisions, fitted, rules, made, decision
    )


def stamp_now(recipe: Recipe, labels: Labels, fold_of: np.ndarray, oof_stamp: Stamp | None) -> dict[str, Any]:
    """Return the stamp of a decision that is made now, from an oof.npz with this stamp."""
    return decision_stamp(
        recipe, labels.classes,
        oof=digest(oof_stamp), labels=labels.fingerprint, folds=labels.fingerprint_of(fold_of),
    )  # fmt: skip


def held_out(name: str, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Return (N,) the rows of the labels and (N, C) the probabilities that a run's oof.npz holds. Raise
    CompError for ids without labels."""
    path = oof_path(name)
    oof = load(path, labels.classes)
    row = {image: i for i, image in enumerate(labels.ids.tolist())}
    if unknown := [image for image in oof.ids.tolist() if image not in row]:
        raise CompError(f"{path} has ids without labels: {summarize(unknown)}; run `comp predict` again")
    return np.array([row[image] for image in oof.ids.tolist()], int), oof.probs


def parts_of(
    recipe: Recipe, data: CompetitionFiles, labels: Labels, rows: np.ndarray, fold_of: np.ndarray
) -> np.ndarray:
    """Return (N,) str the parts by which held-out rows (N,) are cross-fitted: their folds or, if only one
    fold was held out, random fifths. Images of one group are in one part, as in folds."""
    parts = fold_of[rows]
    if len(np.unique(parts)) == 1:
        groups = with_duplicate_groups(labels, recipe.competition.name, data.fingerprint).fold_groups
        units, unit_of = np.unique((labels.ids if groups is None else groups)[rows], return_inverse=True)
        parts = (np.random.default_rng(recipe.seed).permutation(len(units)) % 5)[unit_of]
    return parts.astype(str)


def rules_of(decision: dict[str, Any], classes: tuple[str, ...]) -> dict[str, FittedRule]:
    """Return by part the rule of a decision.json that was fitted to the other parts; empty if it has none."""
    rules = decision.get("by_fold") or decision.get("by_fifth") or {}
    return {part: FittedRule.from_json(rule, classes) for part, rule in rules.items()}

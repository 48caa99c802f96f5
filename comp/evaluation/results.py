"""A decided run: what its networks answered for images that they had not seen, what was decided by rules that
had not seen them either, and what is true."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from comp.artifacts.files import read_json
from comp.artifacts.paths import decision_path, oof_path
from comp.artifacts.predictions import load
from comp.artifacts.schemas import Blended, Decision
from comp.artifacts.stamps import digest, read_stamp
from comp.config.recipe import Recipe
from comp.data.duplicates import grouped
from comp.data.labels import Labels
from comp.data.manifest import Data, read_training
from comp.decisions.rules import Fitted, decide_by_fold
from comp.errors import CompError, some


@dataclass(frozen=True)
class Outcome:
    recipe: Recipe
    data: Data
    labels: Labels
    rows: np.ndarray  # (N,) of the labels, those that were held out
    folds: np.ndarray  # (N,) in which each was
    parts: np.ndarray  # (N,) str, see parts_of
    probs: np.ndarray  # (N, C) float32
    decisions: np.ndarray  # (N, C) uint8, of each part by the rule as fitted to the others
    fitted: Fitted  # to all rows
    rules: dict[str, Fitted]  # by part, to all others
    made: dict[str, Any]  # the stamp of oof.npz
    decision: dict[str, Any]  # decision.json

    @property
    def targets(self) -> np.ndarray:
        return self.labels.targets[self.rows]

    @property
    def ids(self) -> np.ndarray:
        return self.labels.ids[self.rows]


def read_outcome(recipe: Recipe) -> Outcome:
    """Raises CompError where the run isn't decided, or was with other predictions, labels or folds."""
    path = decision_path(recipe.name)
    if not path.exists():
        raise CompError(f"{path} is not there; run `comp decide` first")
    data, labels, fold_of = read_training(recipe)
    decision, made_from = read_json(path, Decision), read_stamp(oof_path(recipe.name), Blended)
    now = {
        "oof": digest(made_from),
        "labels": digest(labels.ids, labels.classes, labels.targets),
        "folds": digest(labels.ids, fold_of),
        "metric": recipe.competition.metric.settings,
    }
    if other := [key for key, value in now.items() if decision["stamp"].get(key) != value]:
        raise CompError(f"{path} was made with other {' and '.join(other)}; run `comp decide` again")
    rows, probs = held_out(recipe.name, labels)
    folds = fold_of[rows]
    settings = recipe.competition.metric.settings
    options = {key: settings[key] for key in ("beta", "empty") if key in settings}
    parts, rules = parts_of(recipe, data, labels, rows, fold_of), rules_of(decision, labels.classes)
    if set(rules) != set(parts.tolist()) or "thresholds_by_fold" not in decision:
        raise CompError(f"{path} is of an older version; remove it and run `comp decide` again")
    decisions = decide_by_fold(rules, probs, parts, **options)
    fitted, made = Fitted.from_json(decision, labels.classes), made_from or {}
    return Outcome(recipe, data, labels, rows, folds, parts, probs, decisions, fitted, rules, made, decision)


def held_out(name: str, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """(rows (N,) of the labels, probs (N, C)) of a run's oof.npz. Raises CompError for ids without labels."""
    path = oof_path(name)
    oof = load(path, labels.classes)
    row = {image: i for i, image in enumerate(labels.ids.tolist())}
    if unknown := [image for image in oof.ids.tolist() if image not in row]:
        raise CompError(f"{path} has ids without labels: {some(unknown)}; predict again")
    return np.array([row[image] for image in oof.ids.tolist()], int), oof.probs


def parts_of(recipe: Recipe, data: Data, labels: Labels, rows: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
    """(N,) str: the parts by which held-out rows (N,) of the labels are cross-fitted. Their folds; where one
    fold alone was held out fifths at random, which keep together what folds do."""
    parts = fold_of[rows]
    if len(np.unique(parts)) == 1:
        groups = grouped(labels, recipe.competition.name, data.stamp).groups
        units, unit_of = np.unique((labels.ids if groups is None else groups)[rows], return_inverse=True)
        parts = (np.random.default_rng(recipe.seed).permutation(len(units)) % 5)[unit_of]
    return parts.astype(str)


def rules_of(decision: dict[str, Any], classes: tuple[str, ...]) -> dict[str, Fitted]:
    """By part, the rule of a decision.json as fitted to the others; none in older files."""
    rules = decision.get("by_fold") or decision.get("by_fifth") or {}
    return {part: Fitted.from_json(rule, classes) for part, rule in rules.items()}

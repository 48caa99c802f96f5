"""A decided run: what its networks answered for images that they had not seen, what was decided by rules that
had not seen them either, and what is true."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from comp.artifacts import decision_path, digest, oof_path, read_json, read_stamp
from comp.config import Recipe
from comp.errors import CompError, some
from comp.labels import Labels
from comp.manifest import Data, read_training
from comp.predictions import aligned, load
from comp.rules import Fitted, decide_by_fold


@dataclass(frozen=True)
class Outcome:
    recipe: Recipe
    data: Data
    labels: Labels
    rows: np.ndarray  # (N,) of the labels, those that were held out
    folds: np.ndarray  # (N,) in which each was
    probs: np.ndarray  # (N, C) float32
    decisions: np.ndarray  # (N, C) uint8, of each fold by the rule as fitted to the others
    fitted: Fitted  # to all rows
    by_fold: tuple[Fitted, ...]  # to all but one fold's; empty where one fold alone was held out
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
    decision, made_from = read_json(path), read_stamp(oof_path(recipe.name))
    oof = load(oof_path(recipe.name), labels.classes)
    now = {
        "oof": digest(made_from),
        "labels": digest(labels.ids, labels.classes, labels.targets),
        "folds": digest(labels.ids, fold_of),
        "metric": recipe.competition.metric.settings,
    }
    if other := [key for key, value in now.items() if decision["stamp"].get(key) != value]:
        raise CompError(f"{path} was made with other {' and '.join(other)}; run `comp decide` again")
    row = {name: i for i, name in enumerate(labels.ids.tolist())}
    if unknown := [name for name in oof.ids.tolist() if name not in row]:
        raise CompError(f"{oof_path(recipe.name)} has ids without labels: {some(unknown)}; predict again")
    rows = np.array([row[name] for name in oof.ids.tolist()])
    probs, folds = aligned(oof, labels.ids[rows], oof_path(recipe.name)), fold_of[rows]
    settings = recipe.competition.metric.settings
    options = {key: settings[key] for key in ("beta", "empty") if key in settings}
    fitted = Fitted.from_json(decision, labels.classes)
    by_fold = {
        fold: Fitted.from_json(rule, labels.classes) for fold, rule in decision.get("by_fold", {}).items()
    }
    rules = by_fold or dict.fromkeys(np.unique(folds).astype(str).tolist(), fitted)
    decisions = decide_by_fold(rules, probs, folds, **options)
    return Outcome(
        recipe, data, labels, rows, folds, probs, decisions, fitted, tuple(by_fold.values()), decision
    )

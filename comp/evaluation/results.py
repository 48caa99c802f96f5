"""A decided run, read back: its out-of-fold probabilities, its cross-fitted decisions, and the truth."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from comp.artifacts.decision_schema import Decision
from comp.artifacts.files import read_json
from comp.artifacts.paths import decision_path, oof_path
from comp.artifacts.predictions import by_answer, load
from comp.artifacts.schemas import BlendStamp
from comp.artifacts.stamps import Stamp, digest, read_stamp
from comp.config.recipe import Recipe
from comp.data.corrections import correct, corrections_stamp
from comp.data.duplicates import with_duplicate_groups
from comp.data.labels import Labels
from comp.data.manifest import CompetitionFiles, read_training
from comp.decisions.answer_rules import Rule, decide_by_fold, rule_from_json
from comp.decisions.decision_stamp import decision_stamp, differences
from comp.decisions.scorers import Scorer, make_scorer
from comp.errors import CompError, summarize


@dataclass(frozen=True)
class RunResults:
    recipe: Recipe
    data: CompetitionFiles
    labels: Labels
    rows: np.ndarray  # (N,) rows of the labels that were held out; of an answer for several images, the first
    folds: np.ndarray  # (N,) the fold of each row
    parts: np.ndarray  # (N,) str, see parts_of
    probs: np.ndarray  # (N, C) float32
    targets: np.ndarray  # (N, C), NaN where unknown
    decisions: np.ndarray  # (N, C) answers, each part by the rule that was fitted to the others
    fitted: Rule  # the rule fitted to all rows
    rules: dict[str, Rule]  # by part, each fitted to the other parts
    scorer: Scorer
    made: dict[str, Any]  # the stamp of oof.npz
    decision: dict[str, Any]  # decision.json

    @property
    def ids(self) -> np.ndarray:
        return self.labels.ids[self.rows]

    @cached_property
    def corrected(self) -> np.ndarray | None:
        """Return (N, C) the targets with the corrections of the competition; None without any."""
        return corrected_targets(self.recipe, self.labels, self.rows)


def read_results(recipe: Recipe) -> RunResults:
    """Return a decided run. Raise CompError where it isn't decided, or was decided with other predictions,
    labels, folds or another metric."""
    path = decision_path(recipe.name)
    if not path.exists():
        raise CompError(f"{path} is not there; run `comp decide` first")
    data, labels, fold_of = read_training(recipe)
    decision, made_from = read_json(path, Decision), read_stamp(oof_path(recipe.name), BlendStamp)
    wanted = stamp_now(recipe, labels, fold_of, made_from)
    if other := differences(
        decision["stamp"], wanted, ("oof", "labels", "folds", "metric", "code", "corrections")
    ):
        raise CompError(f"{path} was made with other {' and '.join(other)}; run `comp decide` again")
    rows, probs, targets = held_out_answers(recipe, labels)
    folds = fold_of[rows]
    parts, rules = parts_of(recipe, data, labels, rows, fold_of), rules_of(decision, labels.classes)
    if set(rules) != set(parts.tolist()) or not decision.keys() & {"thresholds_by_fold", "classes"}:
        raise CompError(f"{path} lacks the rules of some folds; remove it and run `comp decide` again")
    scorer = make_scorer(recipe.competition, labels.classes, recipe.code)
    decisions = decide_by_fold(rules, probs, parts, scorer)
    fitted, made = rule_from_json(decision, labels.classes), made_from or {}
    return RunResults(
        recipe,
        data,
        labels,
        rows,
        folds,
        parts,
        probs,
        targets,
        decisions,
        fitted,
        rules,
        scorer,
        made,
        decision,
    )


def stamp_now(recipe: Recipe, labels: Labels, fold_of: np.ndarray, oof_stamp: Stamp | None) -> dict[str, Any]:
    """Return the stamp of a decision that is made now, from an oof.npz with this stamp."""
    made = decision_stamp(
        recipe, labels.classes,
        oof=digest(oof_stamp), labels=labels.fingerprint, folds=labels.fingerprint_of(fold_of),
    )  # fmt: skip
    return made | corrections_stamp(recipe.competition)


def corrected_targets(recipe: Recipe, labels: Labels, rows: np.ndarray) -> np.ndarray | None:
    """Return (N, C) the targets of these rows with the corrections of the competition; None without any."""
    learned = correct(labels, recipe.competition)
    return None if learned is labels else learned.targets[rows]


def held_out(name: str, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Return (N,) the rows of the labels and (N, C) the probabilities that a run's oof.npz holds. Raise
    CompError for ids without labels."""
    path = oof_path(name)
    oof = load(path, labels.classes)
    row = {image: i for i, image in enumerate(labels.ids.tolist())}
    if unknown := [image for image in oof.ids.tolist() if image not in row]:
        raise CompError(f"{path} has ids without labels: {summarize(unknown)}; run `comp predict` again")
    return np.array([row[image] for image in oof.ids.tolist()], int), oof.probs


def held_out_answers(recipe: Recipe, labels: Labels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (N,) rows of the labels, and (N, C) the probabilities and targets of the answers that a run's
    oof.npz holds: one for each image or, with labels.answer_id, one for several images, whose row is their
    first. Images without a known target are left out."""
    rows, probs = held_out(recipe.name, labels)
    targets = labels.targets[rows]
    if labels.answer_ids is not None:
        answer_of, how = labels.answer_ids[rows], recipe.competition.submission.aggregate
        names, first = np.unique(answer_of, return_index=True)
        numbers = recipe.competition.metric.kind == "numbers"
        targets = by_answer(targets, answer_of, names, how if numbers else "max")
        rows, probs = rows[first], by_answer(probs, answer_of, names, how)
    if targets.dtype.kind == "f" and (unknown := np.isnan(targets).all(1)).any():
        rows, probs, targets = rows[~unknown], probs[~unknown], targets[~unknown]
    return rows, probs, targets


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


def rules_of(decision: dict[str, Any], classes: tuple[str, ...]) -> dict[str, Rule]:
    """Return by part the rule of a decision.json that was fitted to the other parts; empty if it has none."""
    rules = decision.get("by_fold") or decision.get("by_fifth") or {}
    return {part: rule_from_json(rule, classes) for part, rule in rules.items()}

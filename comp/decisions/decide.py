"""Decide arrays: the best rule from probabilities to answers, with a cross-fitted score."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from comp.decisions.answer_rules import Rule, answer_candidates
from comp.decisions.cross_fitting import AnswerFitter, CrossFitter, Fitter, ScoredRule
from comp.decisions.metrics import FBeta, are_binary
from comp.decisions.rule_search import SearchSettings
from comp.decisions.rules import REFERENCE_SINGLE, ColumnGroups, candidates, is_single_label
from comp.decisions.scorers import Scorer
from comp.decisions.selection import CrossFittedChoice, choose_rule, cross_fit_choice
from comp.errors import CompError


@dataclass(frozen=True)
class Decision:
    """A fitted rule. Like a scikit-learn estimator, it decides new probabilities with `predict`."""

    rule: str
    fitted: Rule
    metric: Scorer
    scores: dict[str, float]  # cross_fitted (it counts the choice of rule), in_sample, default
    choice: CrossFittedChoice = field(repr=False)  # each fold by a rule that the other folds chose
    scored: tuple[ScoredRule, ...] = field(repr=False)  # all candidates
    win_probabilities: dict[str, float] = field(repr=False)  # of each rule against the reference rule

    @property
    def parameters(self) -> dict[str, Any]:
        return self.fitted.as_json([str(c) for c in range(self.fitted.n_classes)])

    @property
    def chosen(self) -> ScoredRule:
        return next(s for s in self.scored if s.rule == self.rule)

    def predict(self, probs: np.ndarray) -> np.ndarray:
        """Return answers (N, C) for probabilities or numbers (N, C). Raise CompError for another number of
        classes."""
        probs, n_classes = check_matrix(probs, "probs", self.metric), self.fitted.n_classes
        if probs.shape[1] != n_classes:
            raise CompError(f"probs have {probs.shape[1]} classes; the rule was fitted to {n_classes}")
        return self.fitted.decide(probs, self.metric)


def decide(
    probs: np.ndarray,
    targets: np.ndarray,
    metric: Scorer = FBeta(),  # noqa: B008  (frozen)
    *,
    rule: str = "auto",
    folds: np.ndarray | None = None,
    exclusive: ColumnGroups = (),
    min_labels: int | None = None,
    settings: SearchSettings = SearchSettings(),  # noqa: B008  (frozen)
) -> Decision:
    """Return the best rule from probabilities to answers for the metric, with a cross-fitted score.

    `probs` (N, C) are out-of-fold probabilities, or numbers where the metric scores numbers. `targets` (N, C)
    are 0/1, or numbers; NaN means unknown and is left out. `rule` is "auto", or one of `RULES`, with
    "+exclusive", "+limits" or "+temperature" if wanted; where the metric does not score labels, one of
    `ANSWER_RULES`. `folds` (N,) are the folds of the networks. By default, and where there is only one, rows
    are split into five random folds. `exclusive` are groups of columns, and an image has one label of each.
    One group of all columns, with targets that agree, means one label per image: the rules are then those of
    `SINGLE_LABEL_RULES`, and F-beta of samples is the accuracy. An image gets at least `min_labels` labels;
    the default is one if every image has one, else 0.

    Raise CompError for shapes or values that don't fit."""
    if isinstance(metric, FBeta):
        _check_metric(metric)
    probs = check_matrix(probs, "probs", metric)
    targets = check_targets(targets, probs.shape, metric)
    if not isinstance(rule, str):
        raise CompError(f"rule is {rule!r}; auto, or a rule's name is expected")
    _check_groups(exclusive, probs.shape[1])
    folds = _folds(folds, len(probs), settings.seed)
    fitter: Fitter

    def step() -> None:
        settings.report_progress(next(done), total)

    if metric.answer == "labels":
        fitter = CrossFitter(
            probs, targets, folds, metric, groups=exclusive, min_labels=min_labels, settings=settings,
            step=step,
        )  # fmt: skip
        simplest = REFERENCE_SINGLE if fitter.single else "0.5"
        average = metric.metric.average
        names = candidates(rule, probs.shape, average, bool(exclusive), fitter.single)
        if len(probs) == 1:
            names = [REFERENCE_SINGLE if fitter.single else "global"]
    else:
        fitter = AnswerFitter(probs, targets, folds, metric, step)
        single = metric.answer == "grades" or is_single_label(targets, exclusive)
        names = answer_candidates(rule, metric, single=single)
        simplest = answer_candidates("auto", metric, single=single)[0]
        names = names if len(probs) > 1 else [simplest]
    done, total = count(1), len(names) * (1 + len(fitter.names))
    scored = tuple(fitter.score(name) for name in names)
    if not np.isfinite([s.cross_fitted for s in scored]).all():
        raise CompError(
            f"{metric.metric} of these {len(probs):,} rows is not defined: no class has both known values"
        )
    chosen, win_probabilities = choose_rule(scored, targets, metric, seed=settings.seed)
    default = fitter.decide(fitter.fit(simplest))

    def take(seen: Sequence[ScoredRule], true: np.ndarray) -> ScoredRule:
        return choose_rule(seen, true, metric, seed=settings.seed)[0]

    choice = cross_fit_choice(scored, targets, folds, take, metric)
    scores = {
        "cross_fitted": choice.score,
        "in_sample": chosen.in_sample,
        "default": metric.score(targets, default),
    }
    return Decision(chosen.rule, chosen.fitted, metric, scores, choice, scored, win_probabilities)


def check_targets(targets: Any, shape: tuple[int, ...], metric: Scorer) -> np.ndarray:
    """Return targets (N, C): uint8 0/1, or floats where there are numbers or unknown ones, NaN. Raise
    CompError for other shapes and values, and for rows without a known target."""
    targets = np.asarray(targets)
    what = "numbers" if metric.answer == "numbers" else "0/1"
    if targets.shape != shape or targets.dtype.kind not in "biuf":
        raise CompError(f"targets are {targets.shape}; {what} in the shape of probs, {shape}, is expected")
    if targets.dtype.kind != "f" and metric.answer in ("labels", "probabilities") and are_binary(targets):
        return targets.astype(np.uint8, copy=False)
    unknown = np.isnan(targets) if targets.dtype.kind == "f" else np.zeros(shape, bool)
    known = targets[~unknown]
    if not (np.isfinite(known).all() if metric.answer == "numbers" else np.isin(known, (0, 1)).all()):
        raise CompError(f"targets are {targets.shape}; {what} in the shape of probs, {shape}, is expected")
    if len(lacking := np.flatnonzero(unknown.all(1))):
        raise CompError(
            f"row {lacking[0]} of targets has no known value, like {len(lacking)}; leave them out"
        )
    if metric.answer in ("grades", "ranking") and unknown.any():
        raise CompError(f"targets have unknown values, which {metric.metric} can't use; leave these rows out")
    if metric.answer == "grades" and (wrong := np.flatnonzero(known.reshape(shape).sum(1) != 1)).size:
        raise CompError(f"row {wrong[0]} of targets has {targets[wrong[0]].sum():g} grades; one is expected")
    if metric.answer == "numbers" or unknown.any():
        return targets.astype(np.float32 if targets.dtype == np.float32 else np.float64)
    return targets.astype(np.uint8)


def _check_metric(metric: FBeta) -> None:
    beta, zero_division = metric.beta, metric.zero_division
    if metric.average not in ("samples", "macro", "micro"):
        raise CompError(f"average is {metric.average!r}; samples, macro or micro is expected")
    if not isinstance(beta, Real) or not 0 < beta <= 1000:
        raise CompError(f"beta is {beta!r}; a number above 0 and up to 1000 is expected")
    if not isinstance(zero_division, Real) or not 0 <= zero_division <= 1:
        raise CompError(f"zero_division is {zero_division!r}; a number from 0 to 1 is expected")
    if zero_division and metric.average != "samples":
        raise CompError(f"zero_division is {zero_division!r}; it needs the average samples")


def _folds(folds: Any, n: int, seed: int) -> np.ndarray:
    """Return the given folds (N,); five random ones where there are none, or only one."""
    random = np.random.default_rng(seed).permutation(n) % min(5, n)
    if folds is None:
        return random
    folds = np.asarray(folds)
    if folds.shape != (n,):
        raise CompError(f"folds are {len(folds) if folds.ndim == 1 else folds.shape} for {n} rows")
    if pd.isna(folds).any():
        raise CompError(f"folds lack {pd.isna(folds).sum()} of {n} values")
    names, folds = np.unique(folds.astype(str), return_inverse=True)
    return folds if len(names) > 1 else random


def _check_groups(groups: Any, n_classes: int) -> None:
    members: list[int] = []
    for group in groups:
        if not isinstance(group, Sequence) or len(group) < 2:
            raise CompError(f"exclusive holds {group!r}; groups of two columns or more are expected")
        members += group
    if bad := [c for c in members if not 0 <= c < n_classes]:
        raise CompError(f"exclusive names column {bad[0]}; there are {n_classes}, counted from 0")
    if len(set(members)) < len(members):
        raise CompError(f"exclusive has groups that overlap: {groups}")


def check_matrix(probs: np.ndarray, what: str, metric: Scorer | None = None) -> np.ndarray:
    """Return probabilities, or with a metric that scores numbers any numbers, (N, C) as floats. Raise
    CompError for other shapes and values."""
    try:
        probs = np.asarray(probs, None if np.asarray(probs).dtype.kind == "f" else np.float64)
    except (TypeError, ValueError) as error:
        raise CompError(f"{what} are not numbers ({error})") from error
    if probs.ndim != 2 or not probs.size:
        raise CompError(f"{what} have the shape {probs.shape}; (images, classes) is expected")
    if metric is not None and metric.answer == "numbers":
        if not np.isfinite(probs).all():
            raise CompError(f"{what} hold numbers that are not finite")
    elif not np.isfinite(probs).all() or probs.min() < 0 or probs.max() > 1:
        raise CompError(f"{what} hold numbers that are not from 0 to 1; are they logits?")
    return probs

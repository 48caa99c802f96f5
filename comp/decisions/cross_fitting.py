"""Cross-fitting: each fold is decided by the rule that was fitted to the other folds."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from comp.artifacts.stamps import digest
from comp.decisions.answer_rules import AnswerRule, Rule, fit_answer_rule
from comp.decisions.metrics import FBeta
from comp.decisions.rule_search import HeldOut, RuleParts, SearchSettings
from comp.decisions.rules import REFERENCE_SINGLE, ColumnGroups, FittedRule, check_rule
from comp.decisions.scorers import Scorer


@dataclass(frozen=True)
class ScoredRule:
    """A rule with its scores."""

    rule: str
    fitted: Rule  # to all rows
    in_sample: float
    cross_fitted: float
    decisions: np.ndarray = field(repr=False)  # (N, C) answers, cross-fitted
    by_fold: tuple[Rule, ...] = field(repr=False)  # each fitted to the other folds


class Fitter(ABC):
    """Fits rules to probabilities (N, C) and targets (N, C) without some of the folds (N,)."""

    def __init__(
        self,
        probs: np.ndarray,
        targets: np.ndarray,
        folds: np.ndarray,
        metric: Scorer,
        step: Callable[[], None] = lambda: None,
    ):
        self.step = step  # called after each fit of `score`
        self.probs, self.targets, self.folds, self.metric = probs, targets, folds, metric
        self.names = tuple(np.unique(folds).tolist())

    @abstractmethod
    def fit(self, rule: str, held: HeldOut = frozenset()) -> Rule:
        """Return the rule fitted to all rows outside of the folds `held`."""

    def decide(self, fitted: Rule, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        return fitted.decide(self.probs[rows], self.metric)

    def score(self, rule: str) -> ScoredRule:
        """Return the rule fitted to all rows, and the answers for each fold by the rule that was fitted to
        the other folds."""
        fitted = self.fit(rule)
        self.step()
        in_sample = self.decide(fitted)
        decisions, by_fold = np.zeros_like(in_sample), []
        for name in self.names:
            part = self.folds == name
            by_fold.append(self.fit(rule, frozenset({name})))
            decisions[part] = self.decide(by_fold[-1], part)
            self.step()
        score, cross_fitted = (self.metric.score(self.targets, answers) for answers in (in_sample, decisions))
        return ScoredRule(rule, fitted, score, cross_fitted, decisions, tuple(by_fold))


class AnswerFitter(Fitter):
    """Fits rules for answers that are no labels."""

    def fit(self, rule: str, held: HeldOut = frozenset()) -> AnswerRule:
        rows = ~np.isin(self.folds, list(held))
        return fit_answer_rule(rule, self.probs[rows], self.targets[rows], self.metric)


class CrossFitter(Fitter):
    """Fits rules for labels."""

    def __init__(
        self,
        probs: np.ndarray,
        targets: np.ndarray,
        folds: np.ndarray,
        metric: Scorer,
        *,
        groups: ColumnGroups = (),
        min_labels: int | None = 0,
        settings: SearchSettings = SearchSettings(),  # noqa: B008  (frozen)
        step: Callable[[], None] = lambda: None,
    ):
        super().__init__(probs, targets, folds, metric, step)
        self.min_labels = min_labels
        if settings.storage:  # a study resumes only with the same inputs
            key = (tuple(tuple(group) for group in groups), min_labels)
            made_of = digest(probs, targets, folds, *_made_of(metric, key))
            settings = replace(settings, name=f"{settings.name} {made_of}".strip())
        self.parts = RuleParts(probs, targets, folds, metric, groups, settings)
        self.single, self.groups = self.parts.single, self.parts.groups
        self.known: dict[tuple[str, HeldOut], FittedRule] = {}

    def fit(self, rule: str, held: HeldOut = frozenset()) -> FittedRule:
        check_rule(rule, single=self.single, grouped=bool(self.groups))
        if (rule, held) not in self.known:
            fit = self._fit_with_extra if "+" in rule else self._fit_base
            self.known[rule, held] = fit(rule, held)
        return self.known[rule, held]

    def _fit_base(self, rule: str, held: HeldOut) -> FittedRule:
        parts, n_classes, min_labels = self.parts, self.probs.shape[1], self._min_labels(held)
        if rule == "expected":
            slopes, offsets = parts.calibration(held)
            half = np.full(n_classes, 0.5)
            return FittedRule(half, expected=True, slopes=slopes, offsets=offsets, min_labels=min_labels)
        if rule in ("0.5", "0.2", REFERENCE_SINGLE):
            thresholds = np.full(n_classes, 0.5 if self.single else float(rule))
        elif rule == "global":
            thresholds = np.full(n_classes, parts.global_threshold(held))
        elif rule == "per-class":
            thresholds = parts.class_thresholds(held)
        elif rule == "prevalence":
            thresholds = parts.prevalence(held)
        elif rule == "shrunk":
            thresholds = parts.shrunk(held, parts.share(held))
        else:
            thresholds = parts.optuna_thresholds(held)
        return parts.with_thresholds(thresholds, min_labels)

    def _fit_with_extra(self, rule: str, held: HeldOut) -> FittedRule:
        """Return the rule without its last extra, with that extra added."""
        before, _, extra = rule.rpartition("+")
        fitted = self.fit(before, held)
        if extra == "exclusive":
            return replace(fitted, groups=self.groups)
        if not self.parts.can_search(held):
            return fitted
        rows, parts = self.parts.inner(held)
        fewest = self._min_labels(held)
        largest = max(int(np.nansum(self.targets[rows], 1).max()), fewest, 1)
        inner = {name: self.fit(before, held | {name}) for name in parts}

        def suggest(trial: Any) -> dict[str, Any]:
            if extra == "temperature":
                return {"temperature": trial.suggest_float("temperature", 0.5, 2.0, log=True)}
            return {
                "min_labels": trial.suggest_int("min_labels", fewest, max(fewest, min(3, largest))),
                "max_labels": trial.suggest_int("max_labels", max(fewest, min(3, largest)), largest),
            }

        def value(trial: Any) -> float:
            changes = suggest(trial)
            decided = np.zeros((rows.sum(), self.probs.shape[1]), np.uint8)
            for name, part in parts.items():
                decided[part] = self.decide(replace(inner[name], **changes), np.flatnonzero(rows)[part])
            return self.metric.sign * self.metric.score(self.targets[rows], decided)

        limits = {"min_labels": fewest, "max_labels": largest}
        start = {"temperature": 1.0} if extra == "temperature" else limits
        best = self.parts.search(f"fit {rule} without {sorted(held)}", value, [start])
        return replace(fitted, **best)

    def _min_labels(self, held: HeldOut) -> int:
        """Return how many labels each image gets at least: the given number, or one if all images outside of
        `held` have a label."""
        if self.min_labels is not None:
            return self.min_labels
        return int(self.parts.every_image_has_labels(held))


def _made_of(metric: Scorer, key: tuple[Any, ...]) -> list[Any]:
    """Return what studies are stamped with: the metric and what the rules depend on besides."""
    if not isinstance(metric, FBeta):
        return [metric.metric.stamp, *key]
    more = [metric.zero_division] if metric.zero_division else []
    return [metric.beta, metric.average, *key, *more]

"""Rules for answers that are no labels: probabilities, grades, rankings and numbers. By name, fitted, and as
JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from comp.config.metric import Answer
from comp.decisions.calibration import EPS, calibration, logit, sigmoid, temperature, tempered
from comp.decisions.cut_points import (
    expected_grades,
    grades_of,
    kappa_cut_points,
    search_cut_points,
)
from comp.decisions.metrics import FBeta, most_probable, one_hot
from comp.decisions.rules import REFERENCE_SINGLE, FittedRule
from comp.decisions.scorers import Scorer, known_cells
from comp.decisions.thresholds import class_thresholds
from comp.errors import CompError, summarize

AS_IS = "as-is"
ANSWER_RULES: dict[Answer, dict[str, str]] = {  # simple ones first
    "grades": {
        REFERENCE_SINGLE: "the most probable grade",
        "rounded": "the expected grade, rounded",
        "cut-points": "the expected grade, between cut points that are fitted to the metric",
    },
    "probabilities": {
        AS_IS: "the probabilities as they are",
        "calibrated": "each label's probabilities, calibrated by Platt scaling",
        "temperature": "probabilities that sum to 1, with a fitted temperature",
        "binary": "for probabilistic F-beta: 0 or 1, by a threshold per label",
    },
    "ranking": {AS_IS: "the likeliest labels in order"},
    "numbers": {
        AS_IS: "the numbers as they are",
        "clipped": "the numbers within the range of the targets",
    },
}
BY_ORDER = ("roc_auc", "average_precision")  # metrics that read the order of probabilities only


@dataclass(frozen=True)
class AnswerRule:
    """A rule with its parameters. What is None is left out."""

    answer: Answer
    n_classes: int
    slopes: np.ndarray | None = None  # (C,) calibration: logits times slope plus offset
    offsets: np.ndarray | None = None  # (C,)
    temperature: float | None = None  # divides the logarithms of probabilities
    cut_points: np.ndarray | None = None  # (C - 1,) on the expected grade
    binary: np.ndarray | None = None  # (C,) thresholds; the answer is 1 above them, else 0
    low: np.ndarray | None = None  # (C,) the lowest numbers
    high: np.ndarray | None = None  # (C,) the highest numbers
    expected: ClassVar[bool] = False  # this and the next as FittedRule has them
    min_labels: ClassVar[int] = 0

    def decide(self, probs: np.ndarray, metric: Scorer | None = None) -> np.ndarray:
        """Return answers (N, C) for probabilities or numbers (N, C): a grade as 0/1 uint8, else floats."""
        if self.answer == "grades":
            if self.cut_points is None:
                return most_probable(probs)
            return one_hot(grades_of(expected_grades(probs), self.cut_points), self.n_classes)
        if self.slopes is not None and self.offsets is not None:
            return np.clip(sigmoid(logit(probs) * self.slopes + self.offsets), EPS, 1 - EPS)
        if self.temperature is not None:
            return np.clip(tempered(probs, self.temperature), EPS, 1 - EPS)
        if self.binary is not None:
            return (probs > self.binary).astype(probs.dtype)
        return probs if self.low is None else np.clip(probs, self.low, self.high)

    def threshold_of(self, c: int) -> None:
        """Return None: no label has a threshold."""

    def is_nearest(self, probs: np.ndarray, given: np.ndarray) -> bool:
        """Return False, see FittedRule.is_nearest."""
        return False

    def as_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return the rule. In a file it is comp.artifacts.schemas.Rule."""
        named = {name: getattr(self, name) for name in ("slopes", "offsets", "binary", "low", "high")}
        return {
            "answer": self.answer,
            **{k: dict(zip(classes, map(float, v))) for k, v in named.items() if v is not None},
            **({} if self.temperature is None else {"temperature": self.temperature}),
            **({} if self.cut_points is None else {"cut_points": self.cut_points.tolist()}),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], classes: Sequence[str]) -> "AnswerRule":
        """Return the rule that `as_json` gave. Raise CompError unless it is of these classes."""

        def values(name: str) -> np.ndarray | None:
            found = content.get(name)
            if found is not None and set(found) != set(classes):
                raise CompError(
                    f"decision.json has the labels {summarize(found)}, not {summarize(classes)}; "
                    "run `comp decide` again"
                )
            return None if found is None else np.array([found[c] for c in classes], float)

        cuts = content.get("cut_points")
        if cuts is not None and len(cuts) != len(classes) - 1:
            raise CompError(
                f"decision.json has {len(cuts)} cut points for {len(classes)} grades; run `comp decide` again"
            )
        return cls(
            content["answer"], len(classes), values("slopes"), values("offsets"),
            content.get("temperature"), None if cuts is None else np.array(cuts, float),
            values("binary"), values("low"), values("high"),
        )  # fmt: skip


Rule = FittedRule | AnswerRule


def rule_from_json(content: dict[str, Any], classes: Sequence[str]) -> Rule:
    """Return the rule of any kind that its `as_json` gave. Raise CompError unless it is of these classes."""
    kind: type[Rule] = AnswerRule if "answer" in content else FittedRule
    return kind.from_json(content, classes)


def cuts_of(rule: Rule) -> list[float]:
    """Return the cut points of a rule; none where it has none."""
    cuts = None if isinstance(rule, FittedRule) else rule.cut_points
    return [] if cuts is None else cuts.tolist()


def cuts_by_fold(rules: Sequence[Rule]) -> np.ndarray | None:
    """Return (K, C) thresholds, or (K, C - 1) cut points, of rules that were fitted without one fold each;
    None where they have none."""
    cuts = [rule.thresholds if isinstance(rule, FittedRule) else rule.cut_points for rule in rules]
    known = [each for each in cuts if each is not None]
    return np.array(known) if len(known) == len(cuts) else None


def decide_by_fold(
    rules: Mapping[str, Rule], probs: np.ndarray, folds: np.ndarray, metric: Scorer
) -> np.ndarray:
    """Return answers (N, C) for probabilities (N, C) of these folds (N,), each fold by its own rule."""
    names = folds.astype(str)
    of_part = {name: rule.decide(probs[names == name], metric) for name, rule in rules.items()}
    answers = np.zeros(probs.shape, np.result_type(*of_part.values()))
    for name, answered in of_part.items():
        answers[names == name] = answered
    return answers


def answer_candidates(rule: str, scorer: Scorer, *, single: bool) -> list[str]:
    """Return the names of the rules to score for `rule`, simple ones first. With `single` each image has
    exactly one label. Raise CompError for a rule that does not suit the answers."""
    known = list(ANSWER_RULES[scorer.answer])
    if scorer.answer == "probabilities":
        known.remove("calibrated" if single else "temperature")
        if scorer.metric.name != "probabilistic_fbeta":
            known.remove("binary")
        by_order = scorer.metric.name in BY_ORDER and scorer.metric.average == "macro"
        auto = known[:1] if by_order else known
    else:
        auto = known
    if rule != "auto" and rule not in known:
        raise CompError(
            f"no rule {rule!r} for {scorer.metric}, whose answer is {scorer.answer}; there are "
            f"{', '.join(known)}"
        )
    return auto if rule == "auto" else [rule]


def fit_answer_rule(rule: str, probs: np.ndarray, targets: np.ndarray, scorer: Scorer) -> AnswerRule:
    """Return the rule of this name, fitted to probabilities or numbers (N, C) and targets (N, C)."""
    fitted = AnswerRule(scorer.answer, probs.shape[1])
    if rule == "calibrated":
        slopes, offsets = calibration(probs, targets)
        return replace(fitted, slopes=slopes, offsets=offsets)
    if rule == "temperature":
        return replace(fitted, temperature=temperature(probs, targets))
    if rule == "binary":  # of 0 and 1, probabilistic F-beta is F-beta
        unknown = ~known_cells(targets)
        probs, true = np.where(unknown, 0, probs), np.where(unknown, 0, targets).astype(np.uint8)
        return replace(fitted, binary=class_thresholds(probs, true, FBeta(scorer.metric.beta, "macro")))
    if rule == "rounded":
        return replace(fitted, cut_points=np.arange(probs.shape[1] - 1) + 0.5)
    if rule == "cut-points":
        expected, true = expected_grades(probs), targets.argmax(1)
        cuts = kappa_cut_points(expected, true, probs.shape[1])
        if scorer.metric.name != "quadratic_kappa":
            cuts = search_cut_points(
                expected, cuts,
                lambda given: scorer.sign * scorer.score(targets, one_hot(given, probs.shape[1])),
            )  # fmt: skip
        return replace(fitted, cut_points=cuts)
    if rule == "clipped":
        return replace(fitted, low=np.nanmin(targets, axis=0), high=np.nanmax(targets, axis=0))
    return fitted

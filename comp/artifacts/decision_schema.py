"""The schema of decision.json: a fitted rule, its scores, and what it was made with."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from comp.artifacts.schemas import Count, Positive, Share, Stored
from comp.config.metric import Metric


class Rule(Stored):
    """A fitted rule: thresholds of comp.decisions.rules.FittedRule, or comp.decisions.answer_rules.AnswerRule
    where `answer` says what an answer is."""

    answer: Literal["grades", "probabilities", "ranking", "numbers"] | None = None
    thresholds: Annotated[dict[str, Share], Field(min_length=1)] | None = None
    expected: bool = False
    slopes: dict[str, float] | None = None
    offsets: dict[str, float] | None = None
    temperature: Positive | None = 1.0
    groups: list[Annotated[list[str], Field(min_length=1)]] = []
    min_labels: Count = 0
    max_labels: Count | None = None
    cut_points: list[float] | None = None
    binary: dict[str, Share] | None = None
    low: dict[str, float] | None = None
    high: dict[str, float] | None = None

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if (self.answer is None) == (self.thresholds is None):
            raise ValueError(
                "'thresholds' is missing" if self.answer is None else "answer and thresholds are both set"
            )
        for first, second in (("slopes", "offsets"), ("low", "high")):
            if (getattr(self, first) or {}).keys() != (getattr(self, second) or {}).keys():
                raise ValueError(f"{first} have other labels than {second}")
        if self.cut_points and self.cut_points != sorted(self.cut_points):
            raise ValueError("cut_points don't rise")
        if self.thresholds is None:
            return self
        if self.slopes is not None and self.slopes.keys() != self.thresholds.keys():
            raise ValueError("slopes have other labels than thresholds")
        grouped = [label for group in self.groups for label in group]
        if len(set(grouped)) < len(grouped) or not set(grouped) <= self.thresholds.keys():
            raise ValueError("groups have a label twice, or one without a threshold")
        return self


def classes_of(decision: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the classes of a decision.json, in order."""
    return tuple(decision["classes"] if decision.get("classes") else decision["thresholds"])


class PartRule(Rule):
    """A fitted rule with its name."""

    rule: str


class MetricSettings(Metric):
    """The metric in a decision's stamp."""

    model_config = ConfigDict(strict=True)


class DecisionStamp(Stored):
    """The stamp of decision.json."""

    oof: str
    labels: str
    folds: str
    metric: MetricSettings


class Scores(Stored):
    """The scores in decision.json."""

    default: float
    in_sample: float
    cross_fitted: float
    corrected: float | None = None


class Given(Stored):
    """What decision.json says besides where a person gave the rule."""

    automatic: str  # the rule that has the cross-fitted score
    automatic_in_sample: float
    warning: str


class Decision(PartRule):
    """decision.json."""

    metric: str
    given: Given | None = None
    classes: list[str] | None = None
    by_fold: dict[str, PartRule] = {}
    by_fifth: dict[str, PartRule] = {}
    thresholds_by_fold: dict[str, Annotated[list[Share], Field(min_length=1)]] | None = None
    cut_points_by_fold: list[list[float]] | None = None
    scores: Scores
    stamp: DecisionStamp

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        if not (self.classes or self.thresholds):
            raise ValueError("'classes' is missing")
        labels = self.thresholds.keys() if self.thresholds else None
        for name in ("by_fold", "by_fifth"):
            for part, rule in getattr(self, name).items():
                if (rule.thresholds.keys() if rule.thresholds else None) != labels:
                    raise ValueError(f"{name}.{part} has other labels than thresholds")
        if self.thresholds_by_fold is not None and self.thresholds_by_fold.keys() != labels:
            raise ValueError("thresholds_by_fold have other labels than thresholds")
        return self

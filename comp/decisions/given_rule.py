"""Thresholds or cut points that a person gives, as a TOML file of the report's threshold lab."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field

from comp.config.loading import read_toml, validated
from comp.config.metric import Metric
from comp.config.schema import Strict, did_you_mean
from comp.decisions.answer_rules import AnswerRule, Rule
from comp.decisions.rules import ColumnGroups, FittedRule
from comp.errors import CompError, summarize

GIVEN = "given"  # the rule's name in decision.json


class GivenThresholds(Strict):
    """The file. Labels have `thresholds`, grades `cut_points`."""

    model_config = ConfigDict(strict=True)

    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] | None = None
    cut_points: list[float] | None = None
    exclusive: bool = False
    """With thresholds: exactly one label of each group that labels.exclusive lists is given."""


def read_given(
    path: Path,
    classes: Sequence[str],
    metric: Metric,
    *,
    groups: ColumnGroups,
    single: bool,
    min_labels: int,
) -> Rule:
    """Return the rule of a file for these classes. `groups` are columns of labels that exclude each other;
    with `single` each image has exactly one label. Raise CompError for a file that is not there, or not of
    exactly these classes."""
    if metric.kind not in ("labels", "grades"):
        raise CompError(
            f"--thresholds {path}: {metric} is scored by {metric.kind}; thresholds are for labels and grades"
        )
    if not path.is_file():
        raise CompError(f"--thresholds {path}: no such file; the report's threshold lab writes it")
    given: GivenThresholds = validated(GivenThresholds, read_toml(path), path)
    key, other = ("thresholds", "cut_points") if metric.kind == "labels" else ("cut_points", "thresholds")
    if getattr(given, key) is None or getattr(given, other) is not None:
        form = "a number from 0 to 1 for each label" if key == "thresholds" else "one between each two grades"
        has = other if getattr(given, other) is not None else f"no {key}"
        raise CompError(f"{path} has {has}; {key}, {form}, are expected for {metric}")
    if given.cut_points is not None:
        return AnswerRule("grades", len(classes), cut_points=_checked(given, given.cut_points, classes, path))
    thresholds = given.thresholds or {}
    if unknown := [name for name in thresholds if name not in classes]:
        hint = did_you_mean(unknown[0], classes) or f"; the labels are {summarize(classes)}"
        raise CompError(f"{path}: thresholds has unknown labels, {summarize(unknown)}{hint}")
    if missing := [name for name in classes if name not in thresholds]:
        raise CompError(f"{path}: thresholds lacks labels, {summarize(missing)}; each one needs a threshold")
    if given.exclusive and not groups:
        raise CompError(f"{path} has exclusive = true, but the competition's labels.exclusive lists no group")
    kept = tuple(tuple(group) for group in groups) if given.exclusive or single else ()
    return FittedRule(np.array([thresholds[name] for name in classes]), groups=kept, min_labels=min_labels)


def _checked(given: GivenThresholds, cuts: list[float], classes: Sequence[str], path: Path) -> np.ndarray:
    if given.exclusive:
        raise CompError(f"{path} has exclusive = true, which goes with thresholds, not with cut_points")
    if len(cuts) != len(classes) - 1:
        raise CompError(f"{path} has {len(cuts)} cut_points; {len(classes)} grades have {len(classes) - 1}")
    if cuts != sorted(cuts):
        raise CompError(f"{path}: cut_points {cuts} don't rise")
    return np.array(cuts)


def with_given(
    content: dict[str, Any], rule: Rule, in_sample: float, classes: Sequence[str]
) -> dict[str, Any]:
    """Return the content of decision.json with a given rule in place of the automatic one, which keeps the
    cross-fitted score and the rules by fold."""
    automatic, own = content["rule"], content["scores"]["in_sample"]
    return {
        **content,
        "rule": GIVEN,
        **rule.as_json(classes),
        "scores": {**content["scores"], "in_sample": in_sample},
        GIVEN: {
            "automatic": automatic,
            "automatic_in_sample": own,
            "warning": "Test images are decided by what a person gave, who may have seen every held-out "
            f"image: its score is in-sample. cross_fitted is the score of the automatic rule {automatic!r}, "
            "which also decides each fold.",
        },
    }

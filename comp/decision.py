"""`comp.Decision`: a fitted rule with the names of its labels. It decides new probabilities, shows itself as
a table and as a picture, and is saved and loaded as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import pandas as pd

from comp.artifacts import schemas
from comp.artifacts.files import read_json, write_json
from comp.config.competition import Metric
from comp.decisions import decide as deciding
from comp.decisions.metrics import FBeta, average_precisions
from comp.decisions.rule_search import SearchSettings
from comp.decisions.rules import ColumnGroups, FittedRule
from comp.errors import CompError
from comp.plots.thresholds import Shown, new_picture


class SavedDecision(schemas.PartRule):
    """The file of Decision.save, and of `comp decide --probs`."""

    beta: schemas.Positive
    average: str
    zero_division: schemas.Share
    scores: schemas.Scores
    thresholds_by_fold: dict[str, list[schemas.Share]] | None = None
    rules: dict[str, dict[str, float | None]] = {}
    labels: dict[str, dict[str, float | None]] | None = None


class DecideOptions(TypedDict, total=False):
    """Keywords of `decide`, as `comp.decisions.decide.decide` describes them."""

    rule: str
    folds: np.ndarray | None
    exclusive: ColumnGroups
    min_labels: int | None
    settings: SearchSettings


@dataclass(frozen=True)
class Rows:
    """The held-out rows that a rule was fitted to."""

    probs: np.ndarray  # (N, C)
    targets: np.ndarray  # (N, C) 0/1
    decisions: np.ndarray  # (N, C) 0/1, as chosen fold by fold


@dataclass(frozen=True, repr=False)
class Decision:
    """A fitted rule. Like a scikit-learn estimator, it decides new probabilities with `predict`."""

    rule: str
    fitted: FittedRule
    metric: FBeta
    scores: dict[str, float]  # cross_fitted (it counts the choice of rule), in_sample, default
    classes: tuple[str, ...]
    rules: pd.DataFrame  # by rule: cross_fitted, in_sample, beats_reference
    thresholds_by_fold: np.ndarray | None  # (K, C) of this rule, each without one fold
    labels: pd.DataFrame | None  # by label: images, AP, F-beta
    rows: Rows | None = None

    @classmethod
    def of(
        cls,
        decided: deciding.Decision,
        probs: np.ndarray,
        targets: np.ndarray,
        classes: Sequence[str] | None = None,
    ) -> "Decision":
        """Return what `comp.decisions.decide.decide` found for these arrays (N, C). Without `classes` the
        labels are "0", "1", …"""
        names = tuple(map(str, range(probs.shape[1]) if classes is None else classes))
        beats = decided.win_probabilities
        rules = {s.rule: (s.cross_fitted, s.in_sample, beats[s.rule]) for s in decided.scored}
        return cls(
            decided.rule, decided.fitted, decided.metric, decided.scores, names, _rules(rules),
            np.array([fitted.thresholds for fitted in decided.chosen.by_fold]), None,
        ).with_rows(Rows(probs, targets, decided.choice.decisions))  # fmt: skip

    def with_rows(self, rows: Rows) -> "Decision":
        """Return the decision with the rows that it was fitted to, and each label's scores on them."""
        columns = {
            "images": rows.targets.sum(0, dtype=int),
            "AP": average_precisions(rows.probs, rows.targets),
            f"F{self.metric.beta:g}": self.metric.per_class(rows.targets, rows.decisions),
        }
        labels = pd.DataFrame(columns, index=pd.Index(self.classes, name="label"))
        return replace(self, labels=labels, rows=rows)

    def predict(self, probs: np.ndarray | pd.DataFrame) -> Any:
        """Return decisions (N, C) 0/1 for probabilities (N, C): an array for an array, a table for a table.
        Raise CompError for other classes."""
        if isinstance(probs, pd.DataFrame):
            if list(probs.columns) != list(self.classes):
                raise CompError(f"the table has the columns {list(probs.columns)}, not {list(self.classes)}")
            return pd.DataFrame(self.predict(probs.to_numpy()), probs.index, probs.columns)
        probs = deciding.check_matrix(probs, "probs")
        if probs.shape[1] != len(self.classes):
            raise CompError(
                f"probs have {probs.shape[1]} classes; the rule was fitted to {len(self.classes)}"
            )
        return self.fitted.decide(probs, self.metric)

    def to_frame(self) -> pd.DataFrame:
        """Return a table by label: threshold and its spread over the folds (NaN where the rule compares
        labels with each other) and, where they are known, images, AP and F-beta."""
        thresholds = [self.fitted.threshold_of(c) for c in range(len(self.classes))]
        names = pd.Index(self.classes, name="label")
        frame = pd.DataFrame({"threshold": thresholds}, index=names, dtype=float)
        if self.thresholds_by_fold is not None:
            frame["spread"] = np.where(frame["threshold"].isna(), np.nan, self.thresholds_by_fold.std(0))
        return frame if self.labels is None else frame.join(self.labels)

    def __repr__(self) -> str:
        return f"Decision({self.rule}, {self._score()}, {len(self.classes)} labels)"

    def _repr_html_(self) -> str:
        table = self.to_frame().to_html(float_format="{:.4f}".format, na_rep="")
        return f"<p><b>{escape(self.rule)}</b>, {self._score()}</p>{table}"

    def _score(self) -> str:
        metric = f"{self.metric.average} F{self.metric.beta:g}"
        how = "as chosen fold by fold" if len(self.rules) != 1 else "cross-fitted"
        return f"{metric} {self.scores['cross_fitted']:.4f} {how}"

    def plot(self) -> Any:
        """Return a matplotlib Figure: each label's F-beta against its threshold or, with one label per image,
        the confusion of labels. Raise CompError for a decision that was loaded from a file alone."""
        if self.rows is None or self.thresholds_by_fold is None:
            raise CompError(
                "this decision was loaded without the probabilities that it was fitted to; plot that of "
                "comp.load_run or comp.decide"
            )
        rows = self.rows
        return new_picture(
            Shown(
                self.rule, self.fitted, self.thresholds_by_fold, self.metric, self.classes,
                rows.probs, rows.targets, rows.decisions,
            )
        )  # fmt: skip

    def save(self, path: str | PathLike[str]) -> None:
        """Write the rule, its scores and the scores by label as JSON."""
        metric = {
            "beta": self.metric.beta, "average": self.metric.average,
            "zero_division": self.metric.zero_division,
        }  # fmt: skip
        folds, labels = self.thresholds_by_fold, self.labels
        n_rows = {} if self.rows is None else {"n_rows": len(self.rows.targets)}
        by_label = {} if labels is None else {"labels": _records(labels)}
        by_fold = {} if folds is None else {"thresholds_by_fold": dict(zip(self.classes, folds.T.tolist()))}
        content = {"rule": self.rule, **self.fitted.as_json(self.classes), **by_fold, **metric}
        scores = {"scores": self.scores, "rules": _records(self.rules)}
        write_json(Path(path), {**content, **scores, **by_label, **n_rows})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Decision":
        """Return the decision that `save`, `comp decide --probs` or a run wrote. Raise CompError for a
        missing or damaged file."""
        place = Path(path)
        if not place.is_file():
            raise CompError(f"{place}: no such file; `comp decide` writes it")
        of_run = "stamp" in read_json(place)
        content = read_json(place, schemas.Decision if of_run else SavedDecision)
        classes = tuple(content["thresholds"])
        if of_run:
            metric = FBeta.from_metric(Metric.model_validate(content["stamp"]["metric"]))
            beats = content["scores"].get("sure", {})
            known = content["scores"].get("rules", {})
            rules = {name: (s["cross_fitted"], s["in_sample"], beats.get(name)) for name, s in known.items()}
        else:
            metric = FBeta(content["beta"], content["average"], content["zero_division"])
            rules = {name: tuple(values.values()) for name, values in content.get("rules", {}).items()}
        folds = content.get("thresholds_by_fold")
        scores = {key: content["scores"][key] for key in ("cross_fitted", "in_sample", "default")}
        labels = None
        if content.get("labels"):
            labels = pd.DataFrame.from_dict(content["labels"], orient="index").rename_axis("label")
        return cls(
            content["rule"], FittedRule.from_json(content, classes), metric, scores, classes, _rules(rules),
            None if folds is None else np.array([folds[name] for name in classes]).T, labels,
        )  # fmt: skip


def decide(
    probs: np.ndarray | pd.DataFrame,
    targets: np.ndarray | pd.DataFrame,
    metric: FBeta = FBeta(),  # noqa: B008  (frozen)
    *,
    classes: Sequence[str] | None = None,
    **options: Unpack[DecideOptions],
) -> Decision:
    """Return the best rule from probabilities to labels, as `comp.decisions.decide.decide`, with its
    `options`. `classes` (C,) names the labels; a table has them as its columns."""
    if isinstance(probs, pd.DataFrame):
        classes = list(map(str, probs.columns)) if classes is None else classes
        if isinstance(targets, pd.DataFrame):
            if not probs.index.isin(targets.index).all() or list(probs.columns) != list(targets.columns):
                raise CompError("targets lack rows or columns of probs; both have ids and the same labels")
            targets = targets.loc[probs.index]
        probs = probs.to_numpy()
    targets = np.asarray(targets)
    decided = deciding.decide(probs, targets, metric, **options)
    if classes is not None and len(set(map(str, classes))) != len(decided.fitted.thresholds):
        raise CompError(f"classes are {len(set(classes))} names for {len(decided.fitted.thresholds)} labels")
    return Decision.of(decided, np.asarray(probs, float), targets.astype(np.uint8), classes)


def _rules(scores: Mapping[str, Any]) -> pd.DataFrame:
    columns = ["cross_fitted", "in_sample", "beats_reference"]
    frame = pd.DataFrame.from_dict(dict(scores), orient="index", columns=columns, dtype=float)
    return frame.rename_axis("rule")


def _records(frame: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Return the rows of a table by name; None stands for NaN."""
    return {
        str(name): {str(k): None if pd.isna(v) else v for k, v in row.items()}
        for name, row in frame.astype(object).iterrows()
    }

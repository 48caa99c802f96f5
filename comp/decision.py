"""`comp.Decision`: a fitted rule with the names of its labels. It decides new probabilities, shows itself as
a table and as a picture, and is saved and loaded as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import pandas as pd

from comp.artifacts import decision_schema as schemas
from comp.artifacts.files import read_json, write_json
from comp.artifacts.schemas import Positive, Share
from comp.config.metric import NEEDS_ONE_LABEL, Metric
from comp.decisions import decide as deciding
from comp.decisions.answer_rules import Rule, cuts_by_fold, rule_from_json
from comp.decisions.class_scores import class_scores
from comp.decisions.metrics import FBeta
from comp.decisions.rule_search import SearchSettings
from comp.decisions.rules import ColumnGroups, FittedRule, is_single_label
from comp.decisions.scorers import Scorer, scorer_of, without_code
from comp.errors import CompError, summarize
from comp.plots.decision import Shown, new_picture
from comp.user_code import collect


class SavedDecision(schemas.PartRule):
    """The file of Decision.save, and of `comp decide --probs`: with F-beta its three numbers, else
    `metric`."""

    beta: Positive = 2.0
    average: str = "samples"
    zero_division: Share = 0.0
    metric: schemas.MetricSettings | None = None
    classes: list[str] | None = None
    scores: schemas.Scores
    thresholds_by_fold: dict[str, list[Share]] | None = None
    cut_points_by_fold: list[list[float]] | None = None
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

    probs: np.ndarray  # (N, C), or numbers
    targets: np.ndarray  # (N, C)
    decisions: np.ndarray  # (N, C) answers, as chosen fold by fold


@dataclass(frozen=True, repr=False)
class Decision:
    """A fitted rule. Like a scikit-learn estimator, it decides new probabilities with `predict`."""

    rule: str
    fitted: Rule
    metric: Scorer
    scores: dict[str, float]  # cross_fitted (it counts the choice of rule), in_sample, default
    classes: tuple[str, ...]
    rules: pd.DataFrame  # by rule: cross_fitted, in_sample, beats_reference
    thresholds_by_fold: np.ndarray | None  # (K, C), or (K, C - 1) cut points, each without one fold
    labels: pd.DataFrame | None  # by label: images and scores
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
            cuts_by_fold(decided.chosen.by_fold), None,
        ).with_rows(Rows(probs, targets, decided.choice.decisions))  # fmt: skip

    def with_rows(self, rows: Rows) -> "Decision":
        """Return the decision with the rows that it was fitted to, and each label's scores on them."""
        labels = class_scores(self.metric, rows.probs, rows.targets, rows.decisions, self.classes)
        return replace(self, labels=labels, rows=rows)

    def predict(self, probs: np.ndarray | pd.DataFrame) -> Any:
        """Return answers (N, C) for probabilities or numbers (N, C): an array for an array, a table for a
        table. Raise CompError for other classes."""
        if isinstance(probs, pd.DataFrame):
            if list(probs.columns) != list(self.classes):
                raise CompError(f"the table has the columns {list(probs.columns)}, not {list(self.classes)}")
            return pd.DataFrame(self.predict(probs.to_numpy()), probs.index, probs.columns)
        probs = deciding.check_matrix(probs, "probs", self.metric)
        if probs.shape[1] != len(self.classes):
            raise CompError(
                f"probs have {probs.shape[1]} classes; the rule was fitted to {len(self.classes)}"
            )
        return self.fitted.decide(probs, self.metric)

    def to_frame(self) -> pd.DataFrame:
        """Return a table by label: where labels are decided by thresholds, the threshold and its spread over
        the folds (NaN where the rule compares labels with each other) and, where they are known, images and
        scores."""
        names = pd.Index(self.classes, name="label")
        frame = pd.DataFrame(index=names)
        if isinstance(self.fitted, FittedRule):
            frame["threshold"] = [self.fitted.threshold_of(c) for c in range(len(self.classes))]
            frame = frame.astype(float)
            if self.thresholds_by_fold is not None:
                frame["spread"] = np.where(frame["threshold"].isna(), np.nan, self.thresholds_by_fold.std(0))
        return frame if self.labels is None else frame.join(self.labels)

    def __repr__(self) -> str:
        return f"Decision({self.rule}, {self._score()}, {len(self.classes)} labels)"

    def _repr_html_(self) -> str:
        table = self.to_frame().to_html(float_format="{:.4f}".format, na_rep="")
        return f"<p><b>{escape(self.rule)}</b>, {self._score()}</p>{table}"

    def _score(self) -> str:
        how = "as chosen fold by fold" if len(self.rules) != 1 else "cross-fitted"
        return f"{self.metric.metric} {self.scores['cross_fitted']:.4f} {how}"

    def plot(self) -> Any:
        """Return a matplotlib Figure that suits the answers, such as each label's F-beta against its
        threshold, or the confusion of labels. Raise CompError for a decision that was loaded from a file
        alone."""
        if self.rows is None:
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
        metric: dict[str, Any] = {"metric": self.metric.metric.model_dump(mode="json")}
        if isinstance(self.metric, FBeta):
            metric = asdict(self.metric)
        folds, labels = self.thresholds_by_fold, self.labels
        n_rows = {} if self.rows is None else {"n_rows": len(self.rows.targets)}
        by_label = {} if labels is None else {"labels": _records(labels)}
        if isinstance(self.fitted, FittedRule):
            by_fold: dict[str, Any] = (
                {} if folds is None else {"thresholds_by_fold": dict(zip(self.classes, folds.T.tolist()))}
            )
        else:
            by_fold = {"classes": list(self.classes)}
            by_fold |= {} if folds is None else {"cut_points_by_fold": folds.tolist()}
        content = {"rule": self.rule, **self.fitted.as_json(self.classes), **by_fold, **metric}
        scores = {"scores": self.scores, "rules": _records(self.rules)}
        write_json(Path(path), {**content, **scores, **by_label, **n_rows})

    @classmethod
    def load(cls, path: str | PathLike[str], metric: Scorer | None = None) -> "Decision":
        """Return the decision that `save`, `comp decide --probs` or a run wrote. `metric` replaces the
        file's, for one of your own. Raise CompError for a missing or damaged file."""
        place = Path(path)
        if not place.is_file():
            raise CompError(f"{place}: no such file; `comp decide` writes it")
        of_run = "stamp" in read_json(place)
        content = read_json(place, schemas.Decision if of_run else SavedDecision)
        classes = schemas.classes_of(content)
        if of_run:
            metric = metric or without_code(Metric.model_validate(content["stamp"]["metric"]))
            beats = content["scores"].get("sure", {})
            known = content["scores"].get("rules", {})
            rules = {name: (s["cross_fitted"], s["in_sample"], beats.get(name)) for name, s in known.items()}
        else:
            if metric is None and content.get("metric"):
                metric = without_code(Metric.model_validate(content["metric"]))
            metric = metric or FBeta(content["beta"], content["average"], content["zero_division"])
            rules = {name: tuple(values.values()) for name, values in content.get("rules", {}).items()}
        folds, cuts = content.get("thresholds_by_fold"), content.get("cut_points_by_fold")
        scores = {key: content["scores"][key] for key in ("cross_fitted", "in_sample", "default")}
        labels = None
        if content.get("labels"):
            labels = pd.DataFrame.from_dict(content["labels"], orient="index").rename_axis("label")
        return cls(
            content["rule"], rule_from_json(content, classes), metric, scores, classes, _rules(rules),
            np.array([folds[name] for name in classes]).T if folds else np.array(cuts) if cuts else None,
            labels,
        )  # fmt: skip


def decide(
    probs: np.ndarray | pd.DataFrame,
    targets: np.ndarray | pd.DataFrame,
    metric: Scorer | Metric = FBeta(),  # noqa: B008  (frozen)
    *,
    classes: Sequence[str] | None = None,
    **options: Unpack[DecideOptions],
) -> Decision:
    """Return the best rule from probabilities to answers, as `comp.decisions.decide.decide`, with its
    `options`. `classes` (C,) names the labels; a table has them as its columns. `metric` is a `comp.FBeta`,
    or a `comp.Metric` such as Metric(name="roc_auc")."""
    if isinstance(probs, pd.DataFrame):
        classes = list(map(str, probs.columns)) if classes is None else classes
        if isinstance(targets, pd.DataFrame):
            if not probs.index.isin(targets.index).all() or list(probs.columns) != list(targets.columns):
                raise CompError("targets lack rows or columns of probs; both have ids and the same labels")
            targets = targets.loc[probs.index]
        probs = probs.to_numpy()
    targets, probs = np.asarray(targets), np.asarray(probs)
    if isinstance(metric, Metric):
        metric = scorer_of_arrays(metric, targets, options.get("exclusive", ()), classes)
    decided = deciding.decide(probs, targets, metric, **options)
    if classes is not None and len(set(map(str, classes))) != decided.fitted.n_classes:
        raise CompError(f"classes are {len(set(classes))} names for {decided.fitted.n_classes} labels")
    probs = probs if probs.dtype.kind == "f" else probs.astype(float)
    return Decision.of(decided, probs, deciding.check_targets(targets, probs.shape, metric), classes)


def scorer_of_arrays(
    metric: Metric, targets: np.ndarray, exclusive: ColumnGroups, classes: Sequence[str] | None
) -> Scorer:
    """Return the scorer of a metric for targets (N, C). A file of its own is read here."""
    single = targets.ndim == 2 and is_single_label(targets, exclusive)
    if metric.name in NEEDS_ONE_LABEL and not single and metric.kind != "grades":
        raise CompError(f"{metric} needs exactly one label per image: exclusive = [range(C)]")
    code = collect({"competition": {"metric": {"name": metric.name}}}, Path()).get("code")
    names = tuple(map(str, classes if classes is not None else range(targets.shape[-1])))
    weights = [metric.weights.get(name, 1.0) for name in names]
    if unknown := sorted(set(metric.weights) - set(names)):
        raise CompError(f"metric.weights names {summarize(unknown)}; the labels are {summarize(names)}")
    return scorer_of(metric, single=single, weights=weights, code=code)


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

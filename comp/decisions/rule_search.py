"""The parts of rules, fitted without some of the folds: thresholds, calibration, and parameters that are
searched by inner cross-fitting."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from comp.decisions.bootstrap import MIN_WIN_PROBABILITY, win_probability
from comp.decisions.calibration import calibration
from comp.decisions.large_thresholds import large_class_thresholds
from comp.decisions.metrics import FBeta
from comp.decisions.optuna_search import search
from comp.decisions.rules import ColumnGroups, FittedRule, is_single_label
from comp.decisions.scorers import Scorer
from comp.decisions.single_label import offset_thresholds
from comp.decisions.thresholds import (
    MAX_SORTED,
    class_thresholds,
    global_threshold,
    prevalence_thresholds,
    searched_threshold,
    searched_thresholds,
    shrunk_thresholds,
)

DEFAULT_SHARE = 0.5  # weight of a label's own threshold in its shrunk one

HeldOut = frozenset  # folds that a fit leaves out


@dataclass(frozen=True)
class SearchSettings:
    """Settings of the searches by Optuna. The journal file `storage` keeps studies whose names begin with
    `name`."""

    seed: int = 0
    n_trials: int = 30
    storage: Path | None = None
    name: str = ""
    report_progress: Callable[[int, int], None] = lambda done, total: None  # reports progress in fits


class RuleParts:
    """The parts of rules by the folds that are held out. Each part is computed once."""

    def __init__(
        self,
        probs: np.ndarray,
        targets: np.ndarray,
        folds: np.ndarray,
        metric: Scorer,
        groups: ColumnGroups,
        settings: SearchSettings,
    ):
        self.probs, self.targets, self.folds, self.metric = probs, targets, folds, metric
        self.groups = tuple(tuple(group) for group in groups)
        self.single = is_single_label(targets, self.groups)
        self.settings = settings
        self.names = tuple(np.unique(folds).tolist())
        self.known: dict[tuple[str, HeldOut], Any] = {}
        # an unknown target, NaN, counts as a label that is neither true nor chosen
        unknown = np.isnan(targets) if targets.dtype.kind == "f" else None
        self.counted = (probs, targets) if unknown is None else _without(probs, targets, unknown)

    def inner(self, held: HeldOut) -> tuple[np.ndarray, dict[Any, np.ndarray]]:
        """Return (N,) bool the rows outside of the folds `held`, and by fold which of these are its own."""
        rows = ~np.isin(self.folds, list(held))
        return rows, {name: self.folds[rows] == name for name in self.names if name not in held}

    def can_search(self, held: HeldOut) -> bool:
        """Return whether enough folds are left for inner cross-fitting. A search that is impossible without
        a fold is also left out with all folds, so that all fits follow the same steps."""
        return len(self.names) >= 3 and len(self.inner(held)[1]) >= 2

    def every_image_has_labels(self, held: HeldOut) -> bool:
        return self._cached("labels", held, lambda _, y: bool((y > 0).any(1).all()))

    def global_threshold(self, held: HeldOut) -> float:
        """Return the best single threshold for all labels."""
        if self.single:
            return 0.5
        if isinstance(metric := self.metric, FBeta):
            return self._cached("global", held, lambda p, y: global_threshold(p, y, metric))
        return self._cached("global", held, lambda p, y: searched_threshold(p, self._value(y)))

    def class_thresholds(self, held: HeldOut) -> np.ndarray:
        """Return (C,) the best thresholds, one per label."""
        metric = self.metric
        if self.single and (isinstance(metric, FBeta) or metric.metric.name == "balanced_accuracy"):
            return self._cached("per-class", held, lambda p, y: offset_thresholds(p, y, metric))
        start = self.global_threshold(held)
        if isinstance(metric, FBeta):
            search = large_class_thresholds if self.probs.size > MAX_SORTED else class_thresholds
            return self._cached("per-class", held, lambda p, y: search(p, y, metric, start=start))

        def of_labels(p: np.ndarray, y: np.ndarray) -> np.ndarray:
            value = self._value(y)
            return searched_thresholds(p, start, lambda at: value(self.with_thresholds(at).decide(p, metric)))

        return self._cached("per-class", held, of_labels)

    def prevalence(self, held: HeldOut) -> np.ndarray:
        """Return (C,) thresholds that give each label as often as it occurs."""
        return self._cached("prevalence", held, prevalence_thresholds)

    def calibration(self, held: HeldOut) -> tuple[np.ndarray, np.ndarray]:
        """Return slopes and offsets (C,) of each label's logits."""
        return self._cached("calibration", held, calibration, self.probs, self.targets)

    def shrunk(self, held: HeldOut, share: float) -> np.ndarray:
        """Return (C,) thresholds per label, shrunk towards the global one."""
        return shrunk_thresholds(self.class_thresholds(held), self.global_threshold(held), share)

    def share(self, held: HeldOut) -> float:
        """Return how much of a label's own threshold to keep: half, unless another share beats it with enough
        probability in inner cross-fitting."""
        if not self.can_search(held):
            return DEFAULT_SHARE
        rows, parts = self.inner(held)
        probs, targets = self.probs[rows], self.targets[rows]
        value = self._value(targets)

        def decisions(share: float) -> np.ndarray:
            decided = np.zeros(probs.shape, np.uint8)
            for name, part in parts.items():
                rule = self.with_thresholds(self.shrunk(held | {name}, share))
                decided[part] = rule.decide(probs[part], self.metric)
            return decided

        best = self.search(
            f"fit shrunk without {sorted(held)}",
            lambda trial: value(decisions(trial.suggest_float("share", 0, 1))),
            [{"share": share} for share in (DEFAULT_SHARE, 1.0, 0.75, 0.25, 0.0)],
        )["share"]
        probability = win_probability(
            decisions(best), decisions(DEFAULT_SHARE), targets, self.metric, seed=self.settings.seed
        )
        return best if probability > MIN_WIN_PROBABILITY else DEFAULT_SHARE

    def optuna_thresholds(self, held: HeldOut) -> np.ndarray:
        """Return (C,) thresholds that Optuna finds, starting from the global and the per-class ones."""
        rows, _ = self.inner(held)
        probs, targets = (values[rows] for values in self.counted)
        columns, true = (np.ascontiguousarray(values.T) for values in (probs, targets.astype(bool)))
        classes, metric = range(len(columns)), self.metric

        def value(trial: Any) -> float:
            thresholds = np.array([trial.suggest_float(f"t{c}", 0.0, 1.0) for c in classes])
            if isinstance(metric, FBeta):
                return metric.score_columns(columns, true, thresholds)
            return self._value(self.targets[rows])((probs > thresholds).astype(np.uint8))

        starts = [np.full(len(columns), self.global_threshold(held)), self.class_thresholds(held)]
        named = [{f"t{c}": float(start[c]) for c in classes} for start in starts]
        best = self.search(f"fit optuna without {sorted(held)}", value, named)
        return np.array([best[f"t{c}"] for c in classes])

    def with_thresholds(self, thresholds: np.ndarray, min_labels: int = 0) -> FittedRule:
        return FittedRule(thresholds, groups=self.groups if self.single else (), min_labels=min_labels)

    def search(
        self, name: str, value: Callable[[Any], float], starts: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        """Return the parameters of the highest `value(trial)`."""
        given = self.settings
        name = f"{given.name} {name}".strip()
        return search(
            value, starts, n_trials=given.n_trials, seed=given.seed, storage=given.storage, name=name
        )

    def _value(self, targets: np.ndarray) -> Callable[[np.ndarray], float]:
        """Return the function from decisions (N, C) to what searches maximise."""
        return lambda decisions: self.metric.sign * self.metric.score(targets, decisions)

    def _cached(
        self, what: str, held: HeldOut, make: Callable[[np.ndarray, np.ndarray], Any], *given: np.ndarray
    ) -> Any:
        if (what, held) not in self.known:
            rows = ~np.isin(self.folds, list(held))
            probs, targets = given or self.counted
            self.known[what, held] = make(probs[rows], targets[rows])
        return self.known[what, held]


def _without(probs: np.ndarray, targets: np.ndarray, unknown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.where(unknown, 0, probs), np.where(unknown, 0, targets).astype(np.uint8)

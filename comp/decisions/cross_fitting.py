"""Each fold decided by the rule that was fitted to the other folds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.stamps import digest
from comp.decisions.bootstrap import SURE, sureness
from comp.decisions.calibration import calibration
from comp.decisions.metrics import fbeta, score_by_class
from comp.decisions.optuna_search import search
from comp.decisions.rules import STEADY_OF_ONE, Fitted, Groups, check_rule, is_single
from comp.decisions.single_label import offset_thresholds
from comp.decisions.thresholds import (
    class_thresholds,
    drawn_thresholds,
    global_threshold,
    prevalence_thresholds,
)

HALF = 0.5  # the share by which it draws, unless another is surely better


@dataclass(frozen=True)
class Weighed:
    """A rule with what it is worth."""

    rule: str
    fitted: Fitted  # on all rows
    in_sample: float
    cross_fitted: float
    decisions: np.ndarray = field(repr=False)  # (N, C) cross-fitted
    by_fold: tuple[Fitted, ...] = field(repr=False)


class Fitter:
    """Fits rules to probabilities (N, C) and targets (N, C) without some of the folds (N,). What several
    rules need is worked out once.

    Searches that need a score use one that is cross-fitted within the folds that may be seen. Their Optuna
    studies are kept in the journal file `storage`, if there is one, under names that begin with `name`."""

    def __init__(
        self,
        probs: np.ndarray,
        targets: np.ndarray,
        folds: np.ndarray,
        *,
        beta: float,
        average: str,
        empty: float = 0.0,
        groups: Groups = (),
        least: int | None = 0,
        seed: int = 0,
        n_trials: int = 30,
        storage: Path | None = None,
        name: str = "",
        step: Callable[[], None] = lambda: None,
    ):
        self.step = step  # is called after each fit that `weigh` asks for
        self.probs, self.targets, self.folds = probs, targets, folds
        self.metric: dict[str, Any] = {"beta": beta, "average": average, "empty": empty}
        self.groups = tuple(tuple(group) for group in groups)
        self.single = is_single(targets, self.groups)
        self.least, self.seed, self.n_trials = least, seed, n_trials
        self.storage = storage
        if storage:  # a study goes on with the same numbers only
            more = [empty] if empty else []
            name = f"{name} {digest(probs, targets, folds, beta, average, self.groups, least, *more)}".strip()
        self.name = name
        self.names = tuple(np.unique(folds).tolist())
        self.known: dict[tuple[str, frozenset], Any] = {}

    def score(self, decisions: np.ndarray, rows: np.ndarray | slice = slice(None)) -> float:
        return fbeta(self.targets[rows], decisions, **self.metric)

    def decided(self, fitted: Fitted, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        return fitted.decide(self.probs[rows], beta=self.metric["beta"], empty=self.metric["empty"])

    def weigh(self, rule: str) -> Weighed:
        """The rule fitted to all rows, and the decisions of each fold by the rule as fitted to the others."""
        fitted = self.fit(rule)
        self.step()
        decisions = np.zeros(self.targets.shape, np.uint8)
        by_fold = []
        for name in self.names:
            part = self.folds == name
            by_fold.append(self.fit(rule, frozenset({name})))
            decisions[part] = self.decided(by_fold[-1], part)
            self.step()
        in_sample = self.score(self.decided(fitted))
        return Weighed(rule, fitted, in_sample, self.score(decisions), decisions, tuple(by_fold))

    def fit(self, rule: str, held: frozenset = frozenset()) -> Fitted:
        """The rule, fitted to all rows but those of the folds `held`."""
        check_rule(rule, single=self.single, grouped=bool(self.groups))
        base, *extras = rule.split("+")
        if (rule, held) not in self.known:
            self.known[rule, held] = self._over(rule, held) if extras else self._base(base, held)
        return self.known[rule, held]

    def _over(self, rule: str, held: frozenset) -> Fitted:
        """The rule up to its last extra, with that laid over it."""
        before, _, extra = rule.rpartition("+")
        fitted = self.fit(before, held)
        if extra == "exclusive":
            return fitted.over(groups=self.groups)
        rows, parts = self._inner(held)
        if len(parts) < 2 or len(self.names) < 3:  # what can't be searched without a fold isn't with it
            return fitted
        least = self._least(held)
        largest = max(int(self.targets[rows].sum(1).max()), least, 1)
        inner = {name: self.fit(before, held | {name}) for name in parts}

        def asked(trial: Any) -> dict[str, Any]:
            if extra == "temperature":
                return {"temperature": trial.suggest_float("temperature", 0.5, 2.0, log=True)}
            return {
                "least": trial.suggest_int("least", least, max(least, min(3, largest))),
                "most": trial.suggest_int("most", max(least, min(3, largest)), largest),
            }

        def value(trial: Any) -> float:
            changes = asked(trial)
            decided = np.zeros((rows.sum(), self.probs.shape[1]), np.uint8)
            for name, part in parts.items():
                decided[part] = self.decided(inner[name].over(**changes), np.flatnonzero(rows)[part])
            return self.score(decided, rows)

        start = {"temperature": 1.0} if extra == "temperature" else {"least": least, "most": largest}
        return fitted.over(**self._search(f"{rule} without {sorted(held)}", value, [start]))

    def _least(self, held: frozenset) -> int:
        """Labels that every image gets: as asked for, or one, if all images that are seen have one."""
        if self.least is not None:
            return self.least
        return self._once("least", held, lambda _, y: int(y.any(1).all()))

    def _base(self, rule: str, held: frozenset) -> Fitted:
        n_classes, least = self.probs.shape[1], self._least(held)
        if rule == "expected":
            slopes, offsets = self._once("calibration", held, calibration)
            half = np.full(n_classes, 0.5)
            return Fitted(half, expected=True, slopes=slopes, offsets=offsets, least=least)
        if rule in ("0.5", "0.2", STEADY_OF_ONE):
            thresholds = np.full(n_classes, 0.5 if self.single else float(rule))
        elif rule == "global":
            thresholds = np.full(n_classes, self.common(held))
        elif rule == "per-class":
            thresholds = self.exact(held)
        elif rule == "prevalence":
            thresholds = self._once("prevalence", held, prevalence_thresholds)
        elif rule == "drawn":
            thresholds = self._drawn(held, self._share(held))
        else:
            thresholds = self._searched(held)
        return self._with(thresholds, least)

    def _with(self, thresholds: np.ndarray, least: int = 0) -> Fitted:
        return Fitted(thresholds, groups=self.groups if self.single else (), least=least)

    # --- what rules are made of, by the folds that are not seen

    def _once(self, what: str, held: frozenset, make: Callable[[np.ndarray, np.ndarray], Any]) -> Any:
        if (what, held) not in self.known:
            rows = ~np.isin(self.folds, list(held))
            self.known[what, held] = make(self.probs[rows], self.targets[rows])
        return self.known[what, held]

    def common(self, held: frozenset) -> float:
        if self.single:
            return 0.5
        return self._once("common", held, lambda p, y: global_threshold(p, y, **self.metric))

    def exact(self, held: frozenset) -> np.ndarray:
        if self.single:
            settings = {name: self.metric[name] for name in ("beta", "average")}
            return self._once("exact", held, lambda p, y: offset_thresholds(p, y, **settings))
        start = self.common(held)
        return self._once("exact", held, lambda p, y: class_thresholds(p, y, **self.metric, start=start))

    def _drawn(self, held: frozenset, share: float) -> np.ndarray:
        return drawn_thresholds(self.exact(held), self.common(held), share)

    def _inner(self, held: frozenset) -> tuple[np.ndarray, dict[Any, np.ndarray]]:
        """The rows that are seen, and each fold's among them."""
        rows = ~np.isin(self.folds, list(held))
        return rows, {name: self.folds[rows] == name for name in self.names if name not in held}

    def _share(self, held: frozenset) -> float:
        """How far thresholds are drawn from the global one to their own: half-way, unless another share is
        surely better on folds that the thresholds were not fitted on."""
        rows, parts = self._inner(held)
        if len(parts) < 2 or len(self.names) < 3:
            return HALF
        probs, targets = self.probs[rows], self.targets[rows]

        def decisions(share: float) -> np.ndarray:
            decided = np.zeros(probs.shape, np.uint8)
            for name, part in parts.items():
                fitted = self._with(self._drawn(held | {name}, share))
                decided[part] = fitted.decide(probs[part], beta=self.metric["beta"])
            return decided

        best = self._search(
            f"drawn without {sorted(held)}",
            lambda trial: self.score(decisions(trial.suggest_float("share", 0, 1)), rows),
            [{"share": share} for share in (HALF, 1.0, 0.75, 0.25, 0.0)],
        )["share"]
        sure = sureness(decisions(best), decisions(HALF), targets, **self.metric, seed=self.seed)
        return best if sure > SURE else HALF

    def _searched(self, held: frozenset) -> np.ndarray:
        rows, _ = self._inner(held)
        columns = np.ascontiguousarray(self.probs[rows].T)
        true = np.ascontiguousarray(self.targets[rows].T.astype(bool))
        classes = range(len(columns))

        def value(trial: Any) -> float:
            thresholds = np.array([trial.suggest_float(f"t{c}", 0.0, 1.0) for c in classes])
            return score_by_class(columns, true, thresholds, **self.metric)

        starts = [np.full(len(columns), self.common(held)), self.exact(held)]
        named = [{f"t{c}": float(start[c]) for c in classes} for start in starts]
        best = self._search(f"per class without {sorted(held)}", value, named)
        return np.array([best[f"t{c}"] for c in classes])

    def _search(
        self, name: str, value: Callable[[Any], float], starts: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        return search(
            value, starts, n_trials=self.n_trials, seed=self.seed, storage=self.storage,
            name=f"{self.name} {name}".strip(),
        )  # fmt: skip

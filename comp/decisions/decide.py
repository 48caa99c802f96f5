"""The best labels that given probabilities allow, honestly scored: rules are fitted on folds that they are
not scored on, and one that is only luckily better than a steadier one is not taken."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from comp.artifacts.stamps import digest
from comp.decisions.metrics import fbeta, score
from comp.decisions.rules import Fitted, Groups, calibration, drawn_thresholds, prevalence_thresholds
from comp.decisions.single_label import offset_thresholds
from comp.decisions.thresholds import class_thresholds, global_threshold
from comp.errors import CompError
from comp.tuning.study import search

RULES = {  # simple ones first
    "0.5": "0.5 for all labels",
    "0.2": "0.2 for all labels, which suits F2",
    "global": "one threshold for all labels",
    "drawn": "a threshold a label, drawn towards the global one as far as held-out folds like it",
    "expected": "the labels of highest expected F-beta of each image, from calibrated probabilities",
    "per-class": "a threshold a label, the best on the rows that it is fitted on",
    "prevalence": "a threshold a label that gives it as often as it is there",
    "optuna": "a threshold a label, searched by Optuna from the exact ones on",
}
OF_ONE = {  # where each image has exactly one label
    "most-probable": "the most probable label",
    "drawn": "the same after an offset a label, drawn towards none as far as held-out folds like it",
    "per-class": "the same after an offset a label, the best on the rows that it is fitted on",
}
AUTO = ("0.5", "0.2", "global", "drawn", "expected", "per-class", "prevalence")
AUTO_LARGE = ("0.5", "0.2", "global", "per-class")
LARGE = 20_000_000  # numbers in a matrix, beyond which the costly rules are left out of auto
EXTRAS = {
    "exclusive": "exactly one label of each group",
    "limits": "no fewer and no more labels an image than held-out folds like",
    "temperature": "of expected: probabilities as bold or timid as held-out folds like them",
}
STEADY = "drawn"  # on real matrices of every size the best or near it; kept unless another is surely better
STEADY_OF_ONE = "most-probable"
HALF = 0.5  # the share by which it draws, unless another is surely better
SURE = 0.8  # the share of resamples in which that has to be so
N_RESAMPLES = 400


@dataclass(frozen=True)
class Weighed:
    """A rule with what it is worth."""

    rule: str
    fitted: Fitted  # on all rows
    in_sample: float
    cross_fitted: float
    decisions: np.ndarray = field(repr=False)  # (N, C) cross-fitted
    by_fold: tuple[Fitted, ...] = field(repr=False)


@dataclass(frozen=True)
class Honest:
    """A choice among rules, cross-fitted like the rules: each fold has the one that the others choose,
    by their own cross-fitted decisions. Those were fitted with this fold's labels among others."""

    score: float
    decisions: np.ndarray = field(repr=False)  # (N, C)
    rules: tuple[str, ...]  # by fold
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


def check_rule(rule: str, *, single: bool, grouped: bool) -> None:
    """Raise CompError unless the rule is known, and suits images of exactly one label (`single`) or labels of
    which some exclude each other (`grouped`)."""
    base, *extras = rule.split("+")
    if single and rule not in OF_ONE:
        raise CompError(
            f"no rule {rule!r} where each image has exactly one label; there are {', '.join(OF_ONE)}"
        )
    if not single and (base not in RULES or not set(extras) <= set(EXTRAS)):
        raise CompError(
            f"no rule {rule!r}; there are {', '.join(RULES)}, each with +{' or +'.join(EXTRAS)} if wanted"
        )
    if "exclusive" in extras and not grouped:
        raise CompError(f"the rule {rule!r} needs groups of labels that exclude each other")
    if "temperature" in extras and base != "expected":
        raise CompError(f"the rule {rule!r} has thresholds; a temperature suits 'expected'")


def is_single(targets: np.ndarray, groups: Groups) -> bool:
    """Whether each image has exactly one label: one group holds all classes, and the targets (N, C) agree."""
    return [len(group) for group in groups] == [targets.shape[1]] and bool((targets.sum(1) == 1).all())


def score_by_class(
    columns: np.ndarray,
    true: np.ndarray,
    thresholds: np.ndarray,
    *,
    beta: float,
    average: str,
    empty: float = 0.0,
) -> float:
    """F-beta of contiguous (C, N) arrays: class after class in small integers, several times as fast as by
    row."""
    chosen = columns > thresholds[:, None]
    axis, kind = (0, np.int16) if average == "samples" else (1, np.int64)
    hits, n_chosen, n_true = (m.sum(axis, dtype=kind) for m in (chosen & true, chosen, true))
    if average == "micro":
        hits, n_chosen, n_true = hits.sum(), n_chosen.sum(), n_true.sum()
    return float(np.mean(score(hits, n_chosen, n_true, beta, empty)))


def sureness(
    better: np.ndarray,
    worse: np.ndarray,
    targets: np.ndarray,
    *,
    beta: float,
    average: str,
    empty: float = 0.0,
    seed: int = 0,
) -> float:
    """How sure it is that decisions `better` (N, C) beat `worse`: the share of paired bootstrap resamples of
    the rows in which they do, ties counted half."""
    rng = np.random.default_rng(seed)
    used = np.flatnonzero((better != worse).any(1))
    true = targets.astype(bool)
    if not len(used):
        return 0.5
    if average == "samples":
        values = []
        for decisions in (better[used], worse[used]):
            chosen = decisions.astype(bool)
            hits = (chosen & true[used]).sum(1)
            values.append(score(hits, chosen.sum(1), true[used].sum(1), beta, empty))
        # rows that gain the same are drawn together: a sum of Poisson numbers is one
        steps, n_rows = np.unique(np.round(values[0] - values[1], 12), return_counts=True)
        gains = rng.poisson(n_rows, (N_RESAMPLES, len(steps))) @ steps
    else:
        # rows on which both agree are drawn once each: their noise is common to both
        extra = rng.poisson(1.0, (N_RESAMPLES, len(used))).astype(np.float32) - 1
        scores = []
        for decisions in (better, worse):
            chosen = decisions.astype(bool)
            counts = [m.sum(0) + extra @ m[used].astype(np.float32) for m in (chosen & true, chosen, true)]
            if average == "micro":
                counts = [count.sum(1, keepdims=True) for count in counts]
            scores.append(score(counts[0], counts[1], counts[2], beta).mean(1))
        gains = scores[0] - scores[1]
    return float(np.mean(gains > 1e-12) + np.mean(np.abs(gains) <= 1e-12) / 2)


def steady_of(weighed: Sequence[Weighed]) -> Weighed | None:
    """The steady one among rules, if it is among them."""
    return next((w for name in (STEADY_OF_ONE, STEADY) for w in weighed if w.rule == name), None)


def choose(
    weighed: Sequence[Weighed],
    targets: np.ndarray,
    *,
    beta: float,
    average: str,
    empty: float = 0.0,
    seed: int = 0,
) -> tuple[Weighed, dict[str, float]]:
    """(the rule to take, how sure it is that each rule beats the steady one). Without the steady one, the
    first rule that the best doesn't surely beat."""
    best = max(weighed, key=lambda w: w.cross_fitted)
    settings: dict[str, Any] = {"beta": beta, "average": average, "empty": empty, "seed": seed}
    steady = steady_of(weighed)
    if steady is None:
        sure = {w.rule: sureness(best.decisions, w.decisions, targets, **settings) for w in weighed}
        return next(w for w in weighed if w is best or sure[w.rule] < SURE), sure
    sure = {w.rule: sureness(w.decisions, steady.decisions, targets, **settings) for w in weighed}
    return (best if sure[best.rule] > SURE else steady), sure


def honest_choice(
    weighed: Sequence[Weighed],
    targets: np.ndarray,
    folds: np.ndarray,
    take: Callable[[Sequence[Weighed], np.ndarray], Weighed],
    *,
    beta: float,
    average: str,
    empty: float = 0.0,
) -> Honest:
    """What choosing among candidates by `take(candidates, targets)` is worth."""
    if len(weighed) == 1:
        (only,) = weighed
        names = (only.rule,) * len(only.by_fold)
        return Honest(only.cross_fitted, only.decisions, names, only.by_fold)
    metric: dict[str, Any] = {"beta": beta, "average": average, "empty": empty}
    decisions, rules, by_fold = np.zeros_like(weighed[0].decisions), [], []
    for k, fold in enumerate(np.unique(folds)):
        others = folds != fold
        seen = [
            replace(
                w,
                decisions=w.decisions[others],
                cross_fitted=fbeta(targets[others], w.decisions[others], **metric),
            )
            for w in weighed
        ]
        chosen = take(seen, targets[others])
        at = next(i for i, w in enumerate(seen) if w is chosen)
        decisions[~others] = weighed[at].decisions[~others]
        by_fold.append(weighed[at].by_fold[k])
        rules.append(chosen.rule)
    return Honest(fbeta(targets, decisions, **metric), decisions, tuple(rules), tuple(by_fold))


@dataclass(frozen=True)
class Decision:
    """A fitted rule. Like a scikit-learn estimator, it decides new probabilities with `predict`."""

    rule: str
    fitted: Fitted
    beta: float
    average: str
    empty: float
    # default (0.5 for all, or the most probable), in_sample, cross_fitted: of the choice of rule as well
    scores: dict[str, float]
    honest: Honest = field(repr=False)  # what decided each fold, fitted without it
    weighed: tuple[Weighed, ...] = field(repr=False)  # all rules that were considered
    sure: dict[str, float] = field(repr=False)  # how sure it is that each beats the steady one

    @property
    def parameters(self) -> dict[str, Any]:
        n_classes = len(self.fitted.thresholds)
        return self.fitted.as_json([str(c) for c in range(n_classes)])

    def predict(self, probs: np.ndarray) -> np.ndarray:
        """(N, C) 0/1 for probabilities (N, C). Raises CompError for another number of classes."""
        probs, n_classes = _matrix(probs, "probs"), len(self.fitted.thresholds)
        if probs.shape[1] != n_classes:
            raise CompError(f"probs have {probs.shape[1]} classes; the rule was fitted to {n_classes}")
        return self.fitted.decide(probs, beta=self.beta, empty=self.empty)


def decide(
    probs: np.ndarray,
    targets: np.ndarray,
    *,
    beta: float = 2.0,
    average: str = "samples",
    empty: float = 0.0,
    rule: str = "auto",
    folds: np.ndarray | None = None,
    exclusive: Groups = (),
    seed: int = 0,
    least: int | None = None,
    n_trials: int = 30,
    storage: Path | None = None,
    name: str = "",
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Decision:
    """The best way to turn probabilities into labels for F-beta, with a score that can be believed.

    probs (N, C) are out-of-fold probabilities, targets (N, C) 0/1. average is "samples", "macro" or "micro";
    of samples, `empty` is the score of no label where none is there (scikit-learn's zero_division). rule is
    "auto", or one of `RULES`, with "+exclusive", "+limits" or "+temperature" if wanted. folds (N,) are the
    folds of the networks; without them, or with one alone, five are drawn at random. exclusive are groups of
    columns of which exactly one label holds; one group of all columns, with targets that agree, means one
    label an image: rules are those of `OF_ONE`, and F-beta of samples is the accuracy. An image gets at least
    `least` labels: by default one, if every image has one. `told` hears how many of how many steps are done.

    Raises CompError for shapes or values that don't fit."""
    probs, targets = _matrix(probs, "probs"), np.asarray(targets)
    if targets.shape != probs.shape or not np.isin(targets, (0, 1)).all():
        raise CompError(
            f"targets are {targets.shape}; 0/1 in the shape of probs, {probs.shape}, are expected"
        )
    if average not in ("samples", "macro", "micro"):
        raise CompError(f"average is {average!r}; samples, macro or micro is expected")
    if not isinstance(beta, Real) or not 0 < beta <= 1000:
        raise CompError(f"beta is {beta!r}; a number above 0 and up to 1000 is expected")
    if not isinstance(empty, Real) or not 0 <= empty <= 1 or (empty and average != "samples"):
        raise CompError(f"empty is {empty!r}; a number from 0 to 1 is expected, for the average samples")
    if not isinstance(rule, str):
        raise CompError(f"rule is {rule!r}; auto, or a rule's name is expected")
    _check_groups(exclusive, probs.shape[1])
    targets, folds = targets.astype(np.uint8), _folds(folds, len(probs), seed)
    fitter = Fitter(
        probs, targets, folds, beta=beta, average=average, empty=empty, groups=exclusive, least=least,
        seed=seed, n_trials=n_trials, storage=storage, name=name, step=lambda: told(next(done), total),
    )  # fmt: skip
    if len(probs) == 1:
        names = [STEADY_OF_ONE if fitter.single else "global"]
    else:
        names = candidates(rule, probs.shape, average, bool(exclusive), fitter.single)
    done, total = count(1), len(names) * (1 + len(fitter.names))
    weighed = tuple(fitter.weigh(name) for name in names)
    metric = fitter.metric
    chosen, sure = choose(weighed, targets, **metric, seed=seed)
    default = fitter.decided(fitter.fit(STEADY_OF_ONE if fitter.single else "0.5"))
    honest = honest_choice(
        weighed, targets, folds, lambda seen, true: choose(seen, true, **metric, seed=seed)[0], **metric
    )
    scores = {
        "cross_fitted": honest.score,
        "in_sample": chosen.in_sample,
        "default": fitter.score(default),
    }
    return Decision(chosen.rule, chosen.fitted, beta, average, empty, scores, honest, weighed, sure)


def candidates(
    rule: str, shape: tuple[int, int], average: str, with_groups: bool, single: bool = False
) -> list[str]:
    """The rules to weigh for `rule`, by simplicity."""
    if rule != "auto":
        return [rule]
    if single:
        return [STEADY_OF_ONE] if shape[0] * shape[1] > LARGE else list(OF_ONE)
    names = [
        name
        for name in (AUTO_LARGE if shape[0] * shape[1] > LARGE else AUTO)
        if (name != "expected" or average == "samples") and (name != "prevalence" or average != "samples")
    ]
    return [*names, *(f"{name}+exclusive" for name in ("global", "drawn") if with_groups and name in names)]


def _folds(folds: Any, n: int, seed: int) -> np.ndarray:
    """(N,) as given; five at random where there are none, or one alone."""
    drawn = np.random.default_rng(seed).permutation(n) % min(5, n)
    if folds is None:
        return drawn
    folds = np.asarray(folds)
    if folds.shape != (n,):
        raise CompError(f"folds are {len(folds) if folds.ndim == 1 else folds.shape} for {n} rows")
    if pd.isna(folds).any():
        raise CompError(f"folds lack {pd.isna(folds).sum()} of {n} values")
    names, folds = np.unique(folds.astype(str), return_inverse=True)
    return folds if len(names) > 1 else drawn


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


def _matrix(probs: np.ndarray, what: str) -> np.ndarray:
    try:
        probs = np.asarray(probs, None if np.asarray(probs).dtype.kind == "f" else np.float64)
    except (TypeError, ValueError) as error:
        raise CompError(f"{what} are no numbers ({error})") from error
    if probs.ndim != 2 or not probs.size:
        raise CompError(f"{what} are {probs.shape}; (images, classes) are expected")
    if not np.isfinite(probs).all() or probs.min() < 0 or probs.max() > 1:
        raise CompError(f"{what} hold numbers outside of 0 to 1, or that aren't finite; are they logits?")
    return probs

"""Blend several models by means, weights or stacking, each fold by a blend that was fitted to the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import Ridge

from comp.artifacts.predictions import by_answer
from comp.config.metric import Metric
from comp.decisions.answer_rules import ANSWER_RULES, BY_ORDER, fit_answer_rule
from comp.decisions.bootstrap import MIN_WIN_PROBABILITY, win_probability
from comp.decisions.calibration import EPS, logit, sigmoid
from comp.decisions.cross_fitting import AnswerFitter, CrossFitter, ScoredRule
from comp.decisions.metrics import most_probable
from comp.decisions.optuna_search import search
from comp.decisions.rule_search import RuleParts, SearchSettings
from comp.decisions.rules import REFERENCE_RULE, REFERENCE_SINGLE
from comp.decisions.scorers import Scorer
from comp.decisions.selection import cross_fit_choice
from comp.errors import CompError

Members = np.ndarray  # (M, N, C) probabilities, or numbers
Apply = Callable[[Members], np.ndarray]  # (M, N, C) -> (N, C)
Change = Callable[[np.ndarray], np.ndarray]
Merge = Callable[[np.ndarray, Members], np.ndarray]  # (M,) weights, (M, N, C) -> (N, C)

METHODS = {
    "mean": "mean of the probabilities or numbers",
    "logits": "mean of the logits; of probabilities that sum to 1, of their logarithms",
    "greedy": "the same as logits, of members chosen one by one, with replacement",
    "ranks": "mean of the ranks within each class, of members chosen in the same way",
    "weights": "the same as logits, or the mean of the numbers, weighted as Optuna finds best",
    "stack": "ridge regression of each column on all columns of all members",
}
MAX_PICKS = 20  # of members, in the greedy selection
N_TRIALS = 60  # of Optuna, in the search for weights


@dataclass(frozen=True)
class Blend:
    """A method with its cross-fitted probabilities and their score by the reference rule."""

    method: str
    oof: np.ndarray = field(repr=False)  # (N, C), each fold by the blend that was fitted to the others
    apply: Apply = field(repr=False)  # fitted to all rows
    scored: ScoredRule = field(repr=False)
    weights: np.ndarray | None  # (M,); None where the method has no weights


@dataclass(frozen=True)
class BlendChoice:
    """The chosen blend beside the others, and what each member adds."""

    blends: tuple[Blend, ...]
    chosen: Blend
    score: float  # cross-fitted; it counts the choice of method
    alone: list[float]  # (M,) scores of the members
    gains: list[float]  # (M,) how much better the plain mean of all members is than that without the member


def fit_blend(
    method: str,
    members: Members,
    targets: np.ndarray,
    metric: Scorer,
    settings: SearchSettings,
    *,
    single: bool = False,
) -> tuple[Apply, np.ndarray | None]:
    """Return the blend fitted to members (M, N, C) and targets (N, C), and its weights (M,), if it has some.
    With `single`, each image has exactly one label. The settings name Optuna's study."""
    n_members = len(members)
    if method == "mean":
        return lambda m: m.mean(0), np.full(n_members, 1 / n_members)
    if method == "stack":
        return _stacked(members, targets, numbers=metric.answer == "numbers"), None
    into, merge = _rank_scale(members) if method == "ranks" else _scale(metric, single)
    if method == "logits":
        weights = np.full(n_members, 1 / n_members)
    else:
        scaled, answers = into(members), _answers(metric, targets, single)

        def value(weights: np.ndarray) -> float:
            probs = merge(weights, scaled).astype(np.float32)
            score = metric.sign * metric.score(targets, answers(probs))
            return score if np.isfinite(score) else -np.inf  # of rows in which it is not defined

        weights = _searched(value, n_members, settings) if method == "weights" else _greedy(value, n_members)
    return lambda m: merge(weights, into(m)), weights


def _scale(metric: Scorer, single: bool) -> tuple[Change, Merge]:
    """Return the functions to the scale on which members are averaged, and from it to their weighted mean.
    With `single` probabilities sum to 1, and so does their blend, unless labels are scored."""
    if metric.answer == "numbers":
        return lambda numbers: numbers, lambda weights, numbers: np.tensordot(weights, numbers, 1)
    if metric.answer == "labels" or not (single or metric.answer == "grades"):
        return logit, lambda weights, logits: sigmoid(np.tensordot(weights, logits, 1))
    return (
        lambda probs: np.log(np.clip(probs, EPS, 1)),
        lambda weights, logs: softmax(np.tensordot(weights, logs, 1), axis=-1),
    )


def _answers(metric: Scorer, targets: np.ndarray, single: bool) -> Change:
    """Return the function from probabilities or numbers (N, C) to answers whose score is searched: labels by
    the best single threshold, or the most probable one; others by the reference rule."""
    if single and metric.answer == "labels":
        return most_probable
    if metric.answer != "labels":
        rule = reference_rule(metric.metric)
        return lambda probs: fit_answer_rule(rule, probs, targets, metric).decide(probs)

    def above_threshold(probs: np.ndarray) -> np.ndarray:
        parts = RuleParts(probs, targets, np.zeros(len(probs)), metric, (), SearchSettings())
        return probs > parts.global_threshold(frozenset())

    return above_threshold


def _rank_scale(members: Members) -> tuple[Change, Merge]:
    """Return the functions to ranks among these rows, by member and class, and from ranks to their weighted
    mean. It becomes the probability that has this rank, so that a member alone stays as it is."""
    known = np.pad(np.sort(members, axis=1), ((0, 0), (1, 1), (0, 0)), constant_values=(0, 1))
    shares = np.linspace(0, 1, known.shape[1])

    def ranks(m: Members) -> Members:
        found = np.empty(m.shape)
        for i, c in np.ndindex(m.shape[0], m.shape[2]):
            found[i, :, c] = np.interp(m[i, :, c], known[i, :, c], shares)
        return found

    def merge(weights: np.ndarray, scaled: Members) -> np.ndarray:
        mean, probs = np.tensordot(weights, scaled, 1), np.tensordot(weights, known, 1)
        return np.stack([np.interp(mean[:, c], shares, probs[:, c]) for c in range(mean.shape[1])], 1)

    return ranks, merge


def _greedy(value: Callable[[np.ndarray], float], n_members: int) -> np.ndarray:
    """Return (M,) each member's share of the picks of forward selection with replacement (Caruana et al.
    2004)."""
    counts = np.zeros(n_members)
    best = -np.inf
    for _ in range(MAX_PICKS):
        scores = [value((counts + step) / (counts.sum() + 1)) for step in np.eye(n_members)]
        if counts.any() and max(scores) <= best + 1e-6:
            break
        best = max(scores)
        counts[int(np.argmax(scores))] += 1
    return counts / counts.sum()


def _searched(value: Callable[[np.ndarray], float], n_members: int, settings: SearchSettings) -> np.ndarray:
    names = [f"w{m}" for m in range(n_members)]

    def weights_of(params: dict[str, float]) -> np.ndarray:
        weights = np.array([params[name] for name in names]) + 1e-9
        return weights / weights.sum()

    def of_trial(trial: Any) -> float:
        return value(weights_of({name: trial.suggest_float(name, 0, 1) for name in names}))

    start = dict.fromkeys(names, 1.0)
    best = search(
        of_trial, [start], n_trials=N_TRIALS, seed=settings.seed, storage=settings.storage, name=settings.name
    )
    return weights_of(best)


def _stacked(members: Members, targets: np.ndarray, *, numbers: bool) -> Apply:
    middle, spread = np.nanmean(targets, 0), np.nanstd(targets, 0)
    spread = np.where(spread > 0, spread, 1.0)

    def features(m: Members) -> np.ndarray:
        return np.concatenate(list((m - middle) / spread if numbers else m), axis=1)  # (N, M * C)

    given, wanted = features(members), (targets - middle) / spread if numbers else targets.astype(float)
    known, models = ~np.isnan(wanted), []
    parts = [slice(None)] if known.all() else [slice(c, c + 1) for c in range(wanted.shape[1])]
    for part in parts:  # columns with unknown targets have rows of their own
        rows = known[:, part].all(1)
        model = Ridge(alpha=max(1.0, rows.sum() / 1000))
        models.append(model.fit(given[rows], wanted[rows, part]))

    def apply(m: Members) -> np.ndarray:
        found = np.concatenate([model.predict(features(m)).reshape(m.shape[1], -1) for model in models], 1)
        return found * spread + middle if numbers else np.clip(found, 0, 1)

    return apply


@dataclass(frozen=True)
class Blender:
    """Blends members by any method, each fold by the blend that was fitted to the others."""

    members: Members
    targets: np.ndarray  # (N, C)
    folds: np.ndarray  # (N,)
    metric: Scorer
    settings: SearchSettings
    single: bool = False  # each image has exactly one label
    min_labels: int = 0  # per image
    answer_of: np.ndarray | None = None  # (N,) str: images with the same value have one answer
    aggregate: str = "mean"  # or max: how predictions of such images become one

    @cached_property
    def known(self) -> np.ndarray:
        """(N,) whether any target of an image is known; others are blended, and nothing is fitted to them."""
        return ~np.isnan(self.targets).all(1)

    @cached_property
    def true(self) -> np.ndarray:
        """(A, C) the targets of the answers."""
        numbers = self.metric.answer == "numbers"
        return self._answers(self.targets, self.aggregate if numbers else "max")

    @cached_property
    def parts(self) -> np.ndarray:
        """(A,) the folds of the answers."""
        return self._answers(self.folds[:, None], "max")[:, 0]

    def _answers(self, values: np.ndarray, how: str) -> np.ndarray:
        """Return (A, C) for values (N, C): of each image or, with `answer_of`, of each answer."""
        values = values[self.known]
        if self.answer_of is None:
            return values
        of_image = self.answer_of[self.known]
        return by_answer(values, of_image, np.unique(of_image), how)

    def blend(self, method: str, step: Callable[[], None] = lambda: None) -> Blend:
        """Return a method's cross-fitted probabilities, scored by the reference rule. Call `step` after each
        fold, and at the end."""
        oof = np.zeros(self.targets.shape)
        for fold in np.unique(self.folds):
            part = self.folds == fold
            used = ~part & self.known
            settings = replace(self.settings, name=f"{self.settings.name} without {fold}")
            apply, _ = fit_blend(
                method, self.members[:, used], self.targets[used], self.metric, settings, single=self.single
            )
            oof[part] = apply(self.members[:, part])
            step()
        members, targets = self.members[:, self.known], self.targets[self.known]
        apply, weights = fit_blend(method, members, targets, self.metric, self.settings, single=self.single)
        scored = self.score(oof)
        step()
        return Blend(method, oof, apply, scored, weights)

    def score(self, probs: np.ndarray) -> ScoredRule:
        """Return the reference rule, scored on probabilities (N, C)."""
        return score_reference(
            self._answers(probs, self.aggregate), self.true, self.parts, self.metric,
            single=self.single, min_labels=self.min_labels, seed=self.settings.seed,
        )  # fmt: skip

    def n_steps(self, how: str) -> int:
        """Return how often `choose` calls `step`."""
        n_folds, n_methods = len(np.unique(self.folds)), len(methods_of(how, self.metric.metric))
        return n_methods * (n_folds + 1) + (n_folds if how == "auto" else 0) + 1 + 2 * len(self.members)

    def choose(self, how: str = "auto", step: Callable[[], None] = lambda: None) -> BlendChoice:
        """Return the best blend, or that of the method `how`, and what each member adds."""
        blends = [self.blend(method, step) for method in methods_of(how, self.metric.metric)]
        chosen = best_blend(blends, self.true, self.metric) if how == "auto" else blends[-1]
        score = chosen.scored.cross_fitted
        if how == "auto":

            def take(seen: Sequence[ScoredRule], targets: np.ndarray) -> ScoredRule:
                on_others = [replace(b, scored=s) for b, s in zip(blends, seen)]
                step()
                return best_blend(on_others, targets, self.metric).scored

            scored = [b.scored for b in blends]
            score = cross_fit_choice(scored, self.true, self.parts, take, self.metric).score

        def value(probs: np.ndarray) -> float:
            step()
            return self.score(probs).cross_fitted

        whole, gains, alone = value(self.members.mean(0)), [], []
        for i, member in enumerate(self.members):
            gain = whole - value(np.delete(self.members, i, axis=0).mean(0))
            gains.append(self.metric.sign * gain)
            alone.append(value(member))
        return BlendChoice(tuple(blends), chosen, score, alone, gains)


def methods_of(how: str, metric: Metric) -> list[str]:
    """Return the methods to compare: all that suit the metric for auto, else the plain mean and the named
    one. Raise CompError where that does not suit it."""
    if metric.kind == "labels":
        known = list(METHODS)
    elif metric.kind == "numbers":
        known = ["mean", "weights", "stack"]
    elif metric.name in BY_ORDER and metric.average == "macro":
        known = list(METHODS)
    else:
        known = ["mean", "logits", "greedy", "weights"]
    if how not in ("auto", *known):
        raise CompError(
            f"--how {how} does not suit {metric}, whose answer is {metric.kind}; there are {', '.join(known)}"
        )
    return known if how == "auto" else list(dict.fromkeys(["mean", how]))


def reference_rule(metric: Metric) -> str:
    """Return the rule by which blends of answers that are no labels are scored: the simplest, but for kappa
    cut points, which nearly always win."""
    return "cut-points" if metric.name == "quadratic_kappa" else next(iter(ANSWER_RULES[metric.kind]))


def score_reference(
    probs: np.ndarray,
    targets: np.ndarray,
    folds: np.ndarray,
    metric: Scorer,
    *,
    single: bool,
    min_labels: int,
    seed: int,
) -> ScoredRule:
    """Return the reference rule, cross-fitted and scored on probabilities or numbers (N, C). Raise CompError
    where the score is not defined."""
    probs = probs.astype(np.float32)
    if metric.answer == "labels":
        groups = [range(targets.shape[1])] if single else []
        settings = SearchSettings(seed=seed, n_trials=5)
        fitter = CrossFitter(
            probs, targets, folds, metric, groups=groups, min_labels=min_labels, settings=settings
        )
        return fitter.score(REFERENCE_SINGLE if single else REFERENCE_RULE)
    scored = AnswerFitter(probs, targets, folds, metric).score(reference_rule(metric.metric))
    if not np.isfinite(scored.cross_fitted):
        raise CompError(
            f"{metric.metric} of these {len(probs):,} rows is not defined: no class has both known values"
        )
    return scored


def best_blend(blends: Sequence[Blend], targets: np.ndarray, metric: Scorer) -> Blend:
    """Return the blend with the best cross-fitted score if it beats the first one, the plain mean, with
    enough probability, and the plain mean if not."""
    best = max(blends, key=lambda b: metric.sign * b.scored.cross_fitted)
    probability = win_probability(best.scored.decisions, blends[0].scored.decisions, targets, metric)
    return best if probability > MIN_WIN_PROBABILITY else blends[0]

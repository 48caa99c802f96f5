"""Blend several models by means, weights or stacking, each fold by a blend that was fitted to the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sklearn.linear_model import Ridge

from comp.decisions.bootstrap import MIN_WIN_PROBABILITY, win_probability
from comp.decisions.calibration import logit, sigmoid
from comp.decisions.cross_fitting import CrossFitter, ScoredRule
from comp.decisions.metrics import FBeta, most_probable
from comp.decisions.optuna_search import search
from comp.decisions.rule_search import SearchSettings
from comp.decisions.rules import REFERENCE_RULE, REFERENCE_SINGLE
from comp.decisions.selection import cross_fit_choice
from comp.decisions.thresholds import global_threshold

Members = np.ndarray  # (M, N, C) probabilities
Apply = Callable[[Members], np.ndarray]  # (M, N, C) -> (N, C)

METHODS = {
    "mean": "mean of the probabilities",
    "logits": "mean of the logits",
    "ranks": "mean of the ranks within each class",
    "greedy": "mean of the logits of members chosen one by one, with replacement",
    "weights": "mean of the logits, weighted as Optuna finds best",
    "stack": "ridge regression of each label on all labels of all members",
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
    gains: list[float]  # (M,) score of the plain mean of all members, minus that without the member


def fit_blend(
    method: str,
    members: Members,
    targets: np.ndarray,
    metric: FBeta,
    settings: SearchSettings,
    *,
    single: bool = False,
) -> tuple[Apply, np.ndarray | None]:
    """Return the blend fitted to members (M, N, C) and targets (N, C), and its weights (M,), if it has some.
    With `single`, each image has exactly one label. The settings name Optuna's study."""
    n_members = len(members)
    if method == "mean":
        return lambda m: m.mean(0), np.full(n_members, 1 / n_members)
    if method == "logits":
        weights = np.full(n_members, 1 / n_members)
    elif method == "ranks":
        sorted_members = np.sort(members, axis=1)
        return lambda m: _ranks(m, sorted_members), np.full(n_members, 1 / n_members)
    elif method == "stack":
        return _stacked(members, targets), None
    else:
        logits = logit(members)

        def value(weights: np.ndarray) -> float:
            probs = sigmoid(np.tensordot(weights, logits, 1)).astype(np.float32)
            if single:
                return metric.score(targets, most_probable(probs))
            return metric.score(targets, probs > global_threshold(probs, targets, metric))

        weights = _greedy(value, n_members) if method == "greedy" else _searched(value, n_members, settings)
    return lambda m: sigmoid(np.tensordot(weights, logit(m), 1)), weights


def _ranks(members: Members, sorted_members: Members) -> np.ndarray:
    """Return (N, C) the share of fitted rows that are less probable, as the mean over members."""
    n = sorted_members.shape[1]
    ranks = np.zeros(members.shape[1:])
    for member, known in zip(members, sorted_members):
        for c in range(member.shape[1]):
            ranks[:, c] += np.searchsorted(known[:, c], member[:, c]) / n
    return ranks / len(members)


def _greedy(value: Callable[[np.ndarray], float], n_members: int) -> np.ndarray:
    """Return (M,) each member's share of the picks of forward selection with replacement (Caruana et al.
    2004)."""
    counts = np.zeros(n_members)
    best = -1.0
    for _ in range(MAX_PICKS):
        scores = [value((counts + step) / (counts.sum() + 1)) for step in np.eye(n_members)]
        if max(scores) <= best + 1e-6:
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


def _stacked(members: Members, targets: np.ndarray) -> Apply:
    def features(m: Members) -> np.ndarray:
        return np.concatenate(list(m), axis=1)  # (N, M * C)

    model = Ridge(alpha=max(1.0, len(targets) / 1000)).fit(features(members), targets.astype(float))
    return lambda m: np.clip(model.predict(features(m)), 0, 1)


@dataclass(frozen=True)
class Blender:
    """Blends members by any method, each fold by the blend that was fitted to the others."""

    members: Members
    targets: np.ndarray  # (N, C)
    folds: np.ndarray  # (N,)
    metric: FBeta
    settings: SearchSettings
    single: bool = False  # each image has exactly one label
    min_labels: int = 0  # per image

    def blend(self, method: str, step: Callable[[], None] = lambda: None) -> Blend:
        """Return a method's cross-fitted probabilities, scored by the reference rule. Call `step` after each
        fold, and at the end."""
        oof = np.zeros(self.targets.shape)
        for fold in np.unique(self.folds):
            part = self.folds == fold
            settings = replace(self.settings, name=f"{self.settings.name} without {fold}")
            apply, _ = fit_blend(
                method, self.members[:, ~part], self.targets[~part], self.metric, settings, single=self.single
            )
            oof[part] = apply(self.members[:, part])
            step()
        apply, weights = fit_blend(
            method, self.members, self.targets, self.metric, self.settings, single=self.single
        )
        scored = self.score(oof)
        step()
        return Blend(method, oof, apply, scored, weights)

    def score(self, probs: np.ndarray) -> ScoredRule:
        """Return the reference rule, scored on probabilities (N, C)."""
        return score_reference(
            probs, self.targets, self.folds, self.metric,
            single=self.single, min_labels=self.min_labels, seed=self.settings.seed,
        )  # fmt: skip

    def n_steps(self, how: str) -> int:
        """Return how often `choose` calls `step`."""
        n_folds, n_methods = len(np.unique(self.folds)), len(methods_of(how))
        return n_methods * (n_folds + 1) + (n_folds if how == "auto" else 0) + 1 + 2 * len(self.members)

    def choose(self, how: str = "auto", step: Callable[[], None] = lambda: None) -> BlendChoice:
        """Return the best blend, or that of the method `how`, and what each member adds."""
        blends = [self.blend(method, step) for method in methods_of(how)]
        chosen = best_blend(blends, self.targets, self.metric) if how == "auto" else blends[-1]
        score = chosen.scored.cross_fitted
        if how == "auto":

            def take(seen: Sequence[ScoredRule], targets: np.ndarray) -> ScoredRule:
                on_others = [replace(b, scored=s) for b, s in zip(blends, seen)]
                step()
                return best_blend(on_others, targets, self.metric).scored

            scored = [b.scored for b in blends]
            score = cross_fit_choice(scored, self.targets, self.folds, take, self.metric).score

        def value(probs: np.ndarray) -> float:
            step()
            return self.score(probs).cross_fitted

        whole, gains, alone = value(self.members.mean(0)), [], []
        for i, member in enumerate(self.members):
            gains.append(whole - value(np.delete(self.members, i, axis=0).mean(0)))
            alone.append(value(member))
        return BlendChoice(tuple(blends), chosen, score, alone, gains)


def methods_of(how: str) -> list[str]:
    """Return the methods to compare: all for auto, else the plain mean and the named one."""
    return list(METHODS) if how == "auto" else list(dict.fromkeys(["mean", how]))


def score_reference(
    probs: np.ndarray,
    targets: np.ndarray,
    folds: np.ndarray,
    metric: FBeta,
    *,
    single: bool,
    min_labels: int,
    seed: int,
) -> ScoredRule:
    """Return the reference rule, cross-fitted and scored on probabilities (N, C)."""
    groups = [range(targets.shape[1])] if single else []
    settings = SearchSettings(seed=seed, n_trials=5)
    fitter = CrossFitter(
        probs.astype(np.float32), targets, folds, metric,
        groups=groups, min_labels=min_labels, settings=settings,
    )  # fmt: skip
    return fitter.score(REFERENCE_SINGLE if single else REFERENCE_RULE)


def best_blend(blends: Sequence[Blend], targets: np.ndarray, metric: FBeta) -> Blend:
    """Return the blend with the best cross-fitted score if it beats the first one, the plain mean, with
    enough probability, and the plain mean if not."""
    best = max(blends, key=lambda b: b.scored.cross_fitted)
    probability = win_probability(best.scored.decisions, blends[0].scored.decisions, targets, metric)
    return best if probability > MIN_WIN_PROBABILITY else blends[0]

"""Blend several models: means, weights and stacking, each fold fitted on the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import Ridge

from comp.decisions.bootstrap import SURE, sureness
from comp.decisions.calibration import logit, sigmoid
from comp.decisions.cross_fitting import Fitter, Weighed
from comp.decisions.metrics import fbeta, most_probable
from comp.decisions.optuna_search import search
from comp.decisions.rules import STEADY, STEADY_OF_ONE
from comp.decisions.thresholds import global_threshold

Members = np.ndarray  # (M, N, C)
Apply = Callable[[Members], np.ndarray]  # (M, N, C) -> (N, C)

METHODS = {
    "mean": "mean of the probabilities",
    "logits": "mean of the logits",
    "ranks": "mean of the ranks, a class at a time",
    "greedy": "mean of the logits of members chosen one by one, with replacement",
    "weights": "mean of the logits by weights that Optuna finds",
    "stack": "ridge regression from all labels of all members to each label",
}
MOST_PICKS = 20  # of the greedy choice
N_TRIALS = 60  # of the search for weights


@dataclass(frozen=True)
class Blend:
    """A method with its cross-fitted probabilities and their score."""

    method: str
    oof: np.ndarray = field(repr=False)  # (N, C), each fold blended as fitted on the others
    apply: Apply = field(repr=False)  # as fitted on all rows
    weighed: Weighed = field(repr=False)
    weights: np.ndarray | None  # (M,), where the method has some


def fit_blend(
    method: str,
    members: Members,
    targets: np.ndarray,
    *,
    beta: float,
    average: str,
    empty: float = 0.0,
    single: bool = False,
    seed: int,
    storage: Path | None = None,
    name: str = "weights",
) -> tuple[Apply, np.ndarray | None]:
    """(the blend as fitted on these rows, its weights (M,)). Members are (M, N, C); `single`: with one label
    an image. Optuna's study is kept as `name` in the journal file `storage`, if there is one."""
    n_members = len(members)
    metric: dict[str, Any] = {"beta": beta, "average": average, "empty": empty}
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
                return fbeta(targets, most_probable(probs), **metric)
            return fbeta(targets, probs > global_threshold(probs, targets, **metric), **metric)

        if method == "greedy":
            weights = _greedy(value, n_members)
        else:
            weights = _searched(value, n_members, seed, storage, name)
    return lambda m: sigmoid(np.tensordot(weights, logit(m), 1)), weights


def _ranks(members: Members, sorted_members: Members) -> np.ndarray:
    """The mean over members of the share of fitted rows that are less probable."""
    n = sorted_members.shape[1]
    ranks = np.zeros(members.shape[1:])
    for member, known in zip(members, sorted_members):
        for c in range(member.shape[1]):
            ranks[:, c] += np.searchsorted(known[:, c], member[:, c]) / n
    return ranks / len(members)


def _greedy(value: Callable[[np.ndarray], float], n_members: int) -> np.ndarray:
    """Forward selection with replacement (Caruana et al. 2004): (M,) how often each member was picked, as a
    share."""
    counts = np.zeros(n_members)
    best = -1.0
    for _ in range(MOST_PICKS):
        scores = [value((counts + step) / (counts.sum() + 1)) for step in np.eye(n_members)]
        if max(scores) <= best + 1e-6:
            break
        best = max(scores)
        counts[int(np.argmax(scores))] += 1
    return counts / counts.sum()


def _searched(
    value: Callable[[np.ndarray], float], n_members: int, seed: int, storage: Path | None, name: str
) -> np.ndarray:
    names = [f"w{m}" for m in range(n_members)]

    def weights_of(params: dict[str, float]) -> np.ndarray:
        weights = np.array([params[name] for name in names]) + 1e-9
        return weights / weights.sum()

    def of_trial(trial: Any) -> float:
        return value(weights_of({name: trial.suggest_float(name, 0, 1) for name in names}))

    start = dict.fromkeys(names, 1.0)
    return weights_of(search(of_trial, [start], n_trials=N_TRIALS, seed=seed, storage=storage, name=name))


def _stacked(members: Members, targets: np.ndarray) -> Apply:
    def features(m: Members) -> np.ndarray:
        return np.concatenate(list(m), axis=1)  # (N, M * C)

    model = Ridge(alpha=max(1.0, len(targets) / 1000)).fit(features(members), targets.astype(float))
    return lambda m: np.clip(model.predict(features(m)), 0, 1)


def blend(
    method: str,
    members: Members,
    targets: np.ndarray,
    folds: np.ndarray,
    *,
    beta: float,
    average: str,
    empty: float = 0.0,
    single: bool = False,
    least: int = 0,
    seed: int = 0,
    storage: Path | None = None,
    name: str = "weights",
    step: Callable[[], None] = lambda: None,
) -> Blend:
    """A method's cross-fitted probabilities, and what they are worth by the steady rule. `step` is called
    after each fold, and at the end."""
    metric: dict[str, Any] = {"beta": beta, "average": average, "empty": empty, "single": single}
    settings = {**metric, "seed": seed, "storage": storage}
    oof = np.zeros(targets.shape)
    for fold in np.unique(folds):
        part = folds == fold
        without = f"{name} without {fold}"
        apply, _ = fit_blend(method, members[:, ~part], targets[~part], **settings, name=without)
        oof[part] = apply(members[:, part])
        step()
    apply, weights = fit_blend(method, members, targets, **settings, name=name)
    weighed = weigh(oof, targets, folds, **metric, least=least, seed=seed)
    step()
    return Blend(method, oof, apply, weighed, weights)


def weigh(
    probs: np.ndarray,
    targets: np.ndarray,
    folds: np.ndarray,
    *,
    beta: float,
    average: str,
    empty: float = 0.0,
    single: bool = False,
    least: int,
    seed: int,
) -> Weighed:
    """What probabilities (N, C) are worth by the steady rule."""
    fitter = Fitter(
        probs.astype(np.float32),
        targets,
        folds,
        beta=beta,
        average=average,
        empty=empty,
        groups=[range(targets.shape[1])] if single else [],
        least=least,
        seed=seed,
        n_trials=5,
    )
    return fitter.weigh(STEADY_OF_ONE if single else STEADY)


def best_blend(
    blends: Sequence[Blend], targets: np.ndarray, *, beta: float, average: str, empty: float = 0.0
) -> Blend:
    """The best by its cross-fitted score, unless the first, the plain mean, is within noise of it."""
    best = max(blends, key=lambda b: b.weighed.cross_fitted)
    decisions = best.weighed.decisions, blends[0].weighed.decisions
    sure = sureness(*decisions, targets, beta=beta, average=average, empty=empty)
    return best if sure > SURE else blends[0]

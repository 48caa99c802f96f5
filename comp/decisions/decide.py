"""`comp.decide`: the best labels that probabilities allow, scored on folds that the rule has not seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from comp.decisions.cross_fitting import Fitter, Weighed
from comp.decisions.rules import STEADY_OF_ONE, Fitted, Groups, candidates
from comp.decisions.selection import Honest, choose, honest_choice
from comp.errors import CompError


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

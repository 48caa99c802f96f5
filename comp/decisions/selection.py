"""Which rule to take, and what the choice is worth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from comp.decisions.bootstrap import SURE, sureness
from comp.decisions.cross_fitting import Weighed
from comp.decisions.metrics import fbeta
from comp.decisions.rules import STEADY, STEADY_OF_ONE, Fitted


@dataclass(frozen=True)
class Honest:
    """A choice among rules, cross-fitted like the rules: each fold has the one that the others choose,
    by their own cross-fitted decisions. Those were fitted with this fold's labels among others."""

    score: float
    decisions: np.ndarray = field(repr=False)  # (N, C)
    rules: tuple[str, ...]  # by fold
    by_fold: tuple[Fitted, ...] = field(repr=False)


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

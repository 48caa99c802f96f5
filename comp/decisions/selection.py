"""The choice among rules, and its cross-fitted score."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from comp.decisions.answer_rules import AS_IS, Rule
from comp.decisions.bootstrap import MIN_WIN_PROBABILITY, win_probability
from comp.decisions.cross_fitting import ScoredRule
from comp.decisions.rules import REFERENCE_RULE, REFERENCE_SINGLE
from comp.decisions.scorers import Scorer

REFERENCES = (REFERENCE_SINGLE, REFERENCE_RULE, AS_IS)  # the first one that was scored is the reference rule


@dataclass(frozen=True)
class CrossFittedChoice:
    """A choice among rules, cross-fitted like the rules: each fold is decided by the other folds' choice.

    These choose by their own cross-fitted decisions, whose rules were fitted to this fold among others."""

    score: float
    decisions: np.ndarray = field(repr=False)  # (N, C) answers
    rules: tuple[str, ...]  # by fold
    by_fold: tuple[Rule, ...] = field(repr=False)


def reference_of(scored: Sequence[ScoredRule]) -> ScoredRule | None:
    """Return the reference rule; None if it is not among the scored rules."""
    return next((s for name in REFERENCES for s in scored if s.rule == name), None)


def choose_rule(
    scored: Sequence[ScoredRule], targets: np.ndarray, metric: Scorer, *, seed: int = 0
) -> tuple[ScoredRule, dict[str, float]]:
    """Return the chosen rule, and for each rule the probability that it beats the reference rule.

    The best rule is chosen if that probability is above MIN_WIN_PROBABILITY, else the reference rule. Without
    a reference rule, the first rule is chosen that the best one beats with a lower probability."""
    best = max(scored, key=lambda s: metric.sign * s.cross_fitted)

    def wins(better: ScoredRule, worse: ScoredRule) -> float:
        return win_probability(better.decisions, worse.decisions, targets, metric, seed=seed)

    reference = reference_of(scored)
    if reference is None:
        probabilities = {s.rule: wins(best, s) for s in scored}
        first = next(s for s in scored if s is best or probabilities[s.rule] < MIN_WIN_PROBABILITY)
        return first, probabilities
    probabilities = {s.rule: wins(s, reference) for s in scored}
    return (best if probabilities[best.rule] > MIN_WIN_PROBABILITY else reference), probabilities


def cross_fit_choice(
    scored: Sequence[ScoredRule],
    targets: np.ndarray,
    folds: np.ndarray,
    take: Callable[[Sequence[ScoredRule], np.ndarray], ScoredRule],
    metric: Scorer,
) -> CrossFittedChoice:
    """Return the cross-fitted choice among the scored rules by `take(scored, targets)`."""
    if len(scored) == 1:
        (only,) = scored
        names = (only.rule,) * len(only.by_fold)
        return CrossFittedChoice(only.cross_fitted, only.decisions, names, only.by_fold)
    decisions, rules, by_fold = np.zeros_like(scored[0].decisions), [], []
    for k, fold in enumerate(np.unique(folds)):
        others = folds != fold
        seen = [
            replace(
                s,
                decisions=s.decisions[others],
                cross_fitted=metric.score(targets[others], s.decisions[others]),
            )
            for s in scored
        ]
        chosen = take(seen, targets[others])
        at = next(i for i, s in enumerate(seen) if s is chosen)
        decisions[~others] = scored[at].decisions[~others]
        by_fold.append(scored[at].by_fold[k])
        rules.append(chosen.rule)
    score = metric.score(targets, decisions)
    return CrossFittedChoice(score, decisions, tuple(rules), tuple(by_fold))

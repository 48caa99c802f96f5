"""Pruning: when `comp tune` stops a trial early."""

from collections.abc import Sequence
from typing import Any

import numpy as np

N_STEPS = 10  # per fold: trials with different numbers of epochs are compared at the same shares


def curve(scores: Sequence[Sequence[float]], n_epochs: int) -> dict[int, float]:
    """Return by step the expected final mean over the folds so far. `scores` holds for each started fold the
    scores of its finished epochs, of `n_epochs`. A fold has N_STEPS steps.

    An unfinished fold is expected to keep its present lead over the first fold at the same epoch. Example:
    the first fold scored 0.5, then 0.9; the second scored 0.6 so far. Its expected end is 0.9 + 0.6 - 0.5 =
    1.0, and the mean is 0.95. The mean of raw scores would instead fall whenever a fold starts. Between
    epochs the curve is linear. It starts at the last step within the first epoch."""
    shares, values = [], []
    for i, fold in enumerate(scores):
        for e, score in enumerate(fold, 1):
            shares.append(N_STEPS * (i + e / n_epochs))
            lead = scores[0][-1] + score - scores[0][e - 1] if i else score
            values.append((sum(done[-1] for done in scores[:i]) + lead) / (i + 1))
    if not values:
        return {}
    n_done = (len(scores) - 1) * n_epochs + len(scores[-1])
    steps = range(max(1, N_STEPS // n_epochs), N_STEPS * n_done // n_epochs + 1)
    return dict(zip(steps, np.interp(steps, shares, values).tolist()))


def make_pruner() -> Any:
    """Return a median pruner. It stops a trial whose best score so far is below the median of the others at
    the same step, once five trials are complete. It never stops one in the first half of the first fold,
    where high learning rates look worse than they end. Paired tests over folds (WilcoxonPruner) need five
    folds."""
    from optuna.pruners import MedianPruner

    return MedianPruner(n_startup_trials=5, n_warmup_steps=N_STEPS // 2, n_min_trials=3)

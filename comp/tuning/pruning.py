"""When `comp tune` stops a trial early."""

from collections.abc import Sequence
from typing import Any

import numpy as np

STEPS = 10  # a fold: trials of different numbers of epochs are compared at the same shares of the training


def curve(scores: Sequence[Sequence[float]], n_epochs: int) -> dict[int, float]:
    """The expected mean over the folds so far, by step: `scores` holds, of each fold that has begun, the
    score of each epoch of `n_epochs` that is done; STEPS steps are a fold.

    A fold that is not done is taken to end as far above the first fold as it is now above the first fold at
    the same epoch; the mean of raw scores would fall with each fold that begins. Between epochs the curve is
    straight; it begins at the last step within the first epoch."""
    shares, values = [], []
    for i, fold in enumerate(scores):
        for e, score in enumerate(fold, 1):
            shares.append(STEPS * (i + e / n_epochs))
            lead = scores[0][-1] + score - scores[0][e - 1] if i else score
            values.append((sum(done[-1] for done in scores[:i]) + lead) / (i + 1))
    if not values:
        return {}
    n_done = (len(scores) - 1) * n_epochs + len(scores[-1])
    steps = range(max(1, STEPS // n_epochs), STEPS * n_done // n_epochs + 1)
    return dict(zip(steps, np.interp(steps, shares, values).tolist()))


def pruner() -> Any:
    """Trials end whose best step so far is below the median of the others' at the same step, once five are
    complete, and not in the first half of the first fold, in which high learning rates look worse than they
    end. Paired tests over folds (WilcoxonPruner) can't tell anything from less than five folds."""
    from optuna.pruners import MedianPruner

    return MedianPruner(n_startup_trials=5, n_warmup_steps=STEPS // 2, n_min_trials=3)

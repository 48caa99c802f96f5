"""The order of an epoch's images: batches, seeds, oversampling."""

from collections.abc import Sequence

import numpy as np

Step = tuple[int, np.ndarray]  # the seed of its draws, the rows of the cache


def epoch_steps(
    rows: np.ndarray, batch_size: int, seeds: Sequence[int], repeats: np.ndarray | None = None
) -> list[Step]:
    """The steps of one training epoch: all rows in an order drawn from `seeds`, cut into equal batches; what
    is left over waits for another epoch's order. With `repeats` (len(rows),) each row comes that often on
    average, and every epoch has the same number of steps."""
    rng = np.random.default_rng(list(seeds))
    n = len(rows)
    if repeats is not None:
        ends = np.floor(np.cumsum(repeats) + rng.random() + 1e-9).astype(int)
        rows, n = np.repeat(rows, np.diff(ends, prepend=0)), int(repeats.sum() + 1e-9)
    order = rng.permutation(rows)
    n_steps = max(1, n // batch_size)
    draws = rng.integers(0, 2**31 - 1, n_steps)
    return [(int(draws[i]), order[i * batch_size : (i + 1) * batch_size]) for i in range(n_steps)]


def repeats_of(targets: np.ndarray, share: float) -> np.ndarray | None:
    """(N,): how often to show each image so that labels (N, C) rarer than `share` come more often: by the
    square root of what they lack, for the rarest of its labels (Gupta, Dollár and Girshick 2019)."""
    if not share:
        return None
    by_label = np.sqrt(share / np.maximum(targets.mean(0), 1e-9))
    return np.maximum(1.0, (targets * by_label).max(1))


def in_order(rows: np.ndarray, batch_size: int) -> list[Step]:
    return [(0, rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]

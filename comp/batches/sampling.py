"""The order of an epoch's images: batches, seeds, oversampling."""

from collections.abc import Sequence

import numpy as np

Step = tuple[int, np.ndarray]  # the seed of its random numbers, and rows of the cache


def epoch_steps(
    rows: np.ndarray, batch_size: int, seeds: Sequence[int], repeats: np.ndarray | None = None
) -> list[Step]:
    """Return the steps of a training epoch: all rows in random order, in equal batches; the remainder is left
    out. The order depends on `seeds` only. With `repeats` (len(rows),) row i comes repeats[i] times on
    average, and every epoch has the same number of steps.

    Row i gets as many places as there are whole numbers between cumsum(repeats)[i - 1] + u and
    cumsum(repeats)[i] + u, with one random u per epoch: 1.5 repeats are 1 or 2 places."""
    rng = np.random.default_rng(list(seeds))
    n = len(rows)
    if repeats is not None:
        ends = np.floor(np.cumsum(repeats) + rng.random() + 1e-9).astype(int)
        rows, n = np.repeat(rows, np.diff(ends, prepend=0)), int(repeats.sum() + 1e-9)
    order = rng.permutation(rows)
    n_steps = max(1, n // batch_size)
    draws = rng.integers(0, 2**31 - 1, n_steps)
    return [(int(draws[i]), order[i * batch_size : (i + 1) * batch_size]) for i in range(n_steps)]


def oversampling_repeats(targets: np.ndarray, share: float) -> np.ndarray | None:
    """Return (N,) how often each image is repeated per epoch, or None if the share is 0: sqrt(share /
    frequency of the image's rarest label), at least 1 (Gupta, Dollár and Girshick 2019). `targets` are
    (N, C)."""
    if not share:
        return None
    by_label = np.sqrt(share / np.maximum(np.nanmean(targets, 0), 1e-9))
    return np.maximum(1.0, (np.nan_to_num(targets) * by_label).max(1))


def balanced_rows(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all rows of targets (N, C) ordered by class, and (N,) how often each is repeated per epoch, so
    that each class has as many places and an epoch N in all. One column is a class and its absence. Rows
    with unknown targets (NaN) come never."""
    unknown = np.isnan(targets).any(1)
    class_of = targets[:, 0] > 0.5 if targets.shape[1] == 1 else np.nan_to_num(targets).argmax(1)
    class_of = np.where(unknown, -1, class_of)
    found, place, counts = np.unique(class_of, return_inverse=True, return_counts=True)
    n_classes = int((found >= 0).sum())
    repeats = np.where(found >= 0, len(targets) / (max(1, n_classes) * counts), 0.0)[place]
    order = np.argsort(class_of, kind="stable")
    return order, repeats[order]


def ordered_steps(rows: np.ndarray, batch_size: int) -> list[Step]:
    """Return the steps over all rows in their order; the last batch may be smaller."""
    return [(0, rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]

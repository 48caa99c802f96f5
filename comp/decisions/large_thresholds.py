"""Thresholds of matrices of more than 20 million numbers: thousands of labels, few of which an image may
have. Only probabilities above 0.005 are looked at, which are a few in a hundred."""

from typing import Any

import numpy as np

from comp.decisions.metrics import FBeta
from comp.decisions.thresholds import GRID, best_cut, large_parts, threshold_after

FLOOR = float(GRID[0])  # no lower threshold is tried


def large_class_thresholds(
    probs: np.ndarray, targets: np.ndarray, metric: FBeta, *, start: float, sweeps: int = 10
) -> np.ndarray:
    """Return (C,) thresholds of at least FLOOR for `probs` (N, C), by the coordinate ascent of
    `comp.decisions.thresholds.class_thresholds` from `start`. It ends at the same thresholds unless a best
    one is below FLOOR."""
    labels = _candidates(probs, targets)
    n_true = targets.sum(0, dtype=np.int64)
    thresholds, taken = np.full(len(labels), float(start)), np.zeros(len(labels), int)
    for c, (_, falling, _) in enumerate(labels):
        taken[c] = np.count_nonzero(falling > np.float64(start))
    kinds: dict[str, Any] = {"samples": _Samples, "macro": _Macro, "micro": _Micro}
    state = kinds[metric.average](labels, taken, targets.sum(1, dtype=np.int64), n_true, metric)
    n_unchanged = 0  # classes in a row that could not be improved
    for step in range(len(labels) * (1 if metric.average == "macro" else sweeps)):
        c = step % len(labels)
        falling, now = labels[c][1], int(taken[c])
        n_unchanged += 1
        if len(falling):
            gains = state.gains(c, now)
            best, value = best_cut(falling, gains)
            if value > (gains[now - 1] if now else 0.0) + 1e-10:
                thresholds[c] = FLOOR if best == len(falling) else threshold_after(falling, best)
                state.move(c, now, best)
                taken[c], n_unchanged = best, 1
        if n_unchanged >= len(labels):
            break
    return thresholds


Candidates = list[tuple[np.ndarray, np.ndarray, np.ndarray]]  # by label: rows, falling probabilities, truth


def _candidates(probs: np.ndarray, targets: np.ndarray) -> Candidates:
    """Return the images of each label whose probability is above FLOOR."""
    parts = [
        (rows + first, columns, values, targets[first:][rows, columns].astype(bool))
        for first, rows, columns, values in large_parts(probs, FLOOR)
    ]
    rows, columns, values, true = (np.concatenate(each) for each in zip(*parts))
    order = np.argsort(columns.astype(np.uint16 if probs.shape[1] < 1 << 16 else int), kind="stable")
    ends = np.cumsum(np.bincount(columns, minlength=probs.shape[1]))
    found = []
    for part in np.split(order, ends[:-1]):
        falling = part[np.argsort(-values[part], kind="stable")]
        found.append((rows[falling], values[falling], true[falling]))
    return found


class _Samples:
    """Counts by image, for the mean over images."""

    def __init__(
        self,
        labels: Candidates,
        taken: np.ndarray,
        n_true_by_row: np.ndarray,
        n_true: np.ndarray,
        metric: FBeta,
    ):
        self.labels, beta = labels, metric.beta
        self.loss = metric.zero_division / (1 + beta**2)  # by the first label of an image without true labels
        self.unlabelled = n_true_by_row == 0
        self.hits = np.zeros(len(n_true_by_row))
        self.denominator = beta**2 * n_true_by_row
        for c, n in enumerate(taken.tolist()):
            self.move(c, 0, n)

    def gains(self, c: int, now: int) -> np.ndarray:
        rows, _, true = self.labels[c]
        hits, denominator = self.hits[rows], self.denominator[rows]
        hits[:now] -= true[:now]
        denominator[:now] -= 1
        gain = (hits + true) / (denominator + 1.0)
        gain -= hits / np.maximum(denominator, 1e-12)
        if self.loss:
            gain[self.unlabelled[rows] & (denominator == 0)] -= self.loss
        return np.cumsum(gain)

    def move(self, c: int, now: int, best: int) -> None:
        rows, _, true = self.labels[c]
        part, sign = slice(min(now, best), max(now, best)), 1 if best > now else -1
        self.hits[rows[part]] += sign * true[part]
        self.denominator[rows[part]] += sign


class _Macro:
    """Independent classes, for the macro average."""

    def __init__(
        self,
        labels: Candidates,
        taken: np.ndarray,
        n_true_by_row: np.ndarray,
        n_true: np.ndarray,
        metric: FBeta,
    ):
        self.labels, self.n_true, self.metric = labels, n_true, metric

    def gains(self, c: int, now: int) -> np.ndarray:
        true = self.labels[c][2]
        return self.metric.score_counts(np.cumsum(true), np.arange(1, len(true) + 1), self.n_true[c])

    def move(self, c: int, now: int, best: int) -> None:
        pass


class _Micro:
    """Counts pooled over all classes."""

    def __init__(
        self,
        labels: Candidates,
        taken: np.ndarray,
        n_true_by_row: np.ndarray,
        n_true: np.ndarray,
        metric: FBeta,
    ):
        self.labels, self.metric, self.n_true = labels, metric, n_true.sum()
        self.hits, self.n_chosen = 0, 0
        for c, n in enumerate(taken.tolist()):
            self.move(c, 0, n)

    def gains(self, c: int, now: int) -> np.ndarray:
        true = self.labels[c][2]
        hits, n_chosen = self.hits - int(true[:now].sum()), self.n_chosen - now
        without = self.metric.score_counts(np.array(hits), np.array(n_chosen), self.n_true)
        k = np.arange(1, len(true) + 1)
        return self.metric.score_counts(hits + np.cumsum(true), n_chosen + k, self.n_true) - without

    def move(self, c: int, now: int, best: int) -> None:
        true = self.labels[c][2]
        self.hits += int(true[:best].sum()) - int(true[:now].sum())
        self.n_chosen += best - now

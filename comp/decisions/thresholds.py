"""Thresholds that maximise F-beta, found exactly: one for all classes, or one a class."""

from typing import Any

import numpy as np

from comp.decisions.calibration import TINY, logit, sigmoid
from comp.decisions.metrics import score

GRID = np.arange(1, 200) / 200  # for matrices too large to sort as a whole
SORTABLE = 20_000_000  # numbers in a matrix that is sorted as a whole


def global_threshold(
    probs: np.ndarray, targets: np.ndarray, *, beta: float, average: str, empty: float = 0.0
) -> float:
    """The best one threshold for all classes of `probs` (N, C); in the middle of its gap between two
    probabilities. Of matrices with more than 20 million numbers, the best of 0.005, 0.010, … 0.995.

    Lowering the threshold adds labels one by one, in the order of their probabilities; each changes the
    metric of its image, its class, or of all, by an amount that does not depend on the others."""
    n, n_classes = probs.shape
    if probs.size > SORTABLE:
        return _on_grid(probs, targets, beta, average, empty)
    if average == "samples":
        gains, falling = _gains(probs, targets, beta, empty)
    elif average == "macro":
        gains, falling = _gains(probs.T, targets.T, beta)
    else:
        gains, falling = _gains(probs.reshape(1, -1), targets.reshape(1, -1), beta)
    flat = falling.ravel()
    order = np.argsort(-flat)
    return _cut(flat[order], np.cumsum(gains.ravel()[order]))


def _gains(
    probs: np.ndarray, targets: np.ndarray, beta: float, empty: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """For groups of probabilities (G, M): what each adds to its group's F-beta when the group's labels are
    taken from the most probable on, and the probabilities in that order. Groups without labels begin with
    `empty`, which the first one takes away."""
    order = np.argsort(-probs, axis=1)
    hits = np.cumsum(np.take_along_axis(targets, order, 1), axis=1, dtype=np.int64)
    scores = score(hits, np.arange(1, probs.shape[1] + 1), hits[:, -1:], beta)
    gains = np.diff(scores, axis=1, prepend=0.0)
    if empty:
        gains[hits[:, -1] == 0, 0] -= empty
    return gains, np.take_along_axis(probs, order, 1)


def _on_grid(probs: np.ndarray, targets: np.ndarray, beta: float, average: str, empty: float) -> float:
    axis = {"samples": 1, "macro": 0, "micro": None}[average]
    true = targets.astype(bool)
    n_true = true.sum(axis)
    scores = []
    for threshold in GRID:
        chosen = probs > threshold
        n_chosen = chosen.sum(axis)
        chosen &= true
        scores.append(np.mean(score(chosen.sum(axis), n_chosen, n_true, beta, empty)))
    return float(GRID[int(np.argmax(scores))])


def class_thresholds(
    probs: np.ndarray,
    targets: np.ndarray,
    *,
    beta: float,
    average: str,
    empty: float = 0.0,
    start: np.ndarray | float | None = None,
    sweeps: int = 10,
) -> np.ndarray:
    """(C,) thresholds for `probs` (N, C) by exact coordinate ascent from `start` (by default the best of a
    few thresholds for all).

    With the other classes fixed, moving the cut through a class's sorted probabilities changes the metric by
    a prefix sum, so the best cut is found exactly, whatever the probabilities; sweeps over the classes end
    when none improves. Classes do not meet in the macro average: there, one sweep is the optimum."""
    n, n_classes = probs.shape
    columns = np.ascontiguousarray(probs.T)
    true = np.ascontiguousarray(targets.T.astype(bool))
    thresholds = np.empty(n_classes)
    thresholds[:] = _coarse(columns, true, beta, average, empty) if start is None else start
    orders = np.empty((n_classes, n), np.int32)
    for c in range(n_classes):
        orders[c] = _falling_order(columns[c])
    kinds: dict[str, Any] = {"samples": _BySample, "macro": _ByClass, "micro": _Pooled}
    state = kinds[average](columns, true, thresholds, beta, *([empty] if average == "samples" else []))
    n_still = 0  # classes in a row that could not be bettered
    for step in range(n_classes * (1 if average == "macro" else sweeps)):
        c = step % n_classes
        order = orders[c].astype(np.intp)  # numpy gathers by these ten times as fast as by int32
        falling = columns[c].take(order)
        gains = state.gains(c, order)
        now = int(np.count_nonzero(columns[c] > thresholds[c]))
        best, value = _best(falling, gains)
        n_still += 1
        if value > (gains[now - 1] if now else 0.0) + 1e-10:
            thresholds[c] = between(falling, best)
            state.move(c, columns[c] > thresholds[c])
            n_still = 1
        if n_still >= n_classes:
            break
    return thresholds


def _falling_order(column: np.ndarray) -> np.ndarray:
    """Indices (N,) of falling probabilities. Of 32-bit floats that are not negative the bits sort as the
    numbers do: two stable passes over 16 bits each, for which numpy has a radix sort."""
    if column.dtype != np.float32 or (len(column) and column.min() < 0):
        return np.argsort(column)[::-1]
    bits = (column + np.float32(0)).view(np.uint32)  # the sum makes -0 a 0
    order = np.argsort((bits & 0xFFFF).astype(np.uint16), kind="stable")
    return order.take(np.argsort((bits >> 16).astype(np.uint16).take(order), kind="stable"))[::-1]


def _coarse(columns: np.ndarray, true: np.ndarray, beta: float, average: str, empty: float) -> float:
    """The best of a few thresholds for all classes, as a place to start from."""
    axis, rows = (0, slice(None, None, max(1, columns.shape[1] // 10_000)))
    if average != "samples":
        return 0.5 if beta <= 1 else 0.3
    columns, true = columns[:, rows], true[:, rows]
    n_true = true.sum(axis, dtype=np.int32)
    scores = {}
    for threshold in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5):
        chosen = columns > threshold
        n_chosen = chosen.sum(axis, dtype=np.int32)
        hits = (chosen & true).sum(axis, dtype=np.int32)
        scores[threshold] = score(hits, n_chosen, n_true, beta, empty).mean()
    return max(scores, key=lambda threshold: scores[threshold])


def _best(falling: np.ndarray, gains: np.ndarray) -> tuple[int, float]:
    """(how many of the `falling` probabilities to take, what that gains): equal ones can't be parted, and 0
    is above no threshold."""
    allowed = gains.copy()
    allowed[:-1][falling[1:] == falling[:-1]] = -np.inf
    allowed[np.count_nonzero(falling > 0) :] = -np.inf
    k = int(np.argmax(allowed)) if len(allowed) else 0
    return (k + 1, float(allowed[k])) if len(allowed) and allowed[k] > 0 else (0, 0.0)


def between(falling: np.ndarray, k: int) -> float:
    """A threshold that the first k of the falling probabilities are above, and no other: in their own
    precision, in which they will be compared with it."""
    kind = falling.dtype.type if falling.dtype.kind == "f" else np.float64
    above = kind(falling[k - 1]) if k else kind(1.0)
    below = kind(falling[k]) if k < len(falling) else kind(0.0)
    middle = kind((float(above) + float(below)) / 2)
    return float(middle if middle < above or not k else below)


def _cut(falling: np.ndarray, gains: np.ndarray) -> float:
    return between(falling, _best(falling, gains)[0])


def _chosen(columns: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    return np.stack([column > threshold for column, threshold in zip(columns, thresholds)])


class _BySample:
    """Counts an image, from which the gains of a class's cuts follow."""

    def __init__(
        self, columns: np.ndarray, true: np.ndarray, thresholds: np.ndarray, beta: float, empty: float
    ):
        self.true, self.beta = true, beta
        self.loss = empty / (1 + beta**2)  # of the first label of an image that has none
        self.bare = ~true.any(0) if empty else None
        self.chosen = _chosen(columns, thresholds)
        self.hits = (self.chosen & true).sum(0, dtype=np.int32).astype(float)
        self.below = self.chosen.sum(0, dtype=np.int32) + beta**2 * true.sum(0, dtype=np.int32)

    def gains(self, c: int, order: np.ndarray) -> np.ndarray:
        """(N,): by how much the metric grows, times N / (1 + b²), if the first 1, 2, … rows of `order` have
        class c, against none."""
        hits = self.hits - (self.chosen[c] & self.true[c])
        below = self.below - self.chosen[c]
        gain = (hits + self.true[c]) / (below + 1.0)
        gain -= hits / np.maximum(below, 1e-12)
        if self.bare is not None:
            gain[self.bare & (below == 0)] -= self.loss
        return np.cumsum(gain.take(order))

    def move(self, c: int, chosen: np.ndarray) -> None:
        change = chosen.astype(np.int8) - self.chosen[c]
        self.hits += change * self.true[c]
        self.below += change
        self.chosen[c] = chosen


class _ByClass:
    """Classes that do not meet."""

    def __init__(self, columns: np.ndarray, true: np.ndarray, thresholds: np.ndarray, beta: float):
        self.true, self.beta = true, beta

    def gains(self, c: int, order: np.ndarray) -> np.ndarray:
        hits = np.cumsum(self.true[c][order])
        return score(hits, np.arange(1, len(order) + 1), hits[-1:], self.beta)

    def move(self, c: int, chosen: np.ndarray) -> None:
        pass


class _Pooled:
    """Counts over all classes."""

    def __init__(self, columns: np.ndarray, true: np.ndarray, thresholds: np.ndarray, beta: float):
        self.true, self.beta = true, beta
        self.chosen = _chosen(columns, thresholds)
        self.hits, self.n_chosen = int((self.chosen & true).sum()), int(self.chosen.sum())
        self.n_true = int(true.sum())

    def gains(self, c: int, order: np.ndarray) -> np.ndarray:
        hits = self.hits - np.count_nonzero(self.chosen[c] & self.true[c])
        n_chosen = self.n_chosen - np.count_nonzero(self.chosen[c])
        without = score(np.array(hits), np.array(n_chosen), np.array(self.n_true), self.beta)
        k = np.arange(1, len(order) + 1)
        return (
            score(hits + np.cumsum(self.true[c][order]), n_chosen + k, np.array(self.n_true), self.beta)
            - without
        )

    def move(self, c: int, chosen: np.ndarray) -> None:
        before = self.chosen[c]
        self.hits += int(np.count_nonzero(chosen & self.true[c]) - np.count_nonzero(before & self.true[c]))
        self.n_chosen += int(np.count_nonzero(chosen) - np.count_nonzero(before))
        self.chosen[c] = chosen


def drawn_thresholds(exact: np.ndarray, common: float, share: np.ndarray | float) -> np.ndarray:
    """Thresholds (C,) drawn from their own best `exact` (C,) towards the `common` one, in logits: `share` 1
    keeps them, 0 leaves the common one."""
    return sigmoid(share * logit(exact, TINY) + (1 - share) * logit(np.array(common), TINY))


def prevalence_thresholds(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(C,) thresholds above which lie as many probabilities as there are labels of the class, or as near to
    that as equal probabilities allow."""
    thresholds = np.empty(probs.shape[1])
    for c, n_labels in enumerate(targets.sum(0).astype(int)):
        falling = -np.sort(-probs[:, c].astype(np.float64))
        starts = np.flatnonzero(np.r_[True, falling[1:] != falling[:-1], True])  # where other values begin
        k = int(starts[np.argmin(np.abs(starts - n_labels))])
        thresholds[c] = between(falling, k)
    return thresholds

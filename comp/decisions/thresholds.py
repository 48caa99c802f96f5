"""Thresholds that maximise F-beta, found exactly: one for all classes, or one per class. For any other metric
they are searched."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from comp.decisions.calibration import TINY, logit, sigmoid
from comp.decisions.metrics import FBeta

MAX_SORTED = 20_000_000  # numbers in a matrix; larger matrices are searched on GRID only
GRID = np.arange(1, 200) / 200
N_TRIED = 30  # thresholds that a search for another metric tries, from the probabilities; GRID_TRIED besides
GRID_TRIED = sigmoid(np.linspace(-4, 4, 17))
MAX_SWEEPS = 3  # of that search
CHUNK = 1 << 24  # numbers that are looked at together


def global_threshold(probs: np.ndarray, targets: np.ndarray, metric: FBeta) -> float:
    """Return the best single threshold for all classes of `probs` (N, C), midway between two probabilities.
    For matrices of more than 20 million numbers, return the best of 0.005, 0.010, … 0.995.

    Lowering the threshold adds labels one by one, in the order of their probabilities. Each changes the score
    of its image, its class or the pooled counts by an amount that does not depend on other images or
    classes."""
    n, n_classes = probs.shape
    if probs.size > MAX_SORTED:
        return _on_grid(probs, targets, metric)
    if metric.average == "samples":
        gains, falling = _gains(probs, targets, metric)
    elif metric.average == "macro":
        gains, falling = _gains(probs.T, targets.T, metric)
    else:
        gains, falling = _gains(probs.reshape(1, -1), targets.reshape(1, -1), metric)
    flat = falling.ravel()
    order = np.argsort(-flat)
    return _threshold_of(flat[order], np.cumsum(gains.ravel()[order]))


def _gains(probs: np.ndarray, targets: np.ndarray, metric: FBeta) -> tuple[np.ndarray, np.ndarray]:
    """Return (G, M) how much each probability adds to its row's F-beta if labels are taken from the most
    probable on, and (G, M) the probabilities in that order. A row without true labels begins with the score
    `zero_division`, which the first taken label removes."""
    order = np.argsort(-probs, axis=1)
    hits = np.cumsum(np.take_along_axis(targets, order, 1), axis=1, dtype=np.int64)
    scores = metric.score_counts(hits, np.arange(1, probs.shape[1] + 1), hits[:, -1:])
    gains = np.diff(scores, axis=1, prepend=0.0)
    if metric.zero_division:
        gains[hits[:, -1] == 0, 0] -= metric.zero_division
    return gains, np.take_along_axis(probs, order, 1)


def _on_grid(probs: np.ndarray, targets: np.ndarray, metric: FBeta) -> float:
    """Return the best threshold of GRID. Each probability is counted once: in its image or class, by the
    number of thresholds below it."""
    axis = {"samples": 1, "macro": 0, "micro": None}[metric.average]
    n_units, n_steps = 1 if axis is None else probs.shape[1 - axis], len(GRID) + 1
    n_chosen, hits = (np.zeros((n_units, n_steps), np.int64) for _ in range(2))
    for first, rows, columns, values in large_parts(probs, float(GRID[0])):
        unit = np.zeros_like(rows) if axis is None else rows if axis else columns
        at, true = unit * n_steps + np.searchsorted(GRID, values), targets[first:][rows, columns] == 1
        into = slice(first, first + rows[-1] + 1) if axis and len(rows) else slice(None)
        for counts, found in ((n_chosen, at), (hits, at[true])):
            counts[into] += np.bincount(found, minlength=counts[into].size).reshape(-1, n_steps)
    n_true = targets.sum(axis, dtype=np.int64)
    n_chosen, hits = (np.ascontiguousarray(counts[:, :0:-1].cumsum(1).T) for counts in (n_chosen, hits))
    scores = [np.mean(metric.score_counts(*counts, n_true)) for counts in zip(hits[::-1], n_chosen[::-1])]
    return float(GRID[int(np.argmax(scores))])


def large_parts(probs: np.ndarray, floor: float) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (first row, rows after it, columns, probabilities) of what is above `floor` in (N, C), by some
    rows at a time."""
    step = max(1, CHUNK // probs.shape[1])
    for first in range(0, len(probs), step):
        part = probs[first : first + step]
        rows, columns = np.nonzero(part > np.float64(floor))
        yield first, rows, columns, part[rows, columns]


def class_thresholds(
    probs: np.ndarray,
    targets: np.ndarray,
    metric: FBeta,
    *,
    start: np.ndarray | float | None = None,
    sweeps: int = 10,
) -> np.ndarray:
    """Return (C,) thresholds for `probs` (N, C) by exact coordinate ascent from `start` (default: the best of
    a few thresholds for all classes).

    With the other classes fixed, moving the cut through a class's sorted probabilities changes the metric by
    a prefix sum, so the best cut is found exactly. Sweeps over the classes end when none improves. In the
    macro average classes are independent, so one sweep finds the optimum."""
    n, n_classes = probs.shape
    columns = np.ascontiguousarray(probs.T)
    true = np.ascontiguousarray(targets.T.astype(bool))
    thresholds = np.empty(n_classes)
    thresholds[:] = _best_of_few(columns, true, metric) if start is None else start
    orders = np.empty((n_classes, n), np.int32)
    for c in range(n_classes):
        orders[c] = _falling_order(columns[c])
    kinds: dict[str, Any] = {"samples": _Samples, "macro": _Macro, "micro": _Micro}
    state = kinds[metric.average](columns, true, thresholds, metric)
    n_unchanged = 0  # classes in a row that could not be improved
    for step in range(n_classes * (1 if metric.average == "macro" else sweeps)):
        c = step % n_classes
        order = orders[c].astype(np.intp)  # numpy indexes with these ten times as fast as with int32
        falling = columns[c].take(order)
        gains = state.gains(c, order)
        now = int(np.count_nonzero(columns[c] > thresholds[c]))
        best, value = best_cut(falling, gains)
        n_unchanged += 1
        if value > (gains[now - 1] if now else 0.0) + 1e-10:
            thresholds[c] = threshold_after(falling, best)
            state.move(c, columns[c] > thresholds[c])
            n_unchanged = 1
        if n_unchanged >= n_classes:
            break
    return thresholds


def _falling_order(column: np.ndarray) -> np.ndarray:
    """Return indices (N,) of falling probabilities. The bits of non-negative 32-bit floats sort like the
    numbers, so two stable passes over 16 bits each sort them, by numpy's fast radix sort: 0.5 is 0x3F000000,
    0.25 is 0x3E800000."""
    if column.dtype != np.float32 or (len(column) and column.min() < 0):
        return np.argsort(column)[::-1]
    bits = (column + np.float32(0)).view(np.uint32)  # the sum makes -0 a 0
    order = np.argsort((bits & 0xFFFF).astype(np.uint16), kind="stable")
    return order.take(np.argsort((bits >> 16).astype(np.uint16).take(order), kind="stable"))[::-1]


def _best_of_few(columns: np.ndarray, true: np.ndarray, metric: FBeta) -> float:
    """Return the best of a few thresholds for all classes, to start from."""
    axis, rows = (0, slice(None, None, max(1, columns.shape[1] // 10_000)))
    if metric.average != "samples":
        return 0.5 if metric.beta <= 1 else 0.3
    columns, true = columns[:, rows], true[:, rows]
    n_true = true.sum(axis, dtype=np.int32)
    scores = {}
    for threshold in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5):
        chosen = columns > threshold
        n_chosen = chosen.sum(axis, dtype=np.int32)
        hits = (chosen & true).sum(axis, dtype=np.int32)
        scores[threshold] = metric.score_counts(hits, n_chosen, n_true).mean()
    return max(scores, key=lambda threshold: scores[threshold])


def best_cut(falling: np.ndarray, gains: np.ndarray) -> tuple[int, float]:
    """Return how many of the `falling` probabilities to take, and the gain. Equal ones are taken together,
    and 0 is above no threshold."""
    allowed = gains.copy()
    allowed[:-1][falling[1:] == falling[:-1]] = -np.inf
    allowed[np.count_nonzero(falling > 0) :] = -np.inf
    k = int(np.argmax(allowed)) if len(allowed) else 0
    return (k + 1, float(allowed[k])) if len(allowed) and allowed[k] > 0 else (0, 0.0)


def threshold_after(falling: np.ndarray, k: int) -> float:
    """Return a threshold below the first k falling probabilities and not below the others, in the precision
    of the probabilities."""
    kind = falling.dtype.type if falling.dtype.kind == "f" else np.float64
    above = kind(falling[k - 1]) if k else kind(1.0)
    below = kind(falling[k]) if k < len(falling) else kind(0.0)
    middle = kind((float(above) + float(below)) / 2)
    return float(middle if middle < above or not k else below)


def _threshold_of(falling: np.ndarray, gains: np.ndarray) -> float:
    return threshold_after(falling, best_cut(falling, gains)[0])


def _chosen(columns: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    return np.stack([column > threshold for column, threshold in zip(columns, thresholds)])


class _Samples:
    """Per-image counts, used to compute the gains of a class's cuts."""

    def __init__(self, columns: np.ndarray, true: np.ndarray, thresholds: np.ndarray, metric: FBeta):
        beta = metric.beta
        self.true = true
        self.loss = metric.zero_division / (1 + beta**2)  # by the first label of an image without true labels
        self.unlabelled = ~true.any(0) if metric.zero_division else None
        self.chosen = _chosen(columns, thresholds)
        self.hits = (self.chosen & true).sum(0, dtype=np.int32).astype(float)
        self.denominator = self.chosen.sum(0, dtype=np.int32) + beta**2 * true.sum(0, dtype=np.int32)

    def gains(self, c: int, order: np.ndarray) -> np.ndarray:
        """Return (N,) the gain in the metric, times N / (1 + b²), when class c is given to the first 1, 2, …
        rows of `order` rather than to none."""
        hits = self.hits - (self.chosen[c] & self.true[c])
        denominator = self.denominator - self.chosen[c]
        gain = (hits + self.true[c]) / (denominator + 1.0)
        gain -= hits / np.maximum(denominator, 1e-12)
        if self.unlabelled is not None:
            gain[self.unlabelled & (denominator == 0)] -= self.loss
        return np.cumsum(gain.take(order))

    def move(self, c: int, chosen: np.ndarray) -> None:
        change = chosen.astype(np.int8) - self.chosen[c]
        self.hits += change * self.true[c]
        self.denominator += change
        self.chosen[c] = chosen


class _Macro:
    """Independent classes, for the macro average."""

    def __init__(self, columns: np.ndarray, true: np.ndarray, thresholds: np.ndarray, metric: FBeta):
        self.true, self.metric = true, metric

    def gains(self, c: int, order: np.ndarray) -> np.ndarray:
        hits = np.cumsum(self.true[c][order])
        return self.metric.score_counts(hits, np.arange(1, len(order) + 1), hits[-1:])

    def move(self, c: int, chosen: np.ndarray) -> None:
        pass


class _Micro:
    """Counts pooled over all classes."""

    def __init__(self, columns: np.ndarray, true: np.ndarray, thresholds: np.ndarray, metric: FBeta):
        self.true, self.metric = true, metric
        self.chosen = _chosen(columns, thresholds)
        self.hits, self.n_chosen = int((self.chosen & true).sum()), int(self.chosen.sum())
        self.n_true = int(true.sum())

    def gains(self, c: int, order: np.ndarray) -> np.ndarray:
        hits = self.hits - np.count_nonzero(self.chosen[c] & self.true[c])
        n_chosen = self.n_chosen - np.count_nonzero(self.chosen[c])
        n_true = np.array(self.n_true)
        without = self.metric.score_counts(np.array(hits), np.array(n_chosen), n_true)
        k = np.arange(1, len(order) + 1)
        return self.metric.score_counts(hits + np.cumsum(self.true[c][order]), n_chosen + k, n_true) - without

    def move(self, c: int, chosen: np.ndarray) -> None:
        before = self.chosen[c]
        self.hits += int(np.count_nonzero(chosen & self.true[c]) - np.count_nonzero(before & self.true[c]))
        self.n_chosen += int(np.count_nonzero(chosen) - np.count_nonzero(before))
        self.chosen[c] = chosen


def shrunk_thresholds(exact: np.ndarray, common: float, share: np.ndarray | float) -> np.ndarray:
    """Return (C,) the `exact` thresholds (C,) shrunk towards the `common` one, in logits. A `share` of 1
    keeps the exact ones, 0 takes the common one."""
    return sigmoid(share * logit(exact, TINY) + (1 - share) * logit(np.array(common), TINY))


def prevalence_thresholds(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return (C,) thresholds with as many probabilities above them as the class has labels, or as near to
    that as equal probabilities allow."""
    thresholds = np.empty(probs.shape[1])
    for c, n_labels in enumerate(targets.sum(0).astype(int)):
        falling = -np.sort(-probs[:, c].astype(np.float64))
        starts = np.flatnonzero(np.r_[True, falling[1:] != falling[:-1], True])  # where other values begin
        k = int(starts[np.argmin(np.abs(starts - n_labels))])
        thresholds[c] = threshold_after(falling, k)
    return thresholds


def searched_threshold(probs: np.ndarray, value: Callable[[np.ndarray], float]) -> float:
    """Return the threshold of highest `value(decisions)` for all classes, among some tens."""
    return float(max(_places(probs), key=lambda place: value((probs > place).astype(np.uint8))))


def searched_thresholds(probs: np.ndarray, start: float, value: Callable[[np.ndarray], float]) -> np.ndarray:
    """Return (C,) thresholds of high `value(thresholds)`, by sweeps from `start` that try some tens for one
    class at a time."""
    thresholds = np.full(probs.shape[1], start)
    best = value(thresholds)
    for _ in range(MAX_SWEEPS):
        before = best
        for c in range(probs.shape[1]):
            for place in _places(probs[:, c]):
                tried = thresholds.copy()
                tried[c] = place
                if (found := value(tried)) > best + 1e-12:
                    best, thresholds = found, tried
        if best <= before:
            break
    return thresholds


def _places(probs: np.ndarray) -> np.ndarray:
    return np.unique(np.r_[GRID_TRIED, np.quantile(probs, np.linspace(0.01, 0.99, N_TRIED))].astype(float))

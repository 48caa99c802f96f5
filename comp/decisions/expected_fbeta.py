"""Expected F-beta per image: the set of labels with the best mean score over all truths, weighted by their
probability. With independent labels, the best set of k labels holds the k most probable ones. Only k has to
be found, from the distributions of the number of true labels among these k and among the others (Ye, Chai,
Lee and Chieu, ICML 2012)."""

import numpy as np

from comp.decisions.metrics import FBeta

MAX_LABELS = 40  # per image: of more classes, the most probable are considered
CHUNK = 1 << 22  # numbers in memory at a time


def expected_decisions(probs: np.ndarray, metric: FBeta) -> np.ndarray:
    """Return decisions (N, C) 0/1 of highest expected F-beta per row, for calibrated probabilities (N, C).

    The result is exact for up to 40 independent classes. With more, at most 40 labels are taken, and more
    than 40 true labels among the others count as 40. Taking no label scores `zero_division` times the
    probability that none is true; ties go to no label. With `zero_division` 0, at least one label is
    taken."""
    n, n_classes = probs.shape
    most = min(n_classes, MAX_LABELS)
    decisions = np.zeros((n, n_classes), np.uint8)
    step = max(1, CHUNK // ((most + 1) * (most + 1)))
    for first in range(0, n, step):
        rows = slice(first, first + step)
        order = np.argsort(-probs[rows], axis=1)
        falling = np.take_along_axis(probs[rows], order, 1).T.astype(np.float64)
        n_taken = _best_numbers(falling, most, metric)
        taken = (np.arange(n_classes) < n_taken[:, None]).astype(np.uint8)
        np.put_along_axis(decisions[rows], order, taken, 1)
    return decisions


def _best_numbers(falling: np.ndarray, most: int, metric: FBeta) -> np.ndarray:
    """Return (N,) how many labels to take, for probabilities (C, N) in falling order along the first
    axis."""
    n_classes, n = falling.shape
    beta, zero_division = metric.beta, metric.zero_division
    others = np.zeros((most + 1, most + 1, n))  # others[k, b]: b of the labels after the first k are true
    tail = np.zeros((most + 1, n))
    tail[0] = 1.0
    for p in falling[most:]:
        _add(tail, p)
    others[most] = tail
    for k in range(most - 1, -1, -1):
        others[k] = others[k + 1]
        _add(others[k], falling[k])
    taken = np.zeros((most + 1, n))  # taken[a]: a of the first k labels are true
    taken[0] = 1.0
    best = zero_division * others[0, 0] if zero_division else np.full(n, -1.0)
    n_taken = np.zeros(n, np.int64)
    for k in range(1, most + 1):
        _add(taken, falling[k - 1])
        a, b = np.arange(k + 1)[:, None], np.arange(most + 1 if n_classes > most else most - k + 1)
        weights = (1 + beta**2) * a / (k + beta**2 * (a + b))  # (hits, others that are true)
        value = np.einsum("bn,bn->n", weights.T @ taken[: k + 1], others[k][: len(b)])
        better = value > best
        best[better] = value[better]
        n_taken[better] = k
    return n_taken


def _add(counts: np.ndarray, p: np.ndarray) -> None:
    """Add a label of probability `p` (N,) to the distribution of the number of true labels, in place. The
    last count stands for itself and all higher ones."""
    rest = counts[-1] * p
    moved = counts[:-1] * p
    counts *= 1 - p
    counts[1:] += moved
    counts[-1] += rest

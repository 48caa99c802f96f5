"""Expected F-beta, image by image: the set of labels that scores best on average over all truths that the
probabilities allow. With labels taken as independent the best set of k labels holds the k most probable, so
only k is to be found, from the distributions of how many of them and of the others are true (Ye, Chai, Lee
and Chieu, ICML 2012)."""

import numpy as np

MOST = 40  # labels an image that are considered: of more classes, the most probable
CHUNK = 1 << 22  # numbers that are worked on at once


def expected_decisions(probs: np.ndarray, *, beta: float, empty: float = 0.0) -> np.ndarray:
    """0/1 (N, C) of highest expected F-beta a row, for probabilities (N, C) that are calibrated.

    Exact under independence up to 40 classes; beyond, no more than 40 labels are taken, and more than 40 true
    ones among the others count as 40. No label is taken where that scores as much: `empty` times how probable
    it is that none is true. Without `empty` F-beta of none is 0, and at least one is taken."""
    n, n_classes = probs.shape
    most = min(n_classes, MOST)
    decisions = np.zeros((n, n_classes), np.uint8)
    step = max(1, CHUNK // ((most + 1) * (most + 1)))
    for first in range(0, n, step):
        rows = slice(first, first + step)
        order = np.argsort(-probs[rows], axis=1)
        n_taken = _best_numbers(
            np.take_along_axis(probs[rows], order, 1).T.astype(np.float64), most, beta, empty
        )
        taken = (np.arange(n_classes) < n_taken[:, None]).astype(np.uint8)
        np.put_along_axis(decisions[rows], order, taken, 1)
    return decisions


def _best_numbers(falling: np.ndarray, most: int, beta: float, empty: float) -> np.ndarray:
    """(N,): how many labels to take, for probabilities (C, N) that fall along the first axis."""
    n_classes, n = falling.shape
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
    best = empty * others[0, 0] if empty else np.full(n, -1.0)
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
    """One more label of probability `p` (N,) in the distribution of how many are true, in place; what is over
    the last count stays in it."""
    rest = counts[-1] * p
    moved = counts[:-1] * p
    counts *= 1 - p
    counts[1:] += moved
    counts[-1] += rest

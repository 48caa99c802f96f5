"""One answer an image: the most probable label, after an offset a label that is found exactly."""

import numpy as np

from comp.decisions.calibration import TINY, logit, sigmoid
from comp.decisions.metrics import score

NEAR = 1e-6  # gaps between logits that are not told apart: thresholds next to 1 hold no more
FAR = 10.0  # the largest offset


def offset_thresholds(
    probs: np.ndarray, targets: np.ndarray, *, beta: float, average: str, sweeps: int = 10
) -> np.ndarray:
    """(C,) thresholds from which the label that is furthest above its own, in logits, is the answer; found by
    exact coordinate ascent from equal ones, which answer the most probable. probs and targets are (N, C),
    with one label an image.

    With the other labels fixed, a falling threshold takes images over from their best other label, one by
    one in the order of the gap between the two. Each changes F-beta of these two labels alone, so sums of the
    changes give the score of every threshold. Sweeps over the labels end when none improves."""
    n, n_classes = probs.shape
    logits, true, rows = logit(probs, TINY), targets.argmax(1), np.arange(n)
    n_true = np.bincount(true, minlength=n_classes)
    offsets = np.zeros(n_classes)
    n_still = 0  # labels in a row that could not be bettered
    for step in range(n_classes * sweeps):
        c = step % n_classes
        others = logits + offsets
        others[:, c] = -np.inf
        rivals = others.argmax(1)
        gaps = others[rows, rivals] - logits[:, c]  # the label is answered where its offset is above
        order = np.lexsort((rivals < c, gaps))  # of equal ones the first label is the answer
        gaps, first = gaps[order], rivals[order] > c
        if average == "macro":
            values = _macro(c, rivals[order], true[order], n_true, beta)
        else:
            values = _hits(c, rivals[order], true[order])
        cuts = np.concatenate([[gaps[0] - 2], gaps, [gaps[-1] + 2]])
        places = np.clip((cuts[:-1] + cuts[1:]) / 2, -FAR, FAR)  # place k is above k of the gaps
        allowed = np.minimum(places - cuts[:-1], cuts[1:] - places) > NEAR / 2
        now = np.count_nonzero((gaps < offsets[c]) | ((gaps == offsets[c]) & first))
        best = int(np.argmax(np.where(allowed, values, -np.inf)))
        n_still += 1
        if allowed[best] and values[best] > values[now] + 1e-10:
            offsets[c] = places[best]
            n_still = 1
        if n_still >= n_classes:
            break
    return sigmoid(offsets.mean() - offsets)


def _hits(c: int, rivals: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(N + 1,): how many answers are right, as a share, where the first 0, 1, … N images have the label c and
    the others their rival."""
    change = (true == c).astype(np.int64) - (rivals == true)
    return (np.count_nonzero(rivals == true) + np.cumsum(np.r_[0, change])) / len(true)


def _macro(c: int, rivals: np.ndarray, true: np.ndarray, n_true: np.ndarray, beta: float) -> np.ndarray:
    """(N + 1,): the mean of F-beta over labels, for the same answers."""
    n, n_classes = len(true), len(n_true)
    right = rivals == true
    n_chosen = np.bincount(rivals, minlength=n_classes)
    n_hits = np.bincount(rivals[right], minlength=n_classes)
    before = score(n_hits, n_chosen, n_true, beta)
    # each rival's images under each other: how many of them, and of its hits, are gone up to each
    order = np.argsort(rivals, kind="stable")
    label = rivals[order]
    first = np.concatenate([[0], np.cumsum(n_chosen)])[label]
    hits = np.concatenate([[0], np.cumsum(right[order])])
    n_gone, hits_gone = np.arange(1, n + 1) - first, hits[1:] - hits[first]
    after = score(n_hits[label] - hits_gone, n_chosen[label] - n_gone, n_true[label], beta)
    last = np.where(n_gone == 1, before[label], np.roll(after, 1))
    changes = np.empty(n)
    changes[order] = after - last
    own = score(np.cumsum(np.r_[0, true == c]), np.arange(n + 1), n_true[c : c + 1], beta)
    return (before.sum() + np.cumsum(np.r_[0.0, changes]) + own) / n_classes

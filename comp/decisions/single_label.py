"""One label per image: the most probable one after an offset per label, found exactly."""

import numpy as np

from comp.decisions.calibration import TINY, logit, sigmoid
from comp.decisions.metrics import FBeta
from comp.decisions.scorers import Scorer

MIN_GAP = 1e-6  # between logits: thresholds near 1 cannot hold smaller gaps
MAX_OFFSET = 10.0


def offset_thresholds(
    probs: np.ndarray, targets: np.ndarray, metric: Scorer, *, sweeps: int = 10
) -> np.ndarray:
    """Return (C,) thresholds of highest F-beta or, with any other metric, of highest mean recall. The chosen
    label is the one furthest above its threshold, in logits. They are found by exact coordinate ascent,
    starting from equal thresholds, which choose the most probable label. probs and targets are (N, C), with
    one label per image.

    With the other thresholds fixed, lowering a label's threshold takes images from their best other label,
    one by one in the order of the gap between the two. Each image changes F-beta of these two labels only, so
    sums of the changes give the score of every threshold. Sweeps over the labels end when none improves."""
    n, n_classes = probs.shape
    logits, true, rows = logit(probs, TINY), targets.argmax(1), np.arange(n)
    n_true = np.bincount(true, minlength=n_classes)
    offsets = np.zeros(n_classes)
    n_unchanged = 0  # labels in a row that could not be improved
    for step in range(n_classes * sweeps):
        c = step % n_classes
        others = logits + offsets
        others[:, c] = -np.inf
        rivals = others.argmax(1)
        gaps = others[rows, rivals] - logits[:, c]  # c is chosen where its offset is above the gap
        order = np.lexsort((rivals < c, gaps))  # ties go to the first label
        gaps, first = gaps[order], rivals[order] > c
        if not isinstance(metric, FBeta):
            values = _recalls(c, rivals[order], true[order], n_true)
        elif metric.average == "macro":
            values = _macro(c, rivals[order], true[order], n_true, metric)
        else:
            values = _hits(c, rivals[order], true[order])
        cuts = np.concatenate([[gaps[0] - 2], gaps, [gaps[-1] + 2]])
        places = np.clip((cuts[:-1] + cuts[1:]) / 2, -MAX_OFFSET, MAX_OFFSET)  # place k is above k gaps
        allowed = np.minimum(places - cuts[:-1], cuts[1:] - places) > MIN_GAP / 2
        now = np.count_nonzero((gaps < offsets[c]) | ((gaps == offsets[c]) & first))
        best = int(np.argmax(np.where(allowed, values, -np.inf)))
        n_unchanged += 1
        if allowed[best] and values[best] > values[now] + 1e-10:
            offsets[c] = places[best]
            n_unchanged = 1
        if n_unchanged >= n_classes:
            break
    return sigmoid(offsets.mean() - offsets)


def _hits(c: int, rivals: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return (N + 1,) the share of right decisions if the first 0, 1, … N images have the label c and the
    others their rival."""
    change = (true == c).astype(np.int64) - (rivals == true)
    return (np.count_nonzero(rivals == true) + np.cumsum(np.r_[0, change])) / len(true)


def _recalls(c: int, rivals: np.ndarray, true: np.ndarray, n_true: np.ndarray) -> np.ndarray:
    """Return (N + 1,) the mean recall of the labels that have images, for the same decisions."""
    weight = 1 / (n_true[true] * np.count_nonzero(n_true))
    change = weight * ((true == c).astype(float) - (rivals == true))
    return weight[rivals == true].sum() + np.cumsum(np.r_[0, change])


def _macro(c: int, rivals: np.ndarray, true: np.ndarray, n_true: np.ndarray, metric: FBeta) -> np.ndarray:
    """Return (N + 1,) the mean of F-beta over labels, for the same decisions."""
    n, n_classes = len(true), len(n_true)
    right = rivals == true
    n_chosen = np.bincount(rivals, minlength=n_classes)
    n_hits = np.bincount(rivals[right], minlength=n_classes)
    before = metric.score_counts(n_hits, n_chosen, n_true)
    # sorted by rival: up to each image, how many images and how many hits its rival has lost
    order = np.argsort(rivals, kind="stable")
    label = rivals[order]
    first = np.concatenate([[0], np.cumsum(n_chosen)])[label]
    hits = np.concatenate([[0], np.cumsum(right[order])])
    n_gone, hits_gone = np.arange(1, n + 1) - first, hits[1:] - hits[first]
    after = metric.score_counts(n_hits[label] - hits_gone, n_chosen[label] - n_gone, n_true[label])
    last = np.where(n_gone == 1, before[label], np.roll(after, 1))
    changes = np.empty(n)
    changes[order] = after - last
    own = metric.score_counts(np.cumsum(np.r_[0, true == c]), np.arange(n + 1), n_true[c : c + 1])
    return (before.sum() + np.cumsum(np.r_[0.0, changes]) + own) / n_classes

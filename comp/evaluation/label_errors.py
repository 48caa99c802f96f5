"""Labels that may be wrong, given or missing: noise rates by confident learning (Northcutt, Jiang and Chuang
2021), and from these by Bayes' rule the doubt about each label."""

import numpy as np

CONFIDENT = 0.9  # lowest probability that may count as confident
MIN_RATE = 0.001  # the lowest noise rate of a class
PRIOR_LABELS = 5  # added to the denominator of noise rates: a few contradictions prove no noise


def find_label_errors(probs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (rows, classes, doubts) of the labels, given or not, that are more likely wrong than right; the
    most doubtful first.

    probs (N, C) are out-of-fold, targets (N, C) 0/1. The network is confident of a label where its
    probability is at least 0.9, and at least its mean over the images with that label; likewise for a
    label's absence. A class's noise rate is the share of confident cases that are labelled the other way. It
    is capped at the median of 1 - probability over these cases: a network that has learned the noise leaves
    at least the noise rate open, and one that finds a label hard to see leaves less. A doubt, from 0.5 to 1,
    is the probability that the label is wrong, by these rates and the network's probability."""
    given, p = targets.astype(bool), probs.astype(np.float64)
    invented, missed = noise_rates(1 - p, ~given), noise_rates(p, given)
    likely_wrong = np.where(given, invented * (1 - p), missed * p)
    likely_right = np.where(given, (1 - missed) * p, (1 - invented) * (1 - p))
    doubt = likely_wrong / np.maximum(likely_wrong + likely_right, np.finfo(float).tiny)
    rows, classes = np.nonzero(doubt > 0.5)
    order = np.argsort(-doubt[rows, classes], kind="stable")
    return rows[order], classes[order], doubt[rows, classes][order]


def noise_rates(probs: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return (C,) how often labels `given` (N, C) contradict a confident network with probs (N, C)."""
    typical = (probs * given).sum(0) / np.maximum(given.sum(0), 1)
    confident = probs >= np.maximum(CONFIDENT, typical)
    counted = (confident & ~given).sum(0) / (confident.sum(0) + PRIOR_LABELS)
    left_open = [np.median(1 - p[rows]) if rows.any() else 0.0 for p, rows in zip(probs.T, confident.T)]
    return np.minimum(counted, np.maximum(left_open, MIN_RATE))

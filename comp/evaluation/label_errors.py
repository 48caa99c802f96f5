"""Labels that may be wrong, each label against its absence: noise rates as confident learning counts them
(Northcutt, Jiang and Chuang 2021), and by Bayes' rule what they say of each label."""

import numpy as np

SURE = 0.9
SELDOM = 0.001  # a noise rate that is believed of any class
CAUTION = 5  # labels that are added to what noise rates are shares of: a few contradictions prove no noise


def suspects(probs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, classes, doubts) of the labels given and not given that are rather wrong than right, the most
    doubtful first.

    probs (N, C) have to be out-of-fold, targets (N, C) 0/1. The network is sure of a label, or of its
    absence, where its probability is at least 0.9, and the mean over those that are given (not given) it.
    Of what it is sure of, the share that is labelled the other way is the class's noise rate; but no more
    than the network itself leaves open there (the median), which for a network that has learned of noise is
    at least the rate, and for one that finds a label hard to see is less. A doubt, from 0.5 to 1, is the
    probability that the label is wrong, by these rates and the network's probability."""
    given, p = targets.astype(bool), probs.astype(np.float64)
    invented, missed = noise_rates(1 - p, ~given), noise_rates(p, given)
    likely_wrong = np.where(given, invented * (1 - p), missed * p)
    likely_right = np.where(given, (1 - missed) * p, (1 - invented) * (1 - p))
    doubt = likely_wrong / np.maximum(likely_wrong + likely_right, np.finfo(float).tiny)
    rows, classes = np.nonzero(doubt > 0.5)
    order = np.argsort(-doubt[rows, classes], kind="stable")
    return rows[order], classes[order], doubt[rows, classes][order]


def noise_rates(probs: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(C,): how often what the network is sure of, by probs (N, C), isn't what is given (N, C)."""
    typical = (probs * given).sum(0) / np.maximum(given.sum(0), 1)
    sure = probs >= np.maximum(SURE, typical)
    counted = (sure & ~given).sum(0) / (sure.sum(0) + CAUTION)
    left_open = [np.median(1 - p[s]) if s.any() else 0.0 for p, s in zip(probs.T, sure.T)]
    return np.minimum(counted, np.maximum(left_open, SELDOM))

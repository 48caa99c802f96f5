"""Labels that may be wrong, each label against its absence: noise rates as confident learning counts them
(Northcutt, Jiang and Chuang 2021), and by Bayes' rule what they say of each label."""

import numpy as np

SURE = 0.9
CAUTION = 5  # labels that are added to what noise rates are shares of: a few contradictions prove no noise


def suspects(probs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, classes, doubts) of the labels given and not given that are rather wrong than right, the most
    doubtful first.

    probs (N, C) have to be out-of-fold, targets (N, C) 0/1. The network is sure of a label, or of its
    absence, where its probability is at least 0.9, and the mean over those that are given (not given) it.
    Of what it is sure of, the share that is labelled the other way is the class's noise rate. A doubt, from
    0.5 to 1, is the probability that the label is wrong, by these rates and the network's probability: where
    labels are hardly ever wrong, it takes a lot to doubt one."""
    given, p = targets.astype(bool), probs.astype(np.float64)
    n_given = given.sum(0)
    present = p >= np.maximum(SURE, (p * given).sum(0) / np.maximum(n_given, 1))
    absent = 1 - p >= np.maximum(SURE, ((1 - p) * ~given).sum(0) / np.maximum(len(p) - n_given, 1))
    missed = (present & ~given).sum(0) / (present.sum(0) + CAUTION)
    invented = (absent & given).sum(0) / (absent.sum(0) + CAUTION)
    likely_wrong = np.where(given, invented * (1 - p), missed * p)
    likely_right = np.where(given, (1 - missed) * p, (1 - invented) * (1 - p))
    doubt = likely_wrong / np.maximum(likely_wrong + likely_right, np.finfo(float).tiny)
    rows, classes = np.nonzero(doubt > 0.5)
    order = np.argsort(-doubt[rows, classes], kind="stable")
    return rows[order], classes[order], doubt[rows, classes][order]

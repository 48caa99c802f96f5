"""Labels that may be wrong: confident learning (Northcutt, Jiang and Chuang 2021), each label against its
absence."""

import numpy as np


def suspects(probs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, classes, doubts) of the labels given and not given that are probably wrong, most doubtful first.

    probs (N, C) have to be out-of-fold, targets (N, C) 0/1. A class's two thresholds are the mean
    probability of the label where it is given, and of its absence where it is not. One is suspected where
    the opposite reaches the opposite's threshold. Its doubt, from 0 to 1, is how far what is given falls
    short of its own threshold: a label that is hard to see everywhere is no suspect anywhere."""
    true, p = targets.astype(bool), probs.astype(np.float64)
    n_true = true.sum(0)
    typical = (p * true).sum(0) / np.maximum(n_true, 1)
    typical_absent = ((1 - p) * ~true).sum(0) / np.maximum(len(p) - n_true, 1)
    given, opposite = np.where(true, p, 1 - p), np.where(true, 1 - p, p)
    doubt = np.where(true, typical, typical_absent) - given
    wrong = (opposite >= np.where(true, typical_absent, typical)) & (doubt > 0)
    wrong &= (n_true > 0) & (n_true < len(p))
    rows, classes = np.nonzero(wrong)
    order = np.argsort(-doubt[rows, classes], kind="stable")
    return rows[order], classes[order], doubt[rows, classes][order]

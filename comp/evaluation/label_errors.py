"""Labels that may be wrong, given or missing: noise rates by confident learning (Northcutt, Jiang and Chuang
2021), and from these by Bayes' rule the doubt about each label. Grades that are far from the network's, and
numbers that are far from it for images with such an answer."""

import numpy as np

from comp.decisions.cut_points import expected_grades

CONFIDENT = 0.9  # lowest probability that may count as confident
LEAST_SURE = 0.5  # lowest median, over images with the label, of a label that is often missed
CLEARLY, BETWEEN = 0.75, 0.25  # of that median: from where a label is seen, and up to where it is not
MAX_BETWEEN = 0.4  # images between these, for one image of the smaller kind
MIN_RATE = 0.001  # the lowest noise rate of a class
PRIOR_LABELS = 5  # added to the denominator of noise rates: a few contradictions prove no noise
CHUNK = 1 << 24  # numbers that are looked at together
FAR = 3.5  # robust standard deviations from the median (Iglewicz and Hoaglin 1993)
OF_NORMAL = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
IN_PART, N_PARTS = 100, 10  # of numbers: images of similar answers, at least, and how many parts at most

Suspects = tuple[np.ndarray, np.ndarray, np.ndarray]


def find_label_errors(probs: np.ndarray, targets: np.ndarray) -> Suspects:
    """Return (rows, classes, doubts) of the labels, given or not, that are more likely wrong than right; the
    most doubtful first.

    probs (N, C) are out-of-fold, targets (N, C) 0/1, or NaN where a label is unknown, which is never doubted.
    The network is confident of a label where its probability is at least 0.9, and at least its mean over the
    images with that label; likewise for a label's absence. A class's noise rate is the share of confident
    cases that are labelled the other way. It is capped at the median of 1 - probability over these cases: a
    network that has learned the noise leaves at least the noise rate open, and one that finds a label hard to
    see leaves less. A doubt, from 0.5 to 1, is the probability that the label is wrong, by these rates and
    the network's probability.

    Where a label is often missed, the network tells two kinds of images apart, few are between them, and its
    probability for the one kind is the share that has the label. There it is confident of this kind, and
    doubts go by the probability of the true label: that of the given one without the noise."""
    step = max(1, CHUNK // len(probs)) if len(probs) else probs.shape[1]
    parts = []
    for first in range(0, probs.shape[1], step):  # labels don't depend on each other
        block = slice(first, first + step)
        rows, classes, doubts = _doubtful(probs[:, block], targets[:, block])
        parts.append((rows, classes + first, doubts))
    rows, classes, doubts = (np.concatenate(each) for each in zip(*parts))
    order = np.lexsort((classes, rows, -doubts))
    return rows[order], classes[order], doubts[order]


def _doubtful(probs: np.ndarray, targets: np.ndarray) -> Suspects:
    p, given = np.ascontiguousarray(probs, np.float64), np.ascontiguousarray(targets == 1)
    absent = np.ascontiguousarray(targets == 0)
    known = given | absent
    invented, often_invented = noise_rates(1 - p, absent, known)
    missed, often_missed = noise_rates(p, given, known)
    often = often_invented | often_missed
    p[:, often] = without_noise(p[:, often], invented[often], missed[often])
    likely_wrong = np.where(given, invented * (1 - p), missed * p)
    likely_right = np.where(given, (1 - missed) * p, (1 - invented) * (1 - p))
    doubt = likely_wrong / np.maximum(likely_wrong + likely_right, np.finfo(float).tiny)
    rows, classes = np.nonzero(known & (doubt > 0.5))
    return rows, classes, doubt[rows, classes]


def without_noise(probs: np.ndarray, invented: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """Return the probabilities (N, C) of true labels from those of given ones, by noise rates (C,)."""
    return np.clip((probs - invented) / np.maximum(1 - invented - missed, MIN_RATE), 0, 1)


def noise_rates(probs: np.ndarray, given: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (C,) how often labels `given` (N, C), where `known` (N, C), contradict a confident network with
    probs (N, C), and (C,) whether the network has learned that the label is often missed."""
    typical = (probs * given).sum(0) / np.maximum(given.sum(0), 1)
    sure = np.array([_median(p[rows]) for p, rows in zip(probs.T, given.T)])
    seen, unseen = ((known & side).sum(0) for side in (probs >= CLEARLY * sure, probs <= BETWEEN * sure))
    between = known.sum(0) - seen - unseen
    often = (sure >= LEAST_SURE) & (sure < CONFIDENT) & (between < MAX_BETWEEN * np.minimum(seen, unseen))
    level = np.where(often, CLEARLY * sure, np.maximum(CONFIDENT, typical))
    confident = known & (probs >= level)
    counted = (confident & ~given).sum(0) / (confident.sum(0) + PRIOR_LABELS)
    left_open = [_median(1 - p[rows]) for p, rows in zip(probs.T, confident.T)]
    return np.minimum(counted, np.maximum(left_open, MIN_RATE)), often


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else 0.0


def find_grade_errors(probs: np.ndarray, targets: np.ndarray) -> Suspects:
    """Return (rows, grades, doubts) of the given grades that are more likely wrong than right, those first
    that are the furthest from the expected grade. probs (N, C) are out-of-fold, targets (N, C) one grade per
    image, and doubts those of find_label_errors."""
    rows, classes, doubts = find_label_errors(probs, targets)
    given = targets[rows, classes] == 1
    rows, classes, doubts = rows[given], classes[given], doubts[given]
    order = np.argsort(-np.abs(expected_grades(probs)[rows] - classes), kind="stable")
    return rows[order], classes[order], doubts[order]


def find_number_errors(answers: np.ndarray, targets: np.ndarray) -> Suspects:
    """Return (rows, columns, deviations) of the numbers that are far from the network's, the furthest first.

    answers (N, C) are out-of-fold, targets (N, C) numbers, or NaN where unknown. An error, target minus
    answer, is compared with those of the images with similar answers: errors often grow with the number. Its
    deviation is its distance from their median, in standard deviations, by the median absolute deviation."""
    deviations = np.zeros(targets.shape)
    for c in range(targets.shape[1]):
        known = np.flatnonzero(~np.isnan(targets[:, c]))
        errors = (targets[known, c] - answers[known, c]).astype(np.float64)
        least = 0.1 * _spread(errors)
        order = np.argsort(answers[known, c], kind="stable")
        for part in np.array_split(order, np.clip(len(known) // IN_PART, 1, N_PARTS)):
            if scale := max(_spread(errors[part]), least):
                deviations[known[part], c] = (errors[part] - np.median(errors[part])) / scale
    rows, columns = np.nonzero(np.abs(deviations) > FAR)
    order = np.argsort(-np.abs(deviations[rows, columns]), kind="stable")
    return rows[order], columns[order], deviations[rows, columns][order]


def _spread(values: np.ndarray) -> float:
    return OF_NORMAL * float(np.median(np.abs(values - np.median(values)))) if len(values) else 0.0

"""Adversarial validation: how well a classifier tells test images from training images, by features."""

from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from comp.errors import CompError

N_PARTS = 5  # of the images of a network, each judged by a classifier that was fitted to the others
MIN_IMAGES = 2 * N_PARTS  # of training and of test images, for each network
STRENGTH = 0.01  # C of the logistic regression: low, as there may be more features than images
MAX_WEIGHT = 10.0  # weights are from 1 / MAX_WEIGHT to this, before they are divided by their mean
# Two normal distributions with this AUC are 0.36 standard deviations apart; weights for the shift would
# leave exp(-0.36 ** 2) = 88 % of the images effective. Below it there is little to gain or to fear.
HIGH_AUC = 0.6


@dataclass(frozen=True)
class Separation:
    """How well the test images of a network can be told from the images that it held out."""

    aucs: np.ndarray  # (N_PARTS,) of the parts
    p_test: np.ndarray  # (N,) of training images: the probability of the test set, if both were equally large
    p_test_of_test: np.ndarray  # (M,) the same of test images


def separate(
    train: np.ndarray, test: np.ndarray, groups: np.ndarray | None = None, *, seed: int, where: str
) -> Separation:
    """Return how well features of training images (N, D) and of test images (M, D) are told apart by a
    logistic regression on standardised features. Each image is judged by one that was fitted without it and,
    with `groups` (N + M,), without its group. Raise CompError for too few images or groups."""
    if min(len(train), len(test)) < MIN_IMAGES:
        raise CompError(
            f"{where}: {len(train):,} training and {len(test):,} test images; at least {MIN_IMAGES} of each "
            "are needed"
        )
    x = np.concatenate([train, test]).astype(np.float64)
    y = np.repeat([0, 1], [len(train), len(test)])
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    scores, aucs = np.empty(len(y)), []
    for fitted, judged in kind(N_PARTS, shuffle=True, random_state=seed).split(x, y, groups):
        if min(len(np.unique(y[fitted])), len(np.unique(y[judged]))) < 2:
            raise CompError(f"{where}: too few groups of images; {N_PARTS} of similar size are needed")
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=2000)
        )
        scores[judged] = model.fit(x[fitted], y[fitted]).decision_function(x[judged])
        aucs.append(roc_auc_score(y[judged], scores[judged]))
    p = calibrated(scores, y)
    return Separation(np.array(aucs), p[: len(train)], p[len(train) :])


def calibrated(scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return (N,) the probabilities of class 1 that scores (N,) stand for if both classes of y (N,) were
    equally large (Platt 1999). Scores that tell nothing become 0.5."""
    model = LogisticRegression(C=1e6, class_weight="balanced").fit(scores[:, None], y)
    return model.predict_proba(scores[:, None])[:, 1] if model.coef_[0, 0] > 0 else np.full(len(y), 0.5)


def mean_auc(aucs: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of AUCs (networks, parts), and the ends of its 95 % interval. Networks hold out
    different images; the parts of one share what they are fitted to, which widens the t-interval (Nadeau and
    Bengio 2003)."""
    n_networks, n_parts = aucs.shape
    variance = aucs.var(1, ddof=1).mean() * (1 / n_parts + 1 / (n_parts - 1)) / n_networks
    half = float(stats.t.ppf(0.975, n_networks * (n_parts - 1)) * np.sqrt(variance))
    mean = float(aucs.mean())
    return mean, max(0.0, mean - half), min(1.0, mean + half)


def weights_of(p_test: np.ndarray) -> np.ndarray:
    """Return (N,) the weights of training images whose mean is 1: how much more often such images are among
    test images than among training images, p / (1 - p), cut to 1 / MAX_WEIGHT … MAX_WEIGHT."""
    ratios = np.clip(p_test / np.maximum(1 - p_test, 1e-9), 1 / MAX_WEIGHT, MAX_WEIGHT)
    return ratios / ratios.mean()


def effective_number(weights: np.ndarray) -> float:
    """Return how many images of equal weight would vary as little as these weighted ones (Kish 1965)."""
    return float(weights.sum() ** 2 / (weights**2).sum())

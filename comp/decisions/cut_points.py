"""Grades from probabilities: cut points on the expected grade, found exactly for quadratic kappa."""

from collections.abc import Callable

import numpy as np

MAX_ROUNDS = 50  # of Dinkelbach's method; it needs about five
MAX_SWEEPS = 10  # over the cut points, in the search for any other metric
N_TRIED = 40  # places tried for a cut point in a sweep


def expected_grades(probs: np.ndarray) -> np.ndarray:
    """Return (N,) the expected grade 0 … C - 1 of probabilities (N, C). A row is divided by its sum."""
    p = np.asarray(probs, np.float64)
    return p @ np.arange(p.shape[1]) / np.maximum(p.sum(1), 1e-12)


def grades_of(expected: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Return (N,) grades: how many of the cut points (C - 1,) lie below each expected grade."""
    return np.searchsorted(cuts, expected, side="left")


def kappa_cut_points(expected: np.ndarray, true: np.ndarray, n_grades: int) -> np.ndarray:
    """Return the C - 1 cut points of highest quadratic kappa for expected grades (N,) and true ones (N,).
    Equal cut points leave out a grade.

    Kappa is 1 - a/b, where a sums (true - given)² over the images and b the same for each given grade against
    all true ones, divided by N. For a fixed kappa the best grades minimise a - (1 - kappa) b, a sum over
    images; as grades rise with the expected one, dynamic programming finds them. Dinkelbach's method (1967)
    repeats this with the kappa that it found, until it rises no more."""
    values, place = np.unique(expected, return_inverse=True)
    grades = np.arange(n_grades)
    wrong = np.zeros((n_grades, len(values)))
    np.add.at(wrong.T, place, np.square(true[:, None] - grades))
    n_images = np.bincount(place)
    by_chance = np.square(true[:, None] - grades).mean(0)[:, None] * n_images  # (C, V)
    share, every = 1.0, np.arange(len(values))
    cuts = _best_cuts(wrong - by_chance)
    for _ in range(MAX_ROUNDS):
        given = np.searchsorted(cuts, every, side="right"), every
        a, b = wrong[given].sum(), by_chance[given].sum()
        if b <= 0 or a / b >= share - 1e-12:
            break
        share = a / b
        cuts = _best_cuts(wrong - share * by_chance)
    padded = np.r_[values[0] - 1, values, values[-1] + 1]
    below, above = padded[cuts], padded[cuts + 1]
    middle = (below + above) / 2
    return np.where(middle < above, middle, below)


def _best_cuts(costs: np.ndarray) -> np.ndarray:
    """Return (C - 1,) rising places: values from place g on have at least grade g + 1, at the lowest sum of
    costs (C, V)."""
    sums = np.concatenate([np.zeros((len(costs), 1)), costs.cumsum(1)], axis=1)  # (C, V + 1)
    best, before = sums[0], []
    for total in sums[1:]:
        gap = best - total
        lowest = np.minimum.accumulate(gap)
        at = np.where(gap == lowest, np.arange(len(gap)), 0)
        before.append(np.maximum.accumulate(at))
        best = lowest + total
    place, cuts = costs.shape[1], []
    for came_from in reversed(before):
        place = int(came_from[place])
        cuts.append(place)
    return np.array(cuts[::-1])


def search_cut_points(
    expected: np.ndarray, start: np.ndarray, value: Callable[[np.ndarray], float]
) -> np.ndarray:
    """Return cut points (C - 1,) of high `value(grades)`, by sweeps from `start` that try places for one cut
    point at a time."""
    cuts, best = start.astype(float).copy(), value(grades_of(expected, start))
    places = np.unique(np.quantile(expected, np.linspace(0, 1, 4 * N_TRIED)))
    for _ in range(MAX_SWEEPS):
        before = best
        for k in range(len(cuts)):
            low, high = ([-np.inf, *cuts, np.inf][i] for i in (k, k + 2))
            between = places[(places >= low) & (places <= high)]
            for place in between[:: max(1, len(between) // N_TRIED)]:
                tried = cuts.copy()
                tried[k] = place
                if (found := value(grades_of(expected, tried))) > best + 1e-12:
                    best, cuts = found, tried
        if best <= before:
            break
    return cuts

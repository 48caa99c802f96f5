"""Curves of the report: ROC, precision and recall, calibration, histograms."""

from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

N_POINTS = 160  # of a curve
N_BINS = 10  # of a calibration curve
N_BARS = 30  # of a histogram
CHUNK = 1 << 24  # numbers that are binned together

Points = list[tuple[float, float]]


def short(value: float) -> float | None:
    """Return a number with five digits; None for one that is not finite, which JSON lacks."""
    return float(f"{value:.5g}") if np.isfinite(value) else None


def separation(probs: np.ndarray, true: np.ndarray, chosen: np.ndarray) -> dict[str, Any] | None:
    """Return how well probabilities (N,) tell images with a label from those without it: the points of the
    ROC curve and of precision over recall, and where the labels that were chosen (N,) bool lie on both. None
    unless images of both kinds occur."""
    n, hits, alarms = int(true.sum()), int((true & chosen).sum()), int((~true & chosen).sum())
    if not 0 < n < len(true):
        return None
    x, y, _ = roc_curve(true, probs)
    precision, recall, _ = precision_recall_curve(true, probs)
    at = [hits / n, hits / (hits + alarms)] if hits + alarms else None
    return {
        "roc": thinned(x, y),
        "pr": thinned(recall, precision),
        "at_roc": [alarms / (len(true) - n), hits / n],
        "at_pr": at,
    }


def thinned(x: np.ndarray, y: np.ndarray) -> Points:
    """Return at most N_POINTS + 2 points of a curve (N,), at even steps along it, with both ends."""
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    steps = np.searchsorted(along, np.linspace(0, along[-1], N_POINTS))
    kept = np.unique(np.r_[0, np.minimum(steps, len(x) - 1), len(x) - 1])
    return [(round(float(a), 4), round(float(b), 4)) for a, b in zip(x[kept], y[kept])]


def calibration(probs: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """Return bins of equal width: mean probability, share of images that have the label, number of images.
    Unknown labels are NaN and left out. The error is the mean difference of the first two, weighted by the
    number of images (expected calibration error, Naeini et al. 2015)."""
    n, total, n_true = np.zeros(N_BINS, int), np.zeros(N_BINS), np.zeros(N_BINS)
    step = max(1, CHUNK // (probs.shape[1] if probs.ndim > 1 else 1))
    for first in range(0, len(probs), step):
        p, y = probs[first : first + step].ravel(), true[first : first + step].ravel()
        p, y = (p, y) if y.dtype.kind != "f" else (p[~np.isnan(y)], y[~np.isnan(y)])
        at = np.minimum((p * N_BINS).astype(int), N_BINS - 1)
        n += np.bincount(at, minlength=N_BINS)
        total += np.bincount(at, weights=p.astype(float), minlength=N_BINS)
        n_true += np.bincount(at, weights=y.astype(float), minlength=N_BINS)
    bins = [
        {"p": float(total[b] / n[b]), "share": float(n_true[b] / n[b]), "n": int(n[b])}
        for b in np.flatnonzero(n).tolist()
    ]
    return {"bins": bins, "error": float(np.abs(total - n_true).sum() / max(1, n.sum()))}


def histograms(samples: dict[str, np.ndarray], low: float, high: float) -> dict[str, Any]:
    """Return for each sample (N,) the shares of its values in bars of equal width from low to high."""
    edges = np.linspace(low, high if high > low else low + 1, N_BARS + 1)
    found: dict[str, Any] = {"low": short(edges[0]), "high": short(edges[-1])}
    for name, values in samples.items():
        n = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
        found[name] = (n / max(1, len(values))).round(5).tolist()
    return found

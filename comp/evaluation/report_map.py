"""The report's map: held-out images as points, near each other where the networks see them as similar."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from comp.artifacts.paths import model_path
from comp.console import ProgressBars, info, size_text
from comp.errors import CompError
from comp.evaluation.features import FoldFeatures, read_features, resized_images
from comp.evaluation.gallery import size_of
from comp.evaluation.report_answers import MAX_NAME, labels_for_counts, losses_of
from comp.evaluation.report_curves import short
from comp.evaluation.report_data import has_single_label
from comp.evaluation.results import RunResults
from comp.evaluation.run_metadata import RunMetadata
from comp.safe_text import visible

MAX_POINTS = 3000  # images of the map
N_ANCHORS = 300  # test images that all networks see
MAX_COMPONENTS = 32  # of each network's features
MIN_ANCHORS = 20
MAX_MAP_BYTES = 1_000_000  # of the page; a larger map is left out


def report_map(
    results: RunResults, members: Sequence[RunMetadata], shown: Sequence[int], bars: ProgressBars
) -> dict[str, Any] | None:
    """Return the map of at most MAX_POINTS held-out images, with those of the gallery, `shown` (rows of the
    results). Return None without networks, without resized images, or with too few test images."""
    member = next((m for m in members if any(model_path(m.name, fold).exists() for fold in m.folds)), None)
    if member is None or member.recipe is None:
        return None
    folds = [fold for fold in member.folds if model_path(member.name, fold).exists()]
    rows = sampled_rows(np.isin(results.folds, folds), shown, MAX_POINTS, results.recipe.seed)
    n_test = len(results.data.test_ids(results.recipe.competition))
    anchors = np.sort(np.random.default_rng(results.recipe.seed).permutation(n_test)[:N_ANCHORS])
    of_fold = {fold: rows[results.folds[rows] == fold] for fold in folds}
    if len(anchors) < MIN_ANCHORS or len(rows) < MIN_ANCHORS or not all(map(len, of_fold.values())):
        return None
    caches = resized_images(member.recipe, results.data, results.labels, build=False)
    if caches is None:
        info("report: no map of the images, as they are not resized here; `comp predict --force` does so")
        return None
    total = len(rows) + len(folds) * len(anchors)
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        bars.update("map", done := done + n, total)

    bars.update("map", 0, total)
    wanted = {fold: (results.rows[part], anchors) for fold, part in of_fold.items()}
    try:
        found = read_features(member.recipe.model_copy(update={"name": member.name}), caches, wanted, advance)
    except CompError as error:
        info(f"report: no map of the images: {error}")
        return None
    at = np.concatenate([of_fold[part.fold] for part in found])
    places, shares = to_plane(found)
    points = points_of(results, at, places, {row: i for i, row in enumerate(shown)})
    if (n_bytes := size_of(points)) > MAX_MAP_BYTES:
        info(f"report: no map of the images: it would take {size_text(n_bytes)}")
        return None
    return points | {"shares": shares, "by": member.name if len(members) > 1 else None}


def sampled_rows(usable: np.ndarray, shown: Sequence[int], n_most: int, seed: int) -> np.ndarray:
    """Return sorted rows, at most n_most of those `usable` (N,): first the ones shown, the others at
    random."""
    order = [*shown, *np.random.default_rng(seed).permutation(len(usable)).tolist()]
    return np.sort([row for row in dict.fromkeys(order) if usable[row]][:n_most])


def to_plane(features: Sequence[FoldFeatures]) -> tuple[np.ndarray, list[float]]:
    """Return (N, 2) the places of all training images in the order of the networks, and the shares of the
    variance that both axes have.

    Each network has features of its own. They are standardised and reduced to the principal components of
    the test images that all networks see; the components of each network are then turned to those of the
    first by the rotation that brings these test images nearest (orthogonal Procrustes, Schönemann 1966). A
    rotation keeps the distances between the images of a network."""
    spaces = [_components(part.train, part.test) for part in features]
    n = min(anchors.shape[1] for _, anchors in spaces)
    spaces = [(train[:, :n], anchors[:, :n]) for train, anchors in spaces]
    first = spaces[0][1]
    joined = np.concatenate([train @ orthogonal_procrustes(anchors, first)[0] for train, anchors in spaces])
    plane = PCA(2, svd_solver="full").fit(joined)
    return plane.transform(joined), plane.explained_variance_ratio_.tolist()


def _components(train: np.ndarray, anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the components (N, n) of training images and (M, n) of anchors, whose mean squared length
    is 1."""
    scaler = StandardScaler().fit(anchors)
    x, y = scaler.transform(train.astype(np.float64)), scaler.transform(anchors.astype(np.float64))
    reduced = PCA(min(MAX_COMPONENTS, *y.shape), svd_solver="full").fit(y)
    x, y = reduced.transform(x), reduced.transform(y)
    length = np.sqrt((y**2).sum(1).mean()) or 1.0
    return x / length, y / length


def points_of(
    results: RunResults, rows: np.ndarray, places: np.ndarray, place_in_gallery: dict[int, int]
) -> dict[str, Any]:
    """Return the points by column: where they are, in thousandths of the map's width, and what the page says
    of them."""
    single, answer = has_single_label(results), results.scorer.answer
    losses = losses_of(results, single=single)[rows]
    if np.ptp(places[:, 1]) > np.ptp(places[:, 0]):  # wider than high
        places = places[:, ::-1]
    scaled = ((places - places.min(0)) / (np.ptp(places[:, 0]) or 1.0) * 1000).round().astype(int)
    found: dict[str, Any] = {
        "n": len(rows),
        "x": scaled[:, 0].tolist(),
        "y": scaled[:, 1].tolist(),
        "id": [visible(name, MAX_NAME) for name in results.ids[rows]],
        "fold": results.folds[rows].tolist(),
        "loss": [short(float(loss)) for loss in losses],
        "image": [place_in_gallery.get(row) for row in rows.tolist()],
    }
    if answer == "numbers":
        pairs = zip(results.targets[rows], results.decisions[rows])
        found["numbers"] = [[[short(t), short(g)] for t, g in zip(*pair)] for pair in pairs]
        return found
    targets, chosen = results.targets[rows], labels_for_counts(results, single=single)[rows]
    found["true"] = [np.flatnonzero(row == 1).tolist() for row in targets]
    found["decided"] = [np.flatnonzero(row).tolist() for row in chosen]
    if np.isnan(targets).any():
        found["unknown"] = [np.flatnonzero(row).tolist() for row in np.isnan(targets)]
    return found

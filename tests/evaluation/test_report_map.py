"""The report's map: networks' features are turned onto each other, and its points are the run's images."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from comp.evaluation.features import FoldFeatures
from comp.evaluation.report_map import sampled_rows, to_plane

ROWS = np.arange(0)


def features(seed: int, n: int, n_features: int = 12) -> np.ndarray:
    """Features (n, F) of three clusters."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(3, n_features)) * 3
    return (centres[rng.integers(0, 3, n)] + rng.normal(size=(n, n_features))).astype(np.float32)


def test_the_same_images_seen_by_another_network_are_at_the_same_place():
    """The other network has its features in another order, with other signs and scales, and one more."""
    rng = np.random.default_rng(0)
    images, anchors = features(1, 50), features(2, 60)
    order, scale = rng.permutation(12), rng.normal(size=12) * 5
    seen = FoldFeatures(0, ROWS, ROWS, images, anchors)
    dead = [np.hstack([x[:, order] * scale, np.ones((len(x), 1))]) for x in (images, anchors)]
    places, shares = to_plane([seen, FoldFeatures(1, ROWS, ROWS, *dead)])
    np.testing.assert_allclose(places[:50], places[50:], atol=1e-4)
    assert 0.5 < shares[0] + shares[1] <= 1


def test_the_map_of_one_network_is_the_pca_of_scikit_learn():
    images, anchors = features(1, 50), features(2, 60)
    places, _ = to_plane([FoldFeatures(0, ROWS, ROWS, images, anchors)])
    scaled = StandardScaler().fit(anchors).transform(images.astype(float))
    expected = PCA(2, svd_solver="full").fit_transform(scaled)
    ratio = pdist(places) / pdist(expected)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)


@pytest.mark.parametrize("n_most", [30, 6])
def test_a_sample_holds_the_images_of_the_gallery_first(n_most: int):
    usable = np.arange(100) % 4 > 0
    rows = sampled_rows(usable, [5, 8, 97], n_most, seed=0)
    assert len(rows) == n_most and {5, 97} <= set(rows) and usable[rows].all()
    assert (np.diff(rows) > 0).all() and (rows == sampled_rows(usable, [5, 8, 97], n_most, seed=0)).all()

"""Matrices of thousands of labels take other ways to the same results."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from comp.decisions import bootstrap, metrics, rules, thresholds
from comp.decisions.bootstrap import win_probability
from comp.decisions.large_thresholds import FLOOR, large_class_thresholds
from comp.decisions.metrics import FBeta, average_precisions
from comp.decisions.rules import FittedRule
from comp.decisions.thresholds import GRID, class_thresholds, global_threshold

METRICS = [FBeta(2), FBeta(1, "macro"), FBeta(2, "micro"), FBeta(1.5, "samples", 1.0)]


def drawn(kind: type = np.float32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities above 0.005 of 300 images and 40 labels, many of them equal, and the truth."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((300, 40)) < np.linspace(0.005, 0.3, 40)).astype(np.uint8)
    probs = (0.2 + 0.5 * targets + rng.normal(0, 0.3, targets.shape)).clip(0.01, 0.99).round(2)
    return probs.astype(kind), targets


@pytest.mark.parametrize("metric", METRICS, ids=str)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_common_threshold_is_the_best_of_a_grid(
    metric: FBeta, kind: type, monkeypatch: pytest.MonkeyPatch
):
    probs, targets = drawn(kind)
    monkeypatch.setattr(thresholds, "MAX_SORTED", 1)
    monkeypatch.setattr(thresholds, "CHUNK", 1000)
    scores = [metric.score(targets, probs > threshold) for threshold in GRID]
    assert global_threshold(probs, targets, metric) == GRID[int(np.argmax(scores))]


@pytest.mark.parametrize("metric", METRICS, ids=str)
def test_thresholds_by_label_are_those_of_the_whole_matrix(metric: FBeta, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(thresholds, "CHUNK", 1000)
    for seed in range(3):
        probs, targets = drawn(seed=seed)
        found = large_class_thresholds(probs, targets, metric, start=0.3)
        assert np.allclose(
            found, class_thresholds(probs, targets, metric, start=0.3).clip(FLOOR), rtol=0, atol=1e-12
        )


def test_no_threshold_is_below_the_floor():
    probs, targets = drawn()
    found = large_class_thresholds(probs / 100, targets, FBeta(1, "macro"), start=0.3)
    assert found.min() >= FLOOR
    chosen = (probs / 100 > found).astype(np.uint8)
    assert FBeta(1, "macro").score(targets, chosen) > 0


@pytest.mark.parametrize(
    "rule",
    [
        FittedRule(np.full(40, 0.9), min_labels=2, max_labels=3),
        FittedRule(np.full(40, 0.5), groups=(tuple(range(40)),)),
        FittedRule(np.full(40, 0.5), expected=True, min_labels=1),
    ],
)
def test_rows_decided_in_parts_are_decided_the_same(rule: FittedRule, monkeypatch: pytest.MonkeyPatch):
    probs, _ = drawn()
    whole = rule.decide(probs, FBeta())
    monkeypatch.setattr(rules, "CHUNK", 1000)
    assert np.array_equal(rule.decide(probs, FBeta()), whole)


def test_a_sparse_bootstrap_is_the_same(monkeypatch: pytest.MonkeyPatch):
    probs, targets = drawn()
    pair = probs > 0.4, probs > 0.45
    dense = win_probability(*pair, targets, FBeta(1, "macro"))
    monkeypatch.setattr(bootstrap, "SPARSE", 0)
    assert win_probability(*pair, targets, FBeta(1, "macro")) == dense


def test_average_precision_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metrics, "MANY", 0)
    probs, targets = drawn()
    targets[:, 0] = 0
    found = average_precisions(probs, targets)
    assert np.isnan(found[0])
    expected = [average_precision_score(targets[:, c], probs[:, c]) for c in range(1, 40)]
    assert np.allclose(found[1:], expected, rtol=0, atol=1e-12)


def test_the_most_probable_label_is_the_same_with_and_without_logits():
    probs, _ = drawn()
    rule = FittedRule(np.full(40, 0.5), groups=(tuple(range(40)),))
    assert np.array_equal(rule.decide(probs, FBeta()), rule.decide(probs.astype(np.float64), FBeta()))

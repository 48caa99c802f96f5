from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comp.config import Metric
from comp.decisions import cross_fitted, decide, fit_exact, fit_global, fit_optuna
from comp.metrics import fbeta

AVERAGES = ["samples", "macro", "micro"]
cases = st.tuples(
    st.integers(0, 10_000), st.integers(1, 25), st.sampled_from(AVERAGES), st.sampled_from([0.5, 1.0, 2.0])
)


def draw(seed: int, n: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, n_classes)) < 0.4).astype(np.uint8)
    probs = np.clip(0.35 * targets + 0.6 * rng.random((n, n_classes)), 0, 1).astype(np.float32)
    return np.round(probs, 1) if seed % 2 else probs, targets  # every second one has many ties


def value(targets: np.ndarray, decisions: np.ndarray, metric: Metric) -> float:
    return fbeta(targets, decisions, beta=metric.beta, average=metric.average)


def cuts(column: np.ndarray) -> list[float]:
    levels = [0.0, *np.unique(column).astype(float), 1.0]
    return [0.0, *((a + b) / 2 for a, b in pairwise(levels)), 1.0]


@given(cases)
def test_one_class_is_decided_as_brute_force_does(case):
    seed, n, average, beta = case
    probs, targets = draw(seed, n, 1)
    metric = Metric(beta=beta, average=average)
    best = max(value(targets, probs > t, metric) for t in cuts(probs[:, 0]))
    found = fit_exact(probs, targets, metric, np.array([0.5]))
    assert value(targets, probs > found, metric) == pytest.approx(best, abs=1e-9)


@given(cases)
@settings(max_examples=30, deadline=None)
def test_exact_thresholds_can_not_be_bettered_one_at_a_time_and_never_lose_to_one_for_all(case):
    seed, n, average, beta = case
    probs, targets = draw(seed, n, 3)
    metric = Metric(beta=beta, average=average)
    start = fit_global(probs, targets, metric)
    found = fit_exact(probs, targets, metric, start, sweeps=100)
    score = value(targets, probs > found, metric)
    assert score >= value(targets, probs > start, metric) - 1e-9
    for c, t in ((i, t) for i in range(3) for t in cuts(probs[:, i])):
        moved = found.copy()
        moved[c] = t
        assert score >= value(targets, probs > moved, metric) - 1e-9
    if average == "macro":  # classes do not depend on each other, so one sweep is the optimum
        grid = product(*(cuts(probs[:5, c]) for c in range(3)))
        assert score >= max(value(targets, probs > np.array(t), metric) for t in grid) - 1e-9


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize(
    "probs", [np.full((4, 2), 0.5), np.zeros((4, 2)), np.ones((4, 2)), np.array([[0.3, 0.9]])], ids=str
)
def test_degenerate_probabilities_give_thresholds_between_0_and_1(probs, average):
    for targets in (np.zeros(probs.shape, np.uint8), np.ones(probs.shape, np.uint8)):
        found = fit_exact(probs, targets, Metric(average=average), np.full(2, 0.5))
        assert ((found >= 0) & (found <= 1)).all()


def test_an_empty_row_takes_the_label_nearest_to_its_threshold_where_it_must_have_one():
    probs, thresholds = np.array([[0.1, 0.3], [0.9, 0.2]]), np.array([0.15, 0.6])
    assert decide(probs, thresholds, allow_empty=True).tolist() == [[0, 0], [1, 0]]
    assert decide(probs, thresholds, allow_empty=False).tolist() == [[1, 0], [1, 0]]


def test_optuna_is_seeded_keeps_its_study_and_is_at_least_as_good_as_its_starts(tmp_path: Path):
    import optuna

    probs, targets = draw(4, 200, 4)
    metric = Metric()

    def fit(name: str) -> np.ndarray:
        return fit_optuna(
            probs, targets, metric, n_trials=12, seed=3, study_path=tmp_path / "study.log", name=name
        )

    first, second = fit("a"), fit("b")
    assert first.tolist() == second.tolist()
    common = fit_global(probs, targets, metric)
    exact = fit_exact(probs, targets, metric, common)
    assert value(targets, probs > first, metric) >= value(targets, probs > exact, metric) - 1e-9
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    )
    assert {s.study_name: s.n_trials for s in optuna.get_all_study_summaries(storage)} == {"a": 12, "b": 12}
    assert fit("a").tolist() == first.tolist()  # its trials are there already
    assert len(optuna.load_study(study_name="a", storage=storage).trials) == 12


def test_no_fold_is_decided_by_thresholds_that_have_seen_it():
    probs, targets = draw(2, 60, 3)
    folds = np.arange(60) % 3
    metric = Metric()

    def fit(seen: np.ndarray, fold: int) -> np.ndarray:
        return fit_exact(probs[seen], targets[seen], metric, np.full(3, 0.5))

    _, before = cross_fitted(probs, targets, folds, fit, allow_empty=True)
    targets[folds == 1] = 1 - targets[folds == 1]
    _, after = cross_fitted(probs, targets, folds, fit, allow_empty=True)
    assert before[1].tolist() == after[1].tolist()
    assert before[0].tolist() != after[0].tolist()

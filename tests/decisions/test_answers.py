"""Probabilities, grades, rankings and numbers are decided by rules that are fitted where they are not
scored."""

from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

import comp
from comp import FBeta, Metric
from comp.decisions.bootstrap import bootstrap, interval, win_probability
from comp.decisions.calibration import sigmoid, tempered
from comp.decisions.class_scores import class_scores
from comp.decisions.cut_points import grades_of, kappa_cut_points
from comp.decisions.metrics import most_probable, one_hot
from comp.decisions.resampling import resampled
from comp.decisions.scorers import balanced_accuracy, scorer_of
from comp.decisions.single_label import offset_thresholds
from comp.errors import CompError

KAPPA = Metric(name="quadratic_kappa")


def ordinal(seed: int, n: int, n_grades: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return drawn probabilities (n, C) and 0/1 targets of grades, the lowest of which is the most common."""
    rng = np.random.default_rng(seed)
    share = np.exp(-0.5 * np.arange(n_grades))
    true = rng.choice(n_grades, n, p=share / share.sum())
    seen = true + rng.normal(0, 0.9, n)
    logits = (
        -0.6 * (seen[:, None] - np.arange(n_grades)) ** 2 + np.log(share) + rng.normal(0, 0.3, (n, n_grades))
    )
    return tempered(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), 1.0), one_hot(true, n_grades)


def sure(seed: int, n: int, n_classes: int = 17, slope: float = 1.6) -> tuple[np.ndarray, np.ndarray]:
    """Return drawn targets (n, C) 0/1 of rare and common labels, and probabilities that are too sure of them
    if the slope is above 1."""
    rng = np.random.default_rng(seed)
    share = np.geomspace(0.5, 0.05, n_classes)
    targets = (rng.random((n, n_classes)) < share).astype(np.uint8)
    truth = np.log(share / (1 - share)) + 2.5 * (targets - 0.5) + rng.normal(0, 1.2, targets.shape)
    return sigmoid(slope * truth).astype(np.float32), targets


# --- grades -------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_cut_points_have_the_highest_kappa_of_all(seed: int, n: int, n_grades: int):
    rng = np.random.default_rng(seed)
    expected = np.round(rng.random(n) * (n_grades - 1), int(rng.integers(0, 3)))  # with ties
    true = rng.integers(0, n_grades, n)
    scorer, targets = scorer_of(KAPPA), one_hot(true, n_grades)

    def value(cuts: np.ndarray) -> float:
        return scorer.score(targets, one_hot(grades_of(expected, cuts), n_grades))

    levels = np.unique(expected)
    places = np.r_[levels[0] - 1, (levels[1:] + levels[:-1]) / 2, levels[-1] + 1]
    best = max(value(np.array(cuts)) for cuts in combinations_with_replacement(places, n_grades - 1))
    found = kappa_cut_points(expected, true, n_grades)
    assert (np.diff(found) >= 0).all()
    assert value(found) == pytest.approx(best, abs=1e-9) or len(set(true.tolist())) == 1


def test_cut_points_beat_rounding_and_the_most_probable_grade_on_ordinal_data():
    probs, targets = ordinal(0, 3000)
    decision = comp.decide(probs, targets, KAPPA)
    assert decision.rule == "cut-points"
    alone = [comp.decide(probs, targets, KAPPA, rule=rule).rows for rule in ("rounded", "most-probable")]
    answers = [decision.rows.decisions, *(rows.decisions for rows in alone)]
    scores = bootstrap(answers, targets, decision.metric, n_resamples=1000)
    for other in (1, 2):
        assert interval(scores[:, 0] - scores[:, other])[0] > 0
    assert decision.scores["cross_fitted"] == pytest.approx(
        cohen_kappa_score(targets.argmax(1), answers[0].argmax(1), weights="quadratic")
    )


def test_the_cross_fitted_kappa_is_within_a_standard_error_of_the_held_out_one():
    gaps, errors = [], []
    for seed in range(8):
        probs, targets = ordinal(seed, 1200)
        decision = comp.decide(probs, targets, KAPPA, rule="cut-points")
        new, truth = ordinal(seed + 100, 20_000)
        held_out = decision.metric.score(truth, decision.predict(new))
        spread = bootstrap([decision.rows.decisions], targets, decision.metric, n_resamples=300).std()
        gaps.append(decision.scores["cross_fitted"] - held_out)
        errors.append(spread)
    assert abs(np.mean(gaps)) < np.mean(errors)


def test_another_metric_of_grades_searches_its_cut_points():
    probs, targets = ordinal(1, 600)

    class Error:
        metric, answer, sign = (
            Metric(name="mine.py:f", answer="grades", greater_is_better=False),
            "grades",
            -1,
        )

        def score(self, targets: np.ndarray, answers: np.ndarray) -> float:
            return float(np.abs(targets.argmax(1) - answers.argmax(1)).mean())

        def per_class(self, targets: np.ndarray, answers: np.ndarray) -> np.ndarray:
            return np.full(targets.shape[1], np.nan)

    from comp.decisions.decide import decide

    scored = {s.rule: s.in_sample for s in decide(probs, targets, Error()).scored}
    assert scored["cut-points"] <= min(scored["rounded"], scored["most-probable"]) + 0.01


def test_mean_recall_is_decided_by_exact_offsets():
    probs, targets = ordinal(2, 500)
    scorer = scorer_of(Metric(name="balanced_accuracy"))
    thresholds = offset_thresholds(probs, targets, scorer)

    def value(t: np.ndarray) -> float:
        return balanced_accuracy(targets, most_probable(np.log(probs / (1 - probs)) - np.log(t / (1 - t))))

    assert value(thresholds) > balanced_accuracy(targets, most_probable(probs))
    for c in range(5):
        for place in np.linspace(0.02, 0.98, 40):
            moved = thresholds.copy()
            moved[c] = place
            assert value(moved) <= value(thresholds) + 1e-9
    decision = comp.decide(probs, targets, Metric(name="balanced_accuracy"), exclusive=[range(5)])
    assert decision.rule in ("shrunk", "per-class")


# --- probabilities ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [0.6, 1.0, 1.6])
def test_calibration_betters_log_loss_on_held_out_halves_or_is_not_applied(slope: float):
    probs, targets = sure(0, 1400, slope=slope)
    metric, rules = Metric(name="log_loss"), []
    for cut in range(20):
        half = np.random.default_rng(cut).permutation(len(probs)) % 2 == 0
        decision = comp.decide(probs[half], targets[half], metric)
        before = decision.metric.score(targets[~half], probs[~half])
        after = decision.metric.score(targets[~half], decision.predict(probs[~half]))
        assert after < before or decision.rule == "as-is"
        rules.append(decision.rule)
    assert slope == 1.0 or rules == ["calibrated"] * 20


def test_softmax_rows_get_a_temperature_that_betters_log_loss():
    probs, targets = ordinal(3, 1500)
    sharp = tempered(probs, 0.5)
    decision = comp.decide(sharp, targets, Metric(name="log_loss"), exclusive=[range(5)])
    assert decision.rule == "temperature" and decision.fitted.temperature == pytest.approx(2, abs=0.3)
    new, truth = ordinal(4, 3000)
    answers = decision.predict(tempered(new, 0.5))
    assert answers.sum(1) == pytest.approx(1, abs=1e-4)
    assert decision.metric.score(truth, answers) < decision.metric.score(truth, tempered(new, 0.5))


@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "map_at_k", "top_k_error"])
def test_nothing_is_decided_where_only_the_order_counts(name: str):
    probs, targets = sure(1, 200)
    decision = comp.decide(probs, targets, Metric(name=name))
    assert decision.rule == "as-is" and list(decision.rules.index) == ["as-is"]
    assert np.array_equal(decision.predict(probs), probs)


def test_probabilistic_f1_is_better_by_0_and_1_than_by_unsure_probabilities():
    probs, targets = sure(7, 2000, 1, slope=0.8)
    decision = comp.decide(probs, targets, Metric(name="probabilistic_fbeta", beta=1.0))
    assert decision.rule == "binary" and set(decision.predict(probs).ravel().tolist()) == {0, 1}
    new, truth = sure(8, 4000, 1, slope=0.8)
    assert decision.metric.score(truth, decision.predict(new)) > decision.metric.score(truth, new)


# --- numbers ------------------------------------------------------------------------------------------------


def test_numbers_stay_in_the_range_of_the_targets_where_that_is_better():
    rng = np.random.default_rng(0)
    targets = rng.uniform(1, 100, (800, 1))
    given = targets + rng.normal(0, 15, targets.shape)
    decision = comp.decide(given, targets, Metric(name="rmse"))
    assert decision.rule == "clipped" and decision.scores["cross_fitted"] < decision.scores["default"]
    assert decision.predict(given).min() >= 1 and decision.predict(given).max() <= 100
    assert list(decision.to_frame().columns) == ["images", "mean", "RMSE", "MAE", "R²"]


# --- any metric ---------------------------------------------------------------------------------------------

METRICS = {
    **dict.fromkeys(("roc_auc", "average_precision", "log_loss", "rmse", "mae", "r2"), {}),
    **{name: {} for name in ("quadratic_kappa", "balanced_accuracy", "probabilistic_fbeta")},
    "map_at_k": {"k": 3}, "top_k_error": {"k": 2}, "within": {"tolerance": 0.2},
}  # fmt: skip


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("name", METRICS)
def test_resamples_are_scored_as_if_their_rows_were_written_out(name: str, unknown: bool):
    rng = np.random.default_rng(0)
    probs, one = ordinal(5, 120)
    metric = Metric(name=name, **METRICS[name])
    targets = one if metric.kind in ("grades", "labels") else sure(2, 120, 5)[1].astype(float)
    answers = most_probable(probs) if metric.kind in ("grades", "labels") else np.round(probs, 1)
    if unknown and targets is not one:
        targets[rng.random(targets.shape) < 0.2] = np.nan
    scorer, copies = scorer_of(metric), rng.poisson(1.0, (5, 120)).astype(np.float32)
    rows = [np.repeat(np.arange(120), count.astype(int)) for count in copies]
    written_out = [scorer.score(targets[at], answers[at]) for at in rows]
    np.testing.assert_allclose(resampled(scorer, targets, answers, copies), written_out, rtol=1e-5)


def test_a_lower_loss_wins():
    probs, targets = sure(3, 300)
    worse = np.clip(probs + 0.2, 0, 1)
    assert win_probability(probs, worse, targets, scorer_of(Metric(name="log_loss"))) == 1
    assert win_probability(worse, probs, targets, scorer_of(Metric(name="log_loss"))) == 0


def test_unknown_targets_are_left_out_of_labels_and_of_their_thresholds():
    probs, targets = sure(4, 400, 4)
    holes = np.where(np.random.default_rng(0).random(targets.shape) < 0.3, np.nan, targets.astype(float))
    bare = np.isnan(holes).all(1)
    holes[bare, 0] = targets[bare, 0]
    metric = FBeta(1.0, "macro")
    decision = comp.decide(probs, holes, metric, rule="per-class")
    for c in range(4):
        known = ~np.isnan(holes[:, c])
        alone = comp.decide(
            probs[known, c : c + 1], targets[known, c : c + 1], metric, rule="per-class", min_labels=0
        )
        assert decision.fitted.thresholds[c] == pytest.approx(alone.fitted.thresholds[0])
        assert decision.labels["images"].iloc[c] == targets[known, c].sum()
        answers = decision.rows.decisions
        assert metric.per_class(holes, answers)[c] == metric.per_class(targets[known], answers[known])[c]


@pytest.mark.parametrize("name", METRICS)
def test_a_saved_decision_decides_as_before(tmp_path: Path, name: str):
    probs, one = ordinal(6, 150)
    metric = Metric(name=name, **METRICS[name])
    targets = np.random.default_rng(0).random((150, 5)) if metric.kind == "numbers" else one
    decision = comp.decide(probs, targets, metric, exclusive=[range(5)])
    decision.save(tmp_path / "decision.json")
    loaded = comp.Decision.load(tmp_path / "decision.json")
    assert np.array_equal(loaded.predict(probs), decision.predict(probs))
    assert repr(loaded) == repr(decision) and str(metric) in repr(decision)
    assert loaded.to_frame().shape == decision.to_frame().shape
    assert decision.plot().axes


def test_scores_of_each_class_are_those_of_its_known_targets():
    probs, targets = sure(5, 200, 3)
    holes = targets.astype(float)
    holes[:50, 1] = np.nan
    scorer = scorer_of(Metric(name="roc_auc"))
    frame = class_scores(scorer, probs, holes, probs, tuple("abc"))
    alone = class_scores(scorer, probs[50:], targets[50:], probs[50:], tuple("abc"))
    assert frame.loc["b"].tolist() == alone.loc["b"].tolist()


@pytest.mark.parametrize(
    ("metric", "change", "message"),
    [
        (Metric(name="log_loss"), {"rule": "global"}, "there are as-is, calibrated"),
        (KAPPA, {"targets": np.ones((20, 3))}, "row 0 of targets has 3 grades"),
        (Metric(name="rmse"), {"probs": np.full((20, 3), np.inf)}, "not finite"),
        (Metric(name="roc_auc"), {"targets": np.ones((20, 3))}, "is not defined"),
        (FBeta(), {"targets": np.full((20, 3), np.nan)}, "row 0 of targets has no known value"),
        (Metric(name="accuracy"), {}, "needs exactly one label per image"),
        (Metric(name="roc_auc", weights={"9": 2}), {}, "metric.weights names 1 (9)"),
    ],
)
def test_what_does_not_fit_the_metric_is_one_line(metric, change: dict, message: str):
    rng = np.random.default_rng(0)
    given = {"probs": rng.random((20, 3)), "targets": (rng.random((20, 3)) < 0.5).astype(int)} | change
    with pytest.raises(CompError, match=message.replace("(", r"\(").replace(")", r"\)")):
        comp.decide(given.pop("probs"), given.pop("targets"), metric, **given)

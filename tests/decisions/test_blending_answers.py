"""Blends where the answer is no label: probabilities, grades, rankings and numbers, on drawn members."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, log_loss, roc_auc_score, root_mean_squared_error

from comp.config.metric import Metric
from comp.decisions.blending import Blend, Blender, best_blend, fit_blend, methods_of
from comp.decisions.bootstrap import bootstrap
from comp.decisions.calibration import logit, sigmoid
from comp.decisions.rule_search import SearchSettings
from comp.decisions.scorers import scorer_of
from comp.errors import CompError

SETTINGS = SearchSettings(name="weights")


@pytest.fixture(autouse=True)
def _few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comp.decisions.blending.N_TRIALS", 20)


N = 300
FOLDS = np.arange(N) % 3


def columns(seed: int, noise: tuple[float, ...], n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Members (M, N, C) that see the truth (N, C) through noise of these sizes."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((N, n_classes)) < 0.3).astype(np.uint8)
    logits = [2.0 * targets - 1 + rng.normal(0, size, targets.shape) for size in noise]
    return sigmoid(np.stack(logits)).astype(np.float32), targets


def rows(seed: int, noise: tuple[float, ...], n_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """The same where each image has one label, and probabilities sum to 1."""
    rng = np.random.default_rng(seed)
    targets = np.eye(n_classes, dtype=np.uint8)[rng.integers(n_classes, size=N)]
    odds = np.exp([2.0 * targets + rng.normal(0, size, targets.shape) for size in noise])
    return (odds / odds.sum(-1, keepdims=True)).astype(np.float32), targets


def blender(members: np.ndarray, targets: np.ndarray, single: bool = False, **metric) -> Blender:
    scorer = scorer_of(Metric(**metric), single=single)
    return Blender(members, targets, FOLDS, scorer, SETTINGS, single)


def test_rank_means_never_lose_auc_against_the_best_member_by_more_than_noise():
    scorer = scorer_of(Metric(name="roc_auc"))
    scales = np.array([0.2, 1.0, 6.0])[:, None, None]  # one member is timid, one boasts
    for seed in range(40):
        noises = (1.5, 1.6, 1.7) if seed < 20 else (1.5, 2.5, 4.0)  # equal ones, and unequal ones
        probs, targets = columns(seed, noises)
        members = sigmoid(scales * logit(probs))
        found = blender(members, targets, name="roc_auc").blend("ranks")
        alone = [scorer.score(targets, member) for member in members]
        best = members[int(np.argmax(alone))]
        resamples = bootstrap([found.oof, best], targets, scorer, n_resamples=100)
        noise = (resamples[:, 0] - resamples[:, 1]).std()
        assert found.scored.cross_fitted > max(alone) - 2 * noise
        assert found.scored.cross_fitted == pytest.approx(roc_auc_score(targets, found.oof), abs=1e-4)


@pytest.mark.parametrize("metric", ["roc_auc", "log_loss"])
@pytest.mark.parametrize("single", [False, True])
def test_probabilities_are_weighed_by_the_metric_itself_and_in_its_direction(metric: str, single: bool):
    draw = rows if single else columns
    members, targets = draw(1, (1.0, 1.1, 8.0))  # the last one knows next to nothing, and is sure of it
    found = blender(members, targets, single, name=metric).choose()
    sign = 1 if metric == "roc_auc" else -1
    mean, chosen = found.blends[0], found.chosen
    assert chosen.method != "mean" and sign * (found.score - mean.scored.cross_fitted) > 0.01
    assert found.gains[2] < 0 < min(found.gains[:2])
    if chosen.weights is not None:
        assert chosen.weights[2] < 0.1
    if metric == "log_loss" and single:
        assert chosen.oof.sum(1) == pytest.approx(1)
        assert chosen.scored.cross_fitted == pytest.approx(log_loss(targets, chosen.oof), rel=1e-5)


def test_the_best_blend_of_a_loss_is_the_lowest():
    members, targets = columns(2, (1.0, 1.2))
    one = blender(members, targets, name="log_loss")
    good, poor = (one.score(p) for p in (members.mean(0), 1 - members.mean(0)))
    blends = [Blend("mean", one.members[0], np.mean, poor, None), Blend("b", members[0], np.mean, good, None)]
    assert best_blend(blends, targets, one.metric) is blends[1]


def test_grades_are_scored_between_cut_points_and_rankings_as_they_are():
    members, targets = rows(3, (1.0, 1.2, 6.0), 5)
    kappa, ranked = (blender(members, targets, True, name=m) for m in ("quadratic_kappa", "map_at_k"))
    mean = members.mean(0)
    scored = kappa.score(mean)
    assert scored.rule == "cut-points" and scored.cross_fitted == pytest.approx(
        cohen_kappa_score(targets.argmax(1), scored.decisions.argmax(1), weights="quadratic")
    )
    places = 1 + (mean > mean[targets == 1][:, None]).sum(1)
    assert ranked.score(mean).cross_fitted == pytest.approx(np.mean(1 / places))
    for one in (kappa, ranked):
        found = one.blend("greedy")
        assert found.weights is not None and found.weights[2] < 0.2
        assert found.scored.cross_fitted > one.blend("mean").scored.cross_fitted
        assert found.oof.sum(1) == pytest.approx(1)


@pytest.mark.parametrize("unit", [1e-3, 1e4])
def test_numbers_are_blended_in_their_unit(unit: float):
    rng = np.random.default_rng(4)
    targets = unit * rng.normal(50, 10, (N, 2))
    members = np.stack([targets + unit * rng.normal(0, size, targets.shape) for size in (3, 4, 30)])
    one = blender(members, targets, name="rmse")
    mean, weights, stack = (one.blend(method) for method in methods_of("auto", one.metric.metric))
    for found in (weights, stack):
        assert found.scored.cross_fitted < 0.5 * mean.scored.cross_fitted
        error = [root_mean_squared_error(t, p) for t, p in zip(targets.T, found.oof.T)]
        assert found.scored.cross_fitted == pytest.approx(np.mean(error), rel=1e-4)
    assert weights.weights is not None and weights.weights[2] < 0.1
    assert one.choose("stack").gains[2] < 0


@pytest.mark.parametrize("metric", ["roc_auc", "rmse", "fbeta"])
def test_unknown_targets_have_no_say(metric: str):
    members, targets = columns(5, (1.0, 1.5))
    unknown = np.random.default_rng(0).random(targets.shape) < 0.3
    found = []
    for guess in (0.0, 1.0):  # what a network answers where nothing is known
        given = np.where(unknown, guess, members).astype(np.float32)
        one = blender(given, np.where(unknown, np.nan, targets), name=metric)
        _, weights = fit_blend("weights", one.members, one.targets, one.metric, SETTINGS)
        found.append(weights)
    assert found[0] == pytest.approx(found[1])
    stack = blender(members, np.where(unknown, np.nan, targets), name=metric).blend("stack")
    assert np.isfinite(stack.oof).all() and ((stack.oof > 0.5) == targets).mean() > 0.8


def test_methods_that_do_not_suit_the_metric_are_refused():
    with pytest.raises(CompError, match=r"--how ranks does not suit log loss, .*; there are mean, logits"):
        methods_of("ranks", Metric(name="log_loss"))
    with pytest.raises(CompError, match="--how logits does not suit RMSE, whose answer is numbers"):
        methods_of("logits", Metric(name="rmse"))
    assert methods_of("ranks", Metric(name="roc_auc")) == ["mean", "ranks"]


def test_a_column_whose_score_is_not_defined_is_refused():
    members, _ = columns(6, (1.0, 1.0), 1)
    with pytest.raises(CompError, match="ROC AUC of these 300 rows is not defined"):
        blender(members, np.ones((N, 1), np.uint8), name="roc_auc").choose()


def test_the_weights_of_a_metric_of_ones_own_follow_it():
    members, targets = columns(7, (1.0, 8.0))
    code = {"own.py": "def brier(targets, answers):\n    return ((targets - answers) ** 2).mean()\n"}
    metric = Metric(name="own.py:brier", answer="probabilities", greater_is_better=False)
    apply, weights = fit_blend("greedy", members, targets, scorer_of(metric, code=code), SETTINGS)
    assert weights is not None and weights[0] > 0.8
    assert ((targets - apply(members)) ** 2).mean() < ((targets - members.mean(0)) ** 2).mean()


def test_images_of_one_answer_are_scored_as_one():
    members, targets = columns(8, (1.0, 2.0))
    answer_of = np.char.add("p", (np.arange(N) // 2).astype(str))  # two images each
    folds = np.arange(N) // 2 % 3
    targets[1::2] = targets[::2]
    scorer = scorer_of(Metric(name="roc_auc"))
    for how, aggregated in (("mean", np.mean), ("max", np.max)):
        one = Blender(members, targets, folds, scorer, SETTINGS, answer_of=answer_of, aggregate=how).choose(
            "mean"
        )
        both = aggregated(members.mean(0).reshape(N // 2, 2, 3), axis=1)
        assert one.score == pytest.approx(scorer.score(targets[::2], both), abs=1e-6)
        assert one.chosen.oof.shape == targets.shape  # blended by image


def test_images_without_a_known_target_are_blended_and_not_scored():
    members, targets = columns(9, (1.0, 2.0))
    known = np.where(np.arange(N)[:, None] % 10 == 0, np.nan, targets)
    found = blender(members, known, name="log_loss").blend("logits")
    assert np.isfinite(found.oof).all() and len(found.scored.decisions) == N * 9 // 10

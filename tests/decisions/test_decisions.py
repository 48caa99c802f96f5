import multiprocessing
import os
import time
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import comp
from comp.artifacts import optuna_journal
from comp.decisions.bootstrap import win_probability
from comp.decisions.calibration import calibration, logit, sigmoid
from comp.decisions.cross_fitting import CrossFitter
from comp.decisions.decide import decide
from comp.decisions.expected_fbeta import expected_decisions
from comp.decisions.metrics import FBeta
from comp.decisions.optuna_search import delete_studies, search
from comp.decisions.rule_search import SearchSettings
from comp.decisions.rules import RULES, FittedRule
from comp.decisions.selection import choose_rule, cross_fit_choice
from comp.decisions.thresholds import (
    class_thresholds,
    global_threshold,
    prevalence_thresholds,
    shrunk_thresholds,
)
from comp.errors import CompError

AVERAGES = ["samples", "macro", "micro"]
cases = st.tuples(
    st.integers(0, 10_000), st.integers(1, 25), st.sampled_from(AVERAGES), st.sampled_from([0.5, 1.0, 2.0])
)


def draw(seed: int, n: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, n_classes)) < 0.4).astype(np.uint8)
    probs = np.clip(0.35 * targets + 0.6 * rng.random((n, n_classes)), 0, 1).astype(np.float32)
    if seed % 7 == 0:
        probs[:, 0] = 0.5  # says nothing
        targets[:, -1] = 0  # never there
    return np.round(probs, 1) if seed % 2 else probs, targets  # every second one has many ties


def planetary(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels from common to rare, and what a network might say of them (synthetic)."""
    rng = np.random.default_rng(seed)
    share = np.array([0.9, 0.6, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01])
    targets = (rng.random((n, len(share))) < share).astype(np.uint8)
    targets[~targets.any(1), 0] = 1
    logits = 1.6 * (2.0 * targets - 1) + rng.normal(0, 1.2, targets.shape) + np.log(share / (1 - share)) / 2
    return sigmoid(logits).astype(np.float32), targets


def cuts(column: np.ndarray) -> list[float]:
    levels = [0.0, *np.unique(column).astype(float), 1.0]
    return [0.0, *((a + b) / 2 for a, b in pairwise(levels)), 1.0]


@given(cases)
@settings(deadline=None)
def test_one_class_and_one_threshold_are_decided_as_brute_force_does(case):
    seed, n, average, beta = case
    for n_classes in (1, 3):
        probs, targets = draw(seed, n, n_classes)
        best = max(FBeta(beta=beta, average=average).score(targets, probs > t) for t in cuts(probs.ravel()))
        found = global_threshold(probs, targets, FBeta(beta=beta, average=average))
        assert FBeta(beta=beta, average=average).score(targets, probs > found) == pytest.approx(
            best, abs=1e-9
        )
        if n_classes == 1:
            alone = class_thresholds(probs, targets, FBeta(beta=beta, average=average))
            assert FBeta(beta=beta, average=average).score(targets, probs > alone) == pytest.approx(
                best, abs=1e-9
            )


@given(cases)
@settings(max_examples=40, deadline=None)
def test_exact_thresholds_can_not_be_bettered_one_at_a_time_and_never_lose_to_a_grid(case):
    seed, n, average, beta = case
    probs, targets = draw(seed, n, 3)

    def value(thresholds: np.ndarray | float) -> float:
        return FBeta(beta=beta, average=average).score(targets, probs > thresholds)

    start = global_threshold(probs, targets, FBeta(beta=beta, average=average))
    found = class_thresholds(probs, targets, FBeta(beta=beta, average=average), start=start, sweeps=100)
    assert value(found) >= value(start) - 1e-9
    assert value(found) >= max(value(t / 100) for t in range(1, 100)) - 1e-9
    for c, t in ((i, t) for i in range(3) for t in cuts(probs[:, i])):
        moved = found.copy()
        moved[c] = t
        assert value(found) >= value(moved) - 1e-9
    if average == "macro":  # classes do not depend on each other, so one sweep is the optimum
        grid = product(*(cuts(probs[:5, c]) for c in range(3)))
        assert value(found) >= max(value(np.array(t)) for t in grid) - 1e-9


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize(
    "probs", [np.full((4, 2), 0.5), np.zeros((4, 2)), np.ones((4, 2)), np.array([[0.3, 0.9]])], ids=str
)
def test_degenerate_probabilities_give_thresholds_between_0_and_1(probs, average):
    for targets in (np.zeros(probs.shape, np.uint8), np.ones(probs.shape, np.uint8)):
        found = class_thresholds(probs, targets, FBeta(beta=2.0, average=average))
        one = global_threshold(probs, targets, FBeta(beta=2.0, average=average))
        assert ((found >= 0) & (found <= 1)).all() and 0 <= one <= 1
        decision = comp.decide(probs, targets, FBeta(average=average))
        assert decision.predict(probs).shape == probs.shape


@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([0.5, 1.0, 2.0]))
@settings(max_examples=60, deadline=None)
def test_expected_f_beta_is_decided_as_enumeration_does(seed: int, n_classes: int, beta: float):
    rng = np.random.default_rng(seed)
    probs = rng.random((2, n_classes)) if seed % 3 else np.round(rng.random((2, n_classes)), 1)
    truths = np.array(list(product([0, 1], repeat=n_classes)))
    for row, decided in zip(probs, expected_decisions(probs, FBeta(beta=beta))):
        weights = np.prod(np.where(truths == 1, row, 1 - row), axis=1)

        def value(answer: np.ndarray, weights: np.ndarray = weights) -> float:
            below = answer.sum() + beta**2 * truths.sum(1)
            return float(weights @ ((1 + beta**2) * (truths @ answer) / np.maximum(below, 1e-12)))

        assert value(decided) >= max(map(value, truths)) - 1e-9


def test_of_very_many_classes_expected_f_beta_takes_the_most_probable():
    rng = np.random.default_rng(0)
    probs = np.full((5, 300), 0.001)
    probs[:, :10] = rng.uniform(0.3, 1, (5, 10))
    few, many = expected_decisions(probs[:, :40], FBeta(beta=2.0)), expected_decisions(probs, FBeta(beta=2.0))
    assert (many[:, :10] >= few[:, :10]).sum() >= 48 and not many[:, 10:].any()


# --- rules --------------------------------------------------------------------------------------------------


def test_an_empty_row_takes_the_label_nearest_to_its_threshold_where_it_must_have_one():
    probs, thresholds = np.array([[0.1, 0.3], [0.9, 0.2]]), np.array([0.15, 0.6])
    assert FittedRule(thresholds).decide(probs, FBeta(beta=2.0)).tolist() == [[0, 0], [1, 0]]
    assert FittedRule(thresholds, min_labels=1).decide(probs, FBeta(beta=2.0)).tolist() == [[1, 0], [1, 0]]


def test_limits_and_groups_hold_for_every_row():
    probs, _ = planetary(3, 500)
    fitted = FittedRule(np.full(8, 0.3), groups=((0, 1, 2), (5, 6)), min_labels=3, max_labels=4)
    decisions = fitted.decide(probs, FBeta(beta=2.0))
    assert set(decisions.sum(1).tolist()) <= {3, 4}
    grouped = FittedRule(np.full(8, 0.3), groups=((0, 1, 2), (5, 6))).decide(probs, FBeta(beta=2.0))
    assert (grouped[:, [0, 1, 2]].sum(1) == 1).all() and (grouped[:, [5, 6]].sum(1) == 1).all()
    assert (grouped[:, :3].argmax(1) == probs[:, :3].argmax(1)).all()  # equal thresholds


@pytest.mark.parametrize("extra", ["+exclusive+limits", "+limits+exclusive"])
def test_limits_leave_groups_as_they_are(extra: str):
    probs, targets = planetary(3, 300)
    decision = comp.decide(
        probs,
        targets,
        rule=f"global{extra}",
        exclusive=[(0, 1, 2), (5, 6)],
        settings=SearchSettings(n_trials=5),
    )
    decided = replace(decision.fitted, min_labels=4, max_labels=5).decide(probs, FBeta(beta=2.0))
    assert (decided[:, [0, 1, 2]].sum(1) == 1).all() and (decided[:, [5, 6]].sum(1) == 1).all()
    assert set(decided.sum(1).tolist()) <= {4, 5}


def test_probabilities_next_to_0_and_1_keep_their_order():
    fitted = FittedRule(np.full(2, 0.5), min_labels=1)
    assert fitted.decide(np.array([[1e-09, 1e-07], [1e-07, 1e-09]]), FBeta(beta=2.0)).tolist() == [
        [0, 1],
        [1, 0],
    ]
    assert shrunk_thresholds(np.array([1e-8]), 0.3, 1.0) == pytest.approx([1e-8])


def test_neighbouring_floats_and_negative_zeros_are_told_apart():
    near = np.array([[1.0], [np.nextafter(1.0, 0)], [0.3]])
    for probs in (near, np.array([[1.0], [np.nextafter(np.float32(1), np.float32(0))], [0.3]], np.float32)):
        targets = np.array([[1], [0], [0]], np.uint8)
        for thresholds in (
            class_thresholds(probs, targets, FBeta(beta=1.0, average="macro")),
            global_threshold(probs, targets, FBeta(beta=1.0, average="macro")),
        ):
            assert (probs > thresholds).ravel().tolist() == [True, False, False]
    probs = np.array([[-0.0], [0.4], [0.6]], np.float32)
    thresholds = class_thresholds(
        probs, np.array([[0], [1], [1]], np.uint8), FBeta(beta=1.0, average="macro")
    )
    assert (probs > thresholds).ravel().tolist() == [False, True, True]


def test_a_fitted_rule_survives_json():
    import json

    probs, targets = planetary(1, 400)
    classes = tuple("abcdefgh")
    for rule in ("shrunk+exclusive", "expected+temperature+limits", "prevalence"):
        fitted = comp.decide(probs, targets, rule=rule, exclusive=[(1, 2)]).fitted
        again = FittedRule.from_json(json.loads(json.dumps(fitted.as_json(classes))), classes)
        assert (again.decide(probs, FBeta(beta=2.0)) == fitted.decide(probs, FBeta(beta=2.0))).all()


def test_shrunk_half_way_is_half_way_in_logits():
    shrunk = shrunk_thresholds(np.array([0.9, 0.2]), 0.5, 0.5)
    assert logit(shrunk) == pytest.approx([logit(np.array(0.9)) / 2, logit(np.array(0.2)) / 2])
    assert shrunk_thresholds(np.array([0.9, 0.2]), 0.5, 1.0) == pytest.approx([0.9, 0.2])


def test_prevalence_gives_a_label_as_often_as_it_is_there():
    probs, targets = planetary(5, 1000)
    assert ((probs > prevalence_thresholds(probs, targets)).sum(0) == targets.sum(0)).all()


def test_prevalence_is_as_near_as_equal_probabilities_allow():
    probs = np.array([[1.0]] * 10 + [[0.2]] * 5)
    targets = np.array([[1]] * 9 + [[0]] * 6)
    assert (probs > prevalence_thresholds(probs, targets)).sum() == 10


def test_calibration_ends_at_the_optimum_from_far_away():
    from scipy.optimize import minimize

    rng = np.random.default_rng(0)
    targets = (rng.random((400, 1)) < 0.03).astype(np.uint8)
    probs = sigmoid((2 * targets - 1 + rng.normal(0, 1, targets.shape)) * 0.1 + 6)
    x, y = logit(probs)[:, 0], targets[:, 0]

    def loss(at: np.ndarray) -> float:
        z = x * at[0] + at[1]
        return float((np.logaddexp(0, z) - y * z).sum() + 5 * ((at[0] - 1) ** 2 + at[1] ** 2))

    slopes, offsets = calibration(probs, targets)
    best = minimize(loss, [1.0, 0.0], bounds=[(0.05, None), (None, None)]).fun
    assert loss(np.array([slopes[0], offsets[0]])) < best + 0.05


def test_calibration_finds_slopes_and_offsets_that_were_planted():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (40_000, 2))
    targets = (rng.random(logits.shape) < sigmoid(logits)).astype(np.uint8)
    distorted = sigmoid((logits - np.array([0.5, -1.0])) / np.array([2.0, 0.5]))
    slopes, offsets = calibration(distorted, targets)
    assert slopes == pytest.approx([2.0, 0.5], rel=0.05) and offsets == pytest.approx([0.5, -1.0], abs=0.06)


def test_the_win_probability_is_that_of_a_bootstrap_by_hand():
    probs, targets = planetary(2, 600)
    better, worse = (probs > 0.3).astype(np.uint8), (probs > 0.36).astype(np.uint8)
    for average in AVERAGES:
        rng = np.random.default_rng(1)
        wins = []
        for _ in range(400):
            rows = rng.integers(0, len(probs), len(probs))
            a, b = (FBeta(beta=2.0, average=average).score(targets[rows], d[rows]) for d in (better, worse))
            wins.append((a > b) + 0.5 * (a == b))
        found = win_probability(better, worse, targets, FBeta(beta=2.0, average=average))
        assert found == pytest.approx(np.mean(wins), abs=0.08)
        assert win_probability(worse, better, targets, FBeta(beta=2.0, average=average)) == pytest.approx(
            1 - found, abs=0.08
        )


# --- cross-fitting ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [*RULES, "shrunk+limits", "global+exclusive", "expected+temperature+limits"])
def test_no_fold_is_decided_by_a_rule_that_has_seen_it(rule: str):
    probs, targets = planetary(2, 90)
    folds = np.arange(90) % 3

    def by_fold(targets: np.ndarray) -> list[str]:
        fitter = CrossFitter(
            probs,
            targets,
            folds,
            FBeta(beta=2.0, average="samples"),
            groups=[(0, 1)],
            settings=SearchSettings(n_trials=6),
        )
        return [str(fitted.as_json("abcdefgh")) for fitted in fitter.score(rule).by_fold]

    before = by_fold(targets)
    targets[folds == 1] = np.random.default_rng(0).permutation(targets[folds == 1].ravel()).reshape(30, -1)
    after = by_fold(targets)
    assert before[1] == after[1]
    if rule not in ("0.5", "0.2", "0.5+limits"):
        assert before[0] != after[0] or before[2] != after[2]


def test_one_empty_row_does_not_change_how_its_own_fold_is_decided():
    probs, targets = planetary(2, 90)
    folds = np.arange(90) % 3
    before = decide(probs, targets, rule="global", folds=folds).scored[0].by_fold
    targets[1] = 0
    after = decide(probs, targets, rule="global", folds=folds).scored[0].by_fold
    assert [fitted.min_labels for fitted in before] == [1, 1, 1]
    assert [fitted.min_labels for fitted in after] == [0, 1, 0]


def best_of(seen: list, true: np.ndarray):
    return max(seen, key=lambda candidate: candidate.cross_fitted)


def test_the_score_of_a_choice_is_not_that_of_the_luckiest():
    rng = np.random.default_rng(0)
    flattery = []
    for seed in range(12):
        probs, targets = planetary(seed, 150)
        folds = np.arange(150) % 5
        fitter = CrossFitter(probs, targets, folds, FBeta(beta=2.0, average="samples"), min_labels=1)
        reference = fitter.score("global")
        lucky = []
        for _ in range(20):  # as good as each other: the same decisions, some of them changed at random
            decisions = np.where(
                rng.random(targets.shape) < 0.03, 1 - reference.decisions, reference.decisions
            )
            score = FBeta(beta=2.0, average="samples").score(targets, decisions)
            lucky.append(replace(reference, decisions=decisions, cross_fitted=score))
        score_of_choice = cross_fit_choice(
            lucky, targets, folds, best_of, FBeta(beta=2.0, average="samples")
        ).score
        expected = np.mean([w.cross_fitted for w in lucky])
        flattery.append((max(w.cross_fitted for w in lucky) - expected, score_of_choice - expected))
    luckiest, cross_fitted = np.mean(flattery, axis=0)
    assert luckiest > 0.008 and abs(cross_fitted) < luckiest / 3


def test_auto_is_not_below_the_popular_grid_on_rows_that_it_has_not_seen_and_its_score_can_be_believed():
    gains, errors = [], []
    for seed in range(8):
        probs, targets = planetary(seed, 3000)
        seen, rest = slice(0, 1500), slice(1500, None)
        decision = comp.decide(probs[seen], targets[seen], settings=SearchSettings(seed=seed))
        held_out = FBeta(beta=2.0, average="samples").score(targets[rest], decision.predict(probs[rest]))
        thresholds = np.full(8, 0.2)
        for c in range(8):
            scores = []
            for t in range(1, 100):
                thresholds[c] = t / 100
                scores.append(
                    FBeta(beta=2.0, average="samples").score(targets[seen], probs[seen] > thresholds)
                )
            thresholds[c] = (1 + int(np.argmax(scores))) / 100
        gains.append(
            held_out - FBeta(beta=2.0, average="samples").score(targets[rest], probs[rest] > thresholds)
        )
        errors.append(decision.scores["cross_fitted"] - held_out)
        assert decision.scores["in_sample"] >= decision.scores["cross_fitted"] - 0.003
    assert np.mean(gains) >= 0 and min(gains) > -0.004
    assert abs(np.mean(errors)) < 0.004


def test_of_rules_within_noise_the_reference_rule_is_kept():
    probs, targets = planetary(0, 400)
    fitter = CrossFitter(probs, targets, np.arange(400) % 4, FBeta(beta=2.0, average="samples"), min_labels=1)
    scored = [fitter.score(rule) for rule in ("0.5", "global", "shrunk", "per-class")]
    chosen, probability = choose_rule(scored, targets, FBeta(beta=2.0, average="samples"))
    assert probability["shrunk"] == 0.5 and probability["0.5"] < 0.2
    assert chosen.rule == "shrunk" or probability[chosen.rule] > 0.8


def test_optuna_starts_from_the_exact_solution_and_keeps_its_studies(tmp_path: Path):
    probs, targets = planetary(4, 300)
    path = tmp_path / "study.log"

    def fit() -> np.ndarray:
        return comp.decide(
            probs, targets, rule="optuna", settings=SearchSettings(n_trials=12, storage=path, name="x")
        ).fitted.thresholds

    first = fit()
    start = global_threshold(probs, targets, FBeta())
    exact = class_thresholds(probs, targets, FBeta(), start=start)
    value = [FBeta(beta=2.0, average="samples").score(targets, probs > t) for t in (first, exact)]
    assert value[0] >= value[1] - 1e-9
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    studies = {s.study_name: s.n_trials for s in optuna.get_all_study_summaries(storage)}
    assert set(studies.values()) == {12} and len(studies) == 6  # all rows, and without each of 5 folds
    assert fit().tolist() == first.tolist()  # its trials are there already
    assert {s.n_trials for s in optuna.get_all_study_summaries(storage)} == {12}


def parabola(trial: optuna.Trial) -> float:
    time.sleep(0.01)
    return -((trial.suggest_float("x", 0, 1) - 0.7) ** 2)


def search_in(path: Path) -> None:
    search(parabola, [{"x": 0.0}], n_trials=40, seed=os.getpid(), storage=path, name="shared")


def test_processes_share_a_study_and_one_that_is_killed_costs_a_trial(tmp_path: Path):
    spawn, path = multiprocessing.get_context("spawn"), tmp_path / "study.log"
    workers = [spawn.Process(target=search_in, args=(path,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    while not path.exists() or path.read_text().count('"x"') < 5:
        time.sleep(0.02)
    workers[0].kill()
    for worker in workers:
        worker.join(60)
    search_in(path)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    study = optuna.load_study(study_name="shared", storage=storage)
    complete = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    assert 40 <= len(complete) <= 40 + 2  # those that others were at when the last one ended
    assert abs(study.best_params["x"] - 0.7) < 0.1


def test_what_a_kill_leaves_of_a_study_is_gone_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(optuna_journal, "LOCK_GRACE", 0.5)
    path = Path("runs/x/study.log")
    first = search(parabola, [{"x": 0.2}], n_trials=5, seed=0, storage=path, name="killed")
    with path.open("a") as file:
        file.write('{"op_code": 4, "tri')  # a line that was not finished
    path.with_name("study.log.lock").symlink_to("study.log")  # a lock that was not given back
    assert search(parabola, [{"x": 0.2}], n_trials=5, seed=0, storage=path, name="killed") == first
    assert search(parabola, [{"x": 0.7}], n_trials=5, seed=0, storage=path, name="killed") == {"x": 0.7}
    delete_studies(path, "kill")
    assert search(parabola, [], n_trials=1, seed=1, storage=path, name="killed") != {"x": 0.7}


def test_a_process_that_dies_at_its_start_does_not_cost_the_exact_solution(tmp_path: Path):
    probs, targets = planetary(4, 300)
    settings = SearchSettings(n_trials=3, storage=tmp_path / "study.log")
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    )
    elsewhere = replace(settings, storage=tmp_path / "other.log")
    alone = comp.decide(probs, targets, rule="optuna", settings=elsewhere)
    other = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "other.log"))
    )
    for name in optuna.get_all_study_names(other):  # trials that nobody will finish
        study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
        study.enqueue_trial({f"t{c}": 0.5 for c in range(8)})
        study.ask()
    again = comp.decide(probs, targets, rule="optuna", settings=settings)
    assert again.scores["in_sample"] >= alone.scores["in_sample"] - 1e-9


def test_the_temperature_is_the_one_that_held_out_folds_like():
    probs, targets = planetary(3, 400)
    folds = np.arange(400) % 4
    fitter = CrossFitter(
        probs,
        targets,
        folds,
        FBeta(beta=2.0, average="samples"),
        min_labels=1,
        settings=SearchSettings(n_trials=12),
    )
    found = fitter.fit("expected+temperature")

    def value(temperature: float) -> float:
        decided = np.zeros_like(targets)
        for fold in range(4):
            fitted = replace(fitter.fit("expected", frozenset({fold})), temperature=temperature)
            decided[folds == fold] = fitted.decide(probs[folds == fold], FBeta(beta=2.0))
        return FBeta(beta=2.0, average="samples").score(targets, decided)

    assert found.temperature != 1.0 and value(found.temperature) >= value(1.0)
    logits = logit(probs) * found.slopes + found.offsets
    assert found.calibrated(probs) == pytest.approx(sigmoid(logits / found.temperature))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probs": np.full((4, 2), 1.5)}, "are they logits"),
        ({"probs": np.zeros(4)}, r"\(images, classes\)"),
        ({"targets": np.zeros((4, 3))}, "in the shape of probs"),
        ({"targets": np.full((4, 2), 2)}, "0/1 in the shape"),
        ({"metric": FBeta(average="weighted")}, "samples, macro or micro"),
        ({"rule": "best"}, "no rule 'best'; there are 0.5"),
        ({"rule": "shrunk+temperature"}, r"'shrunk\+temperature'"),
        ({"folds": [0, 1]}, "folds are 2 for 4 rows"),
        ({"exclusive": [(0, 5)]}, "names column 5"),
        ({"exclusive": [(0, 1), (1, 0)]}, "groups that overlap"),
        ({"exclusive": [0, 1]}, "groups of two columns or more"),
        ({"exclusive": [()]}, "groups of two columns or more"),
        ({"rule": "global+exclusive"}, "needs groups"),
        ({"rule": None}, "a rule's name"),
        ({"folds": [0, 1, np.nan, 1]}, "folds lack 1 of 4"),
        ({"folds": np.zeros((4, 1))}, r"folds are \(4, 1\)"),
        ({"metric": FBeta(np.inf)}, "up to 1000"),
        ({"metric": FBeta("2")}, "up to 1000"),
        ({"probs": np.array([["a", "b"]] * 4)}, "are not numbers"),
        ({"metric": FBeta(0)}, "a number above 0"),
    ],
)
def test_input_that_does_not_fit_is_refused_in_words(change: dict, message: str):
    arguments = {"probs": np.full((4, 2), 0.3), "targets": np.eye(4, 2, dtype=int), **change}
    with pytest.raises(CompError, match=message):
        comp.decide(**arguments)


def test_probabilities_of_other_classes_are_refused():
    decision = comp.decide(*planetary(0, 60))
    with pytest.raises(CompError, match="probs have 1 classes; the rule was fitted to 8"):
        decision.predict(np.full((3, 1), 0.5))

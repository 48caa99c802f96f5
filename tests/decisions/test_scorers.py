"""Every metric equals scikit-learn's, or a definition written out."""

import numpy as np
import pytest
from sklearn import metrics as sk

from comp.config.metric import ANSWERS, Metric
from comp.decisions.metrics import most_probable
from comp.decisions.scorers import scorer_of

N, C = 300, 5
rng = np.random.default_rng(0)
PROBS = rng.random((N, C))
MANY = (rng.random((N, C)) < 0.3 + 0.3 * PROBS).astype(np.uint8)
ONE = np.eye(C, dtype=np.uint8)[rng.integers(0, C, N)]
NUMBERS, GUESSES = rng.normal(size=(N, 2)), rng.normal(size=(N, 2))


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(1, keepdims=True)


CASES = {
    "roc_auc": (MANY, PROBS, {}, lambda t, a: sk.roc_auc_score(t, a, average="macro")),
    "roc_auc micro": (MANY, PROBS, {"average": "micro"}, lambda t, a: sk.roc_auc_score(t.ravel(), a.ravel())),
    "average_precision": (MANY, PROBS, {}, lambda t, a: sk.average_precision_score(t, a, average="macro")),
    "log_loss": (MANY, PROBS, {}, lambda t, a: np.mean([sk.log_loss(x, y) for x, y in zip(t.T, a.T)])),
    "log_loss one": (ONE, softmax(PROBS), {}, lambda t, a: sk.log_loss(t.argmax(1), a)),
    "balanced_accuracy": (
        ONE, most_probable(PROBS), {}, lambda t, a: sk.balanced_accuracy_score(t.argmax(1), a.argmax(1)),
    ),
    "quadratic_kappa": (
        ONE, most_probable(PROBS), {},
        lambda t, a: sk.cohen_kappa_score(t.argmax(1), a.argmax(1), weights="quadratic"),
    ),
    "top_k_error": (ONE, PROBS, {"k": 2}, lambda t, a: 1 - sk.top_k_accuracy_score(t.argmax(1), a, k=2)),
    "rmse": (NUMBERS, GUESSES, {}, sk.root_mean_squared_error),
    "mae": (NUMBERS, GUESSES, {}, sk.mean_absolute_error),
    "r2": (NUMBERS, GUESSES, {}, sk.r2_score),
    "within": (NUMBERS, GUESSES, {"tolerance": 0.5}, lambda t, a: np.mean(np.abs(t - a) <= 0.5)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_metric_equals_scikit_learns(case):
    targets, answers, keys, expected = CASES[case]
    scorer = scorer_of(Metric(name=case.split()[0], **keys), single=targets is ONE)
    assert scorer.score(targets, answers) == pytest.approx(expected(targets, answers), abs=1e-12)
    assert scorer.answer == ANSWERS[case.split()[0]]


def test_map_at_k_is_the_mean_over_places_of_true_labels():
    def by_hand(true, answer, k):
        order = np.argsort(-answer, kind="stable")[:k]
        hits, total = 0, 0.0
        for place, c in enumerate(order, 1):
            if true[c]:
                hits += 1
                total += hits / place
        return total / min(max(int(true.sum()), 1), k)

    for targets in (ONE, MANY):
        scorer = scorer_of(Metric(name="map_at_k", k=3))
        expected = np.mean([by_hand(t, a, 3) for t, a in zip(targets, PROBS)])
        assert scorer.score(targets, PROBS) == pytest.approx(expected)


def test_probabilistic_f1_of_decisions_is_f1():
    chosen = (PROBS > 0.5).astype(float)
    scorer = scorer_of(Metric(name="probabilistic_fbeta", beta=1))
    assert scorer.score(MANY, chosen) == pytest.approx(sk.f1_score(MANY, chosen, average="macro"))


def test_weights_weigh_columns():
    weights = [2.0, 1, 1, 0, 1]
    scorer = scorer_of(Metric(name="log_loss"), weights=weights)
    columns = [sk.log_loss(t, p) for t, p in zip(MANY.T, PROBS.T)]
    assert scorer.score(MANY, PROBS) == pytest.approx(np.average(columns, weights=weights))


def test_a_class_without_both_values_is_left_out_of_the_mean():
    targets = MANY.copy()
    targets[:, 2] = 0
    scorer = scorer_of(Metric(name="roc_auc"))
    kept = [0, 1, 3, 4]
    expected = sk.roc_auc_score(targets[:, kept], PROBS[:, kept])
    assert scorer.score(targets, PROBS) == pytest.approx(expected)
    assert np.isnan(scorer.per_class(targets, PROBS)[2])


def test_unknown_targets_are_left_out():
    targets = MANY.astype(np.float32)
    targets[::3, 1] = np.nan
    scorer = scorer_of(Metric(name="roc_auc"))
    known = ~np.isnan(targets[:, 1])
    assert scorer.per_class(targets, PROBS)[1] == pytest.approx(
        sk.roc_auc_score(targets[known, 1], PROBS[known, 1])
    )


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"name": "auc"}, "did you mean 'roc_auc'"),
        ({"name": "roc_auc", "beta": 1}, "goes with fbeta"),
        ({"name": "mine.py:score"}, "metric.answer"),
        ({"name": "rmse", "answer": "numbers"}, "metric of your own"),
        ({"name": "roc_auc", "average": "samples"}, "macro"),
        ({"name": "log_loss", "weights": {"any": -1}}, "below 0"),
    ],
)
def test_keys_of_another_metric_are_refused(keys, words):
    with pytest.raises(ValueError, match=words):
        Metric(**keys)


def test_stamps_of_fbeta_and_accuracy_are_as_ever():
    assert Metric().stamp == {"beta": 2.0, "average": "samples"}
    assert (
        Metric(average="accuracy").stamp
        == Metric(name="accuracy").stamp
        == {"beta": 1.0, "average": "samples"}
    )
    assert Metric(zero_division=1).model_dump() == {"beta": 2.0, "average": "samples", "zero_division": 1}
    again = Metric.model_validate(Metric(name="log_loss", weights={"any": 2}).stamp)
    assert again == Metric(name="log_loss", weights={"any": 2})

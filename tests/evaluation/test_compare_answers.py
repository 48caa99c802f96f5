"""Runs beside each other where the answer is no label: which way is better, and what is shown."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from comp.commands.compare import show_classes, show_errors, show_scores, show_verdicts
from comp.config.metric import Metric
from comp.data.labels import Labels
from comp.decisions.calibration import sigmoid
from comp.decisions.class_scores import own_scores
from comp.decisions.metrics import most_probable
from comp.decisions.scorers import scorer_of
from comp.errors import CompError
from comp.evaluation.comparison import Comparison, compare, error_correlation, n_resamples
from comp.evaluation.joined_runs import JoinedRuns, check_answers
from comp.plots.comparison import draw

N = 400
METRICS = ("roc_auc", "log_loss", "quadratic_kappa", "map_at_k", "top_k_error", "rmse", "mae", "r2")
LOWER = ("log_loss", "top_k_error", "rmse", "mae")


def drawn(name: str, n_classes: int = 3, noise: tuple[float, ...] = (1.5, 0.7, 3.0)) -> JoinedRuns:
    """Three runs: the second is better than the first, the third worse."""
    rng = np.random.default_rng(0)
    metric = Metric(name=name, k=1) if name in ("map_at_k", "top_k_error") else Metric(name=name)
    targets = np.eye(n_classes, dtype=np.uint8)[rng.integers(n_classes, size=N)]
    seen = np.stack([3.0 * targets + rng.normal(0, size, targets.shape) for size in noise])
    probs = sigmoid(seen - 1.5) if metric.kind == "probabilities" else seen
    if metric.kind in ("grades", "ranking"):
        probs = np.exp(seen) / np.exp(seen).sum(-1, keepdims=True)
    answers = [most_probable(p) if metric.kind == "grades" else p for p in probs]
    classes = tuple(f"c{i}" for i in range(n_classes))
    scorer: Any = scorer_of(metric, single=metric.kind in ("grades", "ranking"))
    runs: Any = tuple(
        SimpleNamespace(name=run, rule="as-is", metric=metric, scorer=scorer, classes=classes)
        for run in ("first", "better", "worse")
    )
    labels = Labels(np.arange(N).astype(str), classes, targets)
    known = 3.0 * targets if metric.kind == "numbers" else targets
    return JoinedRuns(runs, labels, known, probs, answers)


def shown(joined: JoinedRuns, result: Comparison) -> None:
    letters = list("ABC")
    show_scores(joined.runs, result, letters)
    show_classes(joined, result, letters)
    show_errors(result, letters, numbers=joined.scorer.answer == "numbers")
    show_verdicts([run.name for run in joined.runs], result)


@pytest.mark.parametrize("name", METRICS)
def test_better_is_better_whichever_way_the_metric_goes(name: str, capsys: pytest.CaptureFixture[str]):
    joined = drawn(name)
    result = compare(joined)
    shown(joined, result)
    printed = capsys.readouterr().out
    assert ("lower is better" in printed) == (name in LOWER)
    better, worse = printed.splitlines()[-2:]
    assert better.startswith("better: ") and better.endswith(": better than first")
    assert worse.startswith("worse: ") and worse.endswith(": worse than first")
    assert better.split()[1][0] == ("-" if name in LOWER else "+")
    cells = [line.split() for line in printed.splitlines()]
    beats = {row[1]: row[-2] for row in cells if row[:1] in (["B"], ["C"]) and row[1] != "+"}
    assert beats == {"better": "100%", "worse": "0%"}
    assert "mAP" not in printed.replace("MAP@1", "") and ("log loss" in printed) == (name == "log_loss")
    c0 = next(line for line in printed.splitlines() if line.startswith("c0"))
    assert c0.split()[3].endswith("*")  # the second run


def test_a_pair_is_measured_by_the_metric_against_the_better_of_the_two():
    joined = drawn("log_loss")
    result = compare(joined)
    scorer, mean = joined.scorer, joined.probs[:2].mean(0)
    assert result.pairs[0].scores == (pytest.approx(scorer.score(joined.targets, mean)),)
    assert result.pairs[0].gains[0] == pytest.approx(result.pairs[0].scores[0] - result.values[1])


def test_unknown_targets_and_units_do_not_change_the_correlation_of_errors():
    rng = np.random.default_rng(0)
    targets = rng.normal(0, [1, 1000], (N, 2))
    common = rng.normal(0, 1, targets.shape)
    members = targets + targets.std(0) * np.stack([common + rng.normal(0, 1, targets.shape) for _ in "ab"])
    spread = targets.std(0)
    assert error_correlation(members, targets, spread)[0, 1] == pytest.approx(0.5, abs=0.1)
    lacking = np.where(rng.random(targets.shape) < 0.3, np.nan, targets)
    assert error_correlation(members, lacking, spread)[0, 1] == pytest.approx(0.5, abs=0.1)


def test_of_very_many_classes_those_with_most_images_are_shown(capsys: pytest.CaptureFixture[str]):
    joined = drawn("map_at_k", 200)
    show_classes(joined, compare(joined), list("ABC"))
    lines = capsys.readouterr().out.splitlines()
    assert "by class, for the 60 of 200 with most images; * marks the best" in lines
    counts = joined.targets.sum(0)
    images = [int(line.split()[1]) for line in lines if line.startswith("c") and line[1].isdigit()]
    assert len(images) == 60 and min(images) >= np.sort(counts)[-60]


def test_runs_that_nothing_scores_alike_are_refused():
    numbers, labels = (drawn(name).runs[0] for name in ("rmse", "roc_auc"))
    with pytest.raises(CompError, match="x answers with numbers, first with probabilities; nothing scores"):
        check_answers("x", numbers.metric, numbers.classes, labels)
    with pytest.raises(CompError, match=r"x has the classes 2 \(c0, c1\), first 3"):
        check_answers("x", labels.metric, ("c0", "c1"), labels)


@pytest.mark.parametrize("name", ["log_loss", "rmse"])
def test_the_picture_says_which_way_is_better(name: str, tmp_path, monkeypatch: pytest.MonkeyPatch):
    drawn_texts: list[str] = []

    def keep(figure: Any, path: Any) -> None:
        drawn_texts.extend(panel.get_xlabel() for panel in figure.axes)

    monkeypatch.setattr("comp.plots.comparison.save", keep)
    joined = drawn(name)
    result = compare(joined)
    names = [run.name for run in joined.runs]
    draw(
        tmp_path / "c.png", names, result.values, result.resamples, result.correlation, "t", name, result.sign
    )
    assert "better  ←  0  →  worse" in drawn_texts


def test_a_metric_without_scores_of_classes_shows_its_kinds_usual_one():
    joined = drawn("rmse")
    code = {"own.py": "def worst(targets, answers):\n    return abs(targets - answers).max()\n"}
    own = Metric(name="own.py:worst", answer="numbers", greater_is_better=False)
    found = own_scores(scorer_of(own, code=code), joined.targets, joined.decisions[0])
    assert (found.name, found.sign) == ("RMSE", -1)
    assert found.values == pytest.approx(
        own_scores(joined.scorer, joined.targets, joined.decisions[0]).values
    )


def test_many_images_are_resampled_less_often_where_that_takes_long():
    auc, kappa, ranked = (scorer_of(Metric(name=name)) for name in ("roc_auc", "quadratic_kappa", "map_at_k"))
    assert n_resamples(auc, 3000) == n_resamples(kappa, 3000) == n_resamples(ranked, 10**9) == 4000
    assert 400 < n_resamples(auc, 500_000) < 1000
    assert n_resamples(scorer_of(Metric(name="roc_auc", average="micro")), 3000) == 400

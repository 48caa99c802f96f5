"""The end of `comp run`, and `comp runs`: which classes and runs are best by the metric's direction."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from comp.commands import run as run_stage
from comp.commands import runs
from comp.config.metric import Metric
from comp.decisions.scorers import scorer_of
from comp.errors import CompError

CLASSES = ("a", "b", "c", "rare")


def recipe(name: str, metric: str, **more: Any) -> Any:
    competition = SimpleNamespace(name="drawn", metric=Metric(name=metric))
    return SimpleNamespace(name=name, competition=competition, members=(), **more)


@pytest.mark.parametrize(("metric", "best", "worst"), [("log_loss", "b", "c"), ("roc_auc", "b", "c")])
def test_the_summary_names_the_best_classes_by_the_metric(
    metric: str, best: str, worst: str, monkeypatch: pytest.MonkeyPatch
):
    rng = np.random.default_rng(0)
    targets = (rng.random((200, 4)) < [0.4, 0.4, 0.4, 0]).astype(np.uint8)
    probs = np.clip(
        0.5 + (targets - 0.5) * [0.5, 0.9, 0.1, 0.5] + rng.normal(0, 0.1, targets.shape), 0.01, 0.99
    )
    results = SimpleNamespace(
        scorer=scorer_of(Metric(name=metric)),
        targets=targets,
        decisions=probs,
        labels=SimpleNamespace(classes=CLASSES),
    )
    one = SimpleNamespace(cross_fitted=0.5, corrected=None, public=None, private=None, seconds=1.0)
    monkeypatch.setattr("comp.evaluation.results.read_results", lambda _: results)
    monkeypatch.setattr(run_stage, "summarize_run", lambda *_: one)
    monkeypatch.setattr(run_stage.ledger, "read", list)
    known = run_stage._summary(recipe("x", metric))
    assert next(iter(known["best"])) == best
    shown = run_stage._of_classes(known, Metric(name=metric))
    name = {"log_loss": "log loss", "roc_auc": "AUC"}[metric]
    assert [line[0] for line in shown] == [f"best classes, {name}", f"worst classes, {name}"]
    if metric == "roc_auc":  # not defined for a class without images
        assert list(known["worst"]) == [worst]


def test_runs_are_ranked_among_those_of_their_metric(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def run(name: str, metric: str, score: float | None) -> Any:
        return SimpleNamespace(
            recipe=recipe(name, metric), backbones="net", sizes="32", n_done=1, n_networks=1, seconds=1.0,
            cross_fitted=score, corrected=None, public=None, private=None,
        )  # fmt: skip

    found = [
        run("one", "log_loss", 0.4), run("two", "log_loss", 0.3), run("auc", "roc_auc", 0.8),
        run("begun", "log_loss", None), run("better", "roc_auc", 0.9),
    ]  # fmt: skip
    monkeypatch.setattr(runs, "summarize_runs", lambda _: found)
    monkeypatch.setattr(runs.ledger, "read", list)
    runs.run(by="score")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("runs:", "run", "two", "one", "begun"), *("runs:", "run", "better", "auc"),
    ]  # fmt: skip
    assert [line.split()[-1] for line in lines if line.split()[0] in ("two", "one", "better", "auc")] == [
        *("1", "2"), *("1", "2"),
    ]  # fmt: skip


def test_a_method_that_does_not_suit_is_refused_before_a_stage_runs():
    blended = recipe("mix", "log_loss")
    blended.members = (recipe("a", "log_loss"), recipe("b", "log_loss"))
    with pytest.raises(CompError, match="--how ranks does not suit log loss"):
        run_stage.run(
            blended, stages={"train": pytest.fail}, send=False, options={"how": "ranks"}, force=False
        )

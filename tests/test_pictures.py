"""What is true of every picture: no text is cut off or lies over another, and names are shown."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from comp.config.loading import load_recipe
from comp.decisions.bootstrap import gains_by_class, interval
from comp.decisions.metrics import FBeta
from comp.decisions.rules import FittedRule
from comp.evaluation.card import Card, card_of
from comp.evaluation.results import RunResults
from comp.plots import card as card_plot
from comp.plots.comparison import new_comparison
from comp.plots.decision import Shown, new_picture
from comp.plots.ledger import new_ledger
from comp.plots.lr_finder import new_curve
from comp.plots.thresholds import flat_top
from comp.plots.tuning import new_trials
from comp.training.log_columns import LogColumns
from comp.tuning.pruning import make_pruner
from comp.tuning.study import SharedStudy
from tests.evaluation.test_report_answers import KINDS, results_of

SLACK = 1.0  # pixels


def check_texts(figure: Figure) -> list[str]:
    """Assert that all texts lie within the figure, and that neither texts of the figure nor tick labels of an
    axis lie over each other. Return the texts."""
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * figure.dpi
    shown = [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible()]
    hidden = {id(t) for axes in figure.axes if not axes.axison for t in axes.findobj(Text)}
    hidden -= {id(t) for axes in figure.axes for t in (*axes.texts, axes.title, axes._left_title)}
    axis_of = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    of_ticks = {
        id(text)
        for axis in axis_of
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for text in (tick.label1, tick.label2)
    }
    ticks = [_labels(axis) for axis in axis_of if axis.axes.axison]
    drawn = [t for t in shown if id(t) not in hidden | of_ticks] + [t for part in ticks for t in part]
    for text in drawn:
        box = text.get_window_extent()
        assert box.x0 >= -SLACK and box.y0 >= -SLACK, text.get_text()
        assert box.x1 <= width + SLACK and box.y1 <= height + SLACK, text.get_text()
    for group in [list(figure.texts), *ticks]:
        boxes = [text.get_window_extent().padded(-SLACK) for text in group if text.get_text().strip()]
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:i]), group[i].get_text()
    return [text.get_text() for text in drawn]


def _labels(axis: Axis) -> list[Text]:
    """Return the tick labels that are within the view."""
    low, high = sorted(axis.get_view_interval())
    inside = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [tick.label1 for tick in inside if tick.label1.get_visible() and tick.label1.get_text().strip()]


# --- the card


def long_lines(card: Card) -> Card:
    curve = (np.arange(1, 9.0), np.linspace(0.5, 0.9, 8))
    return replace(
        card, name="a-run-" + "x" * 80, about=["A competition with a very long title " * 4, card.about[0]],
        board=[("public", "0.93012"), ("private", "0.92877")], curves=[curve] * 2, curve_title="held-out",
        score_title="a metric of one's own with a long name " * 3,
    )  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunResults:
    return results_of(request.param, tmp_path_factory.mktemp("drawn"))[0]


def test_a_card_of_any_answer_can_be_read(results: RunResults):
    rows = [{"recipe": results.recipe.name, "public": "0.91", "private": ""}]
    card = card_of(results, [], rows)
    texts = check_texts(card_plot.new_card(card))
    assert f"{results.decision['scores']['cross_fitted']:.4f}" in texts
    assert "public leaderboard" in texts and "private leaderboard" not in texts
    assert (
        sum(text.startswith("true: ") for text in texts)
        == sum(t.startswith("predicted: ") for t in texts)
        == 6
    )


def test_the_card_has_1200_by_630_pixels_and_the_best_and_the_worst_labels(tmp_path: Path):
    results, _ = results_of("ranking", tmp_path)
    card = card_of(results, [], [])
    check_texts(card_plot.new_card(long_lines(card)))
    card_plot.draw(card, tmp_path / "card.png")
    assert Image.open(tmp_path / "card.png").size == (1200, 630)
    values = [value for _, value in card.classes]
    of_all = results.scorer.per_class(results.targets, results.decisions)
    assert values == sorted(values, reverse=True) and len(values) == 8
    assert values[0] == np.nanmax(of_all) and values[-1] == np.nanmin(of_all)
    assert card.n_left_out == int(np.isfinite(of_all).sum()) - 8 and not card.board


# --- the decision


def test_the_picture_of_any_decision_names_the_score_and_can_be_read(results: RunResults):
    rows = results.probs, results.targets, results.decisions
    by_fold = np.array(
        [getattr(r, "thresholds", getattr(r, "cut_points", None)) for r in results.rules.values()]
    )
    without = None if by_fold.dtype == object else by_fold
    shown = Shown("shrunk", results.fitted, without, results.scorer, results.labels.classes, *rows)
    texts = check_texts(new_picture(shown))
    assert any(f"{results.scorer.score(results.targets, results.decisions):.4f}" in text for text in texts)


def test_gains_are_those_of_each_label_with_intervals_around_them(tmp_path: Path):
    rng = np.random.default_rng(0)
    targets = (rng.random((600, 3)) < (0.5, 0.2, 0.1)).astype(np.uint8)
    probs = np.clip(0.35 * targets + 0.3 * rng.random((600, 3)), 0, 1)
    probs[:, 2] = rng.random(600) * 0.2  # never above either threshold
    better, worse = (probs > 0.3).astype(np.uint8), (probs > 0.5).astype(np.uint8)
    gains = gains_by_class(better, worse, targets, 2.0)
    alone = FBeta(2.0, "macro")
    found = alone.per_class(targets, better) - alone.per_class(targets, worse)
    for c in range(3):
        low, high = interval(gains[:, c])
        assert low - 1e-9 <= found[c] <= high + 1e-9
    assert found[0] > 0.2 and gains[:, 0].min() > 0 and not gains[:, 2].any()
    decision = new_picture(
        Shown("global", FittedRule(np.full(3, 0.3)), np.full((3, 3), 0.3), FBeta(2.0), ("a", "b", "c"),
              probs, targets, better)
    )  # fmt: skip
    assert [text.get_text() for text in decision.axes[0].get_yticklabels()][-1].startswith("c")


def test_a_flat_top_is_the_range_of_thresholds_that_hardly_lose(tmp_path: Path):
    rng = np.random.default_rng(1)
    targets = (rng.random(400) < 0.3).astype(np.uint8)
    probs = np.clip(0.4 * targets + 0.6 * rng.random(400), 0, 1)
    metric = FBeta(2.0, "macro")

    def score(threshold: float) -> float:
        return float(metric.per_class(targets[:, None], (probs >= threshold)[:, None].astype(np.uint8))[0])

    low, high = flat_top(probs, targets, metric)
    best = max(score(p) for p in probs)
    assert low < high and all(score(p) >= best - 0.0100001 for p in probs if low <= p <= high)
    below, above = probs[probs < low].max(), probs[probs > high].min()
    assert score(below) < best - 0.01 and score(above) < best - 0.01


# --- the others


def test_the_ledger_has_dates_and_the_comparison_its_runs_by_score():
    shared = {"competition": "planet", "private": ""}
    rows = [
        {
            "name": f"run-{i}",
            "cross_fitted": f"{0.9 + 0.01 * i}",
            "public": f"{0.9 + 0.011 * i}",
            "time": f"2017-07-{3 + 2 * i:02}T09:00:00.000+00:00",
        }
        | shared
        for i in range(4)
    ]
    texts = check_texts(new_ledger(rows))
    assert "run-2, 7 Jul" in texts and "written (UTC, 2017)" in texts
    assert "3 Jul\n09:00" in check_texts(new_ledger(rows[:1]))
    assert not new_ledger([{**rows[0], "time": "some day"}]).axes[0].axison
    check_texts(new_ledger([{**row, "time": f"201{i}-07-03T09:00:00+00:00"} for i, row in enumerate(rows)]))
    names, values = ["first", "better", "worse"], [0.9, 0.92, 0.88]
    resamples = np.array(values) + np.random.default_rng(0).normal(0, 0.003, (200, 3))
    figure = new_comparison(names, values, resamples, np.full((3, 3), 0.9), "planet", "samples F2")
    check_texts(figure)
    order = [
        text.get_text()
        for text in sorted(figure.axes[0].get_yticklabels(), key=lambda t: -t.get_position()[1])
    ]
    assert order == ["better", "first", "worse"]
    loss = new_comparison(names, values, resamples, np.full((3, 3), 0.9), "planet", "log loss", -1)
    assert [t.get_text() for t in loss.axes[0].get_yticklabels()][0] == "worse"  # a lower loss is better
    assert "paired difference to first" in loss.axes[1].get_title("left")


def test_rates_are_numbers_that_can_be_read(here: Path):
    recipe = load_recipe("tiny.toml")
    for low, high in ((1e-6, 1.0), (1e-3, 5e-3)):
        rates = np.geomspace(low, high, 30)
        losses = 1 + np.linspace(-1, 1, 30) ** 2
        content: dict[str, Any] = {"rates": rates, "losses": losses, "smooth": losses, "phase": 0}
        figure = new_curve(recipe, content | {"suggested": low * 3, "lowest": high / 2})
        check_texts(figure)
        ticks = {text.get_text(): text.get_position()[0] for text in _labels(figure.axes[0].xaxis)}
        assert len(ticks) >= 3
        assert all(float(text) == pytest.approx(rate, rel=1e-2) for text, rate in ticks.items())
    space = {
        "phases.0.lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "augment": optuna.distributions.CategoricalDistribution(
            ("none", "dihedral", "satellite", "microscopy")
        ),
        "batch": optuna.distributions.IntDistribution(4, 12),
        "drop_rate": optuna.distributions.FloatDistribution(0.0, 0.5),
    }
    study = SharedStudy("tune.log", "a-1", space, seed=0, pruner=make_pruner(), folder=Path("t"))
    for i in range(4):
        params = {"phases.0.lr": 1e-4 * 4**i, "augment": "dihedral", "batch": 4 + i, "drop_rate": i / 10}
        study.study.add_trial(
            optuna.trial.create_trial(params=params, distributions=space, value=0.5 + i / 10)
        )
    figure = new_trials(study, 0.55, LogColumns.of(recipe.competition.metric, single=False))
    assert {"0.001", "0.01", "microscopy", "held-out mAP"} <= set(check_texts(figure))

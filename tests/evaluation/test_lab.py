"""The threshold lab of the report: what its sliders show is what `comp decide` would score, to 1e-9."""

import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import comp.evaluation
from comp.config.metric import Metric
from comp.decisions.answer_rules import AnswerRule
from comp.decisions.given_rule import read_given
from comp.decisions.metrics import FBeta
from comp.decisions.rules import FittedRule
from comp.decisions.scorers import Scorer, scorer_of
from comp.evaluation import report_lab
from comp.evaluation.report_lab import (
    EXACT,
    LONE,
    contested,
    curve_points,
    grades_lab,
    labels_lab,
    metric_of,
    offered,
    slider_range,
)
from comp.pages.page import build_page
from tests.pages import opened

BODY = """\
<main><h1>Lab</h1><button id="theme"></button><p id="lab-about"></p><div id="lab-body"></div></main>
"""
N, C = 400, 6
NAMES = ("clear", "haze", 'a "quoted" \\ name', "\u202eturned\x7f", "water", "road")


def drawn(seed: int = 0, unknown: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold probabilities (N, C) float32 and targets (N, C); some probabilities lie on thresholds that
    the sliders offer."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-2, 2.5, (N, C))
    targets = (rng.random((N, C)) < 1 / (1 + np.exp(-logits))).astype(np.float64)
    probs = (1 / (1 + np.exp(-logits - rng.normal(0, 1, (N, C))))).astype(np.float32)
    at = rng.random((N, C)) < 0.3
    probs[at] = np.round(probs[at], 3)
    probs[0], targets[1] = 0.02 + 0.001 * np.arange(C), 0
    targets[rng.random((N, C)) < unknown] = np.nan
    return probs, targets if unknown else targets.astype(np.uint8)


def page_of(
    folder: Path, lab: dict[str, Any], scorer: Scorer, classes: tuple[str, ...], cross_fitted: float = 0.5
) -> Path:
    """Write a page that holds the lab alone."""
    shutil.copytree(Path(comp.evaluation.__file__).parent / "page", folder / "page")
    (folder / "page" / "lab.html").write_text(BODY)
    shared = {"answer": scorer.answer, "metric": metric_of(scorer), "cross_fitted": cross_fitted}
    content = {
        "name": "drawn", "metric": str(scorer.metric), "rule": "shrunk", "single": False,
        "classes": [{"name": ascii(name)} for name in classes],
        "lab": {**shared, "given": None, "names": list(classes), **lab},
    }  # fmt: skip
    text = build_page(
        folder / "page", "lab.html", "Lab", content, styles=["report.css", "lab.css"], scripts=["lab.js"]
    )
    path = folder / "lab.html"
    path.write_text(text, encoding="utf-8")
    return path


def drag(page: Any, slider: str, value: float) -> None:
    page.eval_on_selector(
        slider, "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', { bubbles: true })) }", value
    )


def shown(page: Any) -> float:
    return float(page.get_attribute("#lab-score", "data-value"))


CASES: dict[str, tuple[FBeta | Metric, FittedRule, float]] = {  # metric, the run's rule, unknown labels
    "samples": (FBeta(2.0), FittedRule(np.full(C, 0.2), min_labels=1), 0),
    "samples, unknown labels, 0/0 is 1": (FBeta(2.0, zero_division=1.0), FittedRule(np.full(C, 0.21)), 0.2),
    "macro": (FBeta(1.0, "macro"), FittedRule(np.linspace(0.1, 0.6, C), min_labels=1), 0.1),
    "micro": (FBeta(0.5, "micro"), FittedRule(np.full(C, 1 / 3)), 0),
    "groups": (FBeta(2.0), FittedRule(np.full(C, 0.3), groups=((0, 2, 4), (1, 5)), min_labels=1), 0),
    "one label an image": (
        Metric(name="balanced_accuracy"),
        FittedRule(np.full(C, 0.4), groups=(tuple(range(C)),)),
        0,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_slider_that_is_moved_gives_the_score_of_decide(case: str, tmp_path: Path, browser: Any):
    asked, rule, unknown = CASES[case]
    scorer = asked if isinstance(asked, FBeta) else scorer_of(asked)
    probs, targets = drawn(unknown=unknown)
    if rule.groups and len(rule.groups[0]) == C:
        targets = np.eye(C, dtype=np.uint8)[np.nan_to_num(probs).argmax(1) * (np.arange(N) % 3 > 0)]
    lab = labels_lab(rule, True, probs, targets)
    assert lab is not None
    page, heard = opened(browser, page_of(tmp_path, lab, scorer, NAMES))
    page.wait_for_selector(f'[data-label="{C - 1}"]')
    thresholds = rule.thresholds.copy()

    def check() -> None:
        now = FittedRule(thresholds, groups=rule.groups, min_labels=rule.min_labels)
        assert shown(page) == pytest.approx(scorer.score(targets, now.decide(probs, scorer)), abs=1e-9)

    check()
    for c, value in ((0, 0.02), (1, 0.963), (4, 0.011), (0, 0.4), (2, 0.99), (5, 0.517), (1, 0.3)):
        thresholds[c] = value
        drag(page, f'[data-label="{c}"]', value)
        check()
    for value in (0.99, 0.015):
        thresholds[:] = value
        drag(page, "#lab-all", value)
        check()
    page.click("#lab-half")
    thresholds[:] = 0.5
    check()
    page.focus('[data-label="3"]')
    page.keyboard.press("ArrowRight")
    thresholds[3] = 0.501
    check()
    assert page.get_attribute('[data-label="3"]', "aria-valuetext") == "0.501"
    page.click("#lab-copy")
    given = tmp_path / "given.toml"
    given.write_text(page.input_value("#lab-text"), encoding="utf-8")
    assert list(tomllib.loads(given.read_text(encoding="utf-8"))["thresholds"]) == list(NAMES)
    groups, min_labels = rule.groups, rule.min_labels
    back = read_given(given, NAMES, scorer.metric, groups=groups, single=bool(groups), min_labels=min_labels)
    now = FittedRule(thresholds, groups=groups, min_labels=min_labels)
    assert np.array_equal(back.decide(probs, scorer), now.decide(probs, scorer))
    page.click("#lab-reset")
    thresholds[:] = rule.thresholds
    check()
    assert not heard, heard


def test_a_cut_point_that_is_moved_gives_the_kappa_of_decide(tmp_path: Path, browser: Any):
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4, N)
    probs = rng.dirichlet(np.ones(4), N).astype(np.float32) * 0.6
    probs[np.arange(N), true] += 0.4
    probs[:50] = np.round(probs[:50], 1)
    targets, names, cuts = np.eye(4, dtype=np.uint8)[true], tuple("0123"), [0.6, 1.2345678, 2.5]
    scorer = scorer_of(Metric(name="quadratic_kappa"))
    lab = grades_lab(cuts, probs, targets)
    assert lab is not None
    page, heard = opened(browser, page_of(tmp_path, lab, scorer, names))

    def check(at: list[float]) -> None:
        given = AnswerRule("grades", 4, cut_points=np.array(at)).decide(probs)
        assert shown(page) == pytest.approx(scorer.score(targets, given), abs=1e-9)

    check(cuts)
    drag(page, '[data-cut="0"]', 0.31)
    check([0.31, *cuts[1:]])
    drag(page, '[data-cut="2"]', 1.1)  # cut points rise
    check([0.31, cuts[1], cuts[1]])
    page.click("#lab-copy")
    (tmp_path / "given.toml").write_text(page.input_value("#lab-text"))
    rule = read_given(tmp_path / "given.toml", names, scorer.metric, groups=(), single=True, min_labels=1)
    assert isinstance(rule, AnswerRule) and rule.cut_points is not None
    assert rule.cut_points.tolist() == [0.31, cuts[1], cuts[1]]
    page.click("#lab-half")
    check([0.5, 1.5, 2.5])
    page.click("#lab-reset")
    check(cuts)
    assert not heard, heard


def test_the_point_on_the_curves_of_probabilities_is_counted_by_its_threshold(tmp_path: Path, browser: Any):
    probs, targets = drawn(unknown=0.1)
    scorer = scorer_of(Metric(name="roc_auc"))
    curves = [{"class": c, **(curve_points(probs[:, c], targets[:, c]) or {})} for c in range(C)]
    for c, curve in enumerate(curves):
        above = probs[:, [c]] > np.array(curve["at"])
        assert curve["found"] == above[targets[:, c] == 1].sum(0).tolist()
        assert curve["false"] == above[targets[:, c] == 0].sum(0).tolist()
        assert 0.5 in curve["at"] and curve["found"][0] == 0 and curve["false"][0] == 0
    page, heard = opened(browser, page_of(tmp_path, {"curves": curves}, scorer, NAMES))
    page.select_option("#lab-label", "2")
    assert page.get_attribute("#lab-threshold", "aria-valuetext") == "0.5"
    drag(page, "#lab-threshold", 30)
    at = len(curves[2]["at"]) - 31
    cells = page.locator("#lab-body td").all_inner_texts()
    assert cells[0] == f"{curves[2]['at'][at]:g}"
    assert cells[4] == f"{curves[2]['found'][at]}, {curves[2]['n'] - curves[2]['found'][at]}"
    assert not heard, heard


def test_every_row_is_decided_as_python_does_it_at_every_offered_threshold():
    probs, _ = drawn()
    for chosen in (0.2, 1 / 3, 1e-9, 1.0, float(probs[5, 5])):
        at = offered(chosen, 0.0, 1.0)
        levels = np.searchsorted(at, probs.astype(np.float64))
        for place, threshold in enumerate(at.tolist()):
            assert ((levels > place) == (probs > np.array([threshold]))).all()


def test_labels_whose_probabilities_are_left_out_are_never_the_nearest():
    rng = np.random.default_rng(0)
    probs = (1 / (1 + np.exp(-rng.normal(-4, 6, (N, C))))).astype(np.float32)
    for groups in ((), ((0, 2, 4), (1, 5))):
        rule = FittedRule(np.full(C, 0.3), groups=groups, min_labels=1)
        low, top = slider_range(rule.thresholds)
        marks = contested(rule, probs, low, top)
        assert (marks == EXACT).mean() > 0.1 and (marks == LONE).any() and (marks == 0).mean() > 0.2
        for _ in range(50):
            at = rng.choice([low, top, 0.5, 0.2, 0.9], C)
            decided = FittedRule(at, groups=groups, min_labels=1).decide(probs, FBeta())
            compared = decided.astype(bool) & (
                (probs <= at) if not groups else np.isin(range(C), sum(groups, ()))
            )
            assert (marks[compared] > 0).all()
            row, c = np.nonzero(marks == LONE)
            assert not groups or decided[row, c].all()


def test_of_a_large_matrix_the_page_gets_some_rows_and_of_a_huge_one_none(monkeypatch: pytest.MonkeyPatch):
    probs, targets = drawn()
    monkeypatch.setattr(report_lab, "MAX_BYTES", 1500)
    monkeypatch.setattr(report_lab, "MIN_ROWS", 60)
    lab = labels_lab(FittedRule(np.full(C, 0.2)), True, probs, targets)
    assert lab is not None and lab["n_rows"] == 200 and lab["n_all"] == N
    monkeypatch.setattr(report_lab, "MIN_ROWS", 201)
    assert labels_lab(FittedRule(np.full(C, 0.2)), True, probs, targets) is None

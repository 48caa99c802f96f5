"""The report's page for each kind of answer, of drawn results without any network."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sk

from comp.artifacts.stamps import to_json
from comp.config.loading import load_recipe
from comp.config.recipe import Recipe
from comp.console import ProgressBars
from comp.data.corrections import correct
from comp.data.image_files import ImageSet
from comp.data.labels import Labels
from comp.decisions.answer_rules import decide_by_fold, rule_from_json
from comp.decisions.decide import decide
from comp.decisions.decision_file import decision_content
from comp.decisions.scorers import make_scorer
from comp.evaluation.gallery import report_images
from comp.evaluation.label_errors import find_grade_errors, find_label_errors, find_number_errors
from comp.evaluation.report_answers import places_of
from comp.evaluation.report_data import report_data
from comp.evaluation.report_page import report_page
from comp.evaluation.results import RunResults, rules_of
from comp.evaluation.suspects import find_suspects
from tests.pages import check_accessible, check_heads_stand_over_their_columns, download, opened

N, M = 210, 150
FORM = """
name = "drawn"
[labels]
csv = "train.csv"
id = "id"
{labels}
[images]
train = "train/{{id}}.png"
test = "test/{{id}}.png"
[submission]
sample = "sample.csv"
[metric]
{metric}
"""


@dataclass(frozen=True)
class DrawnFiles:
    """Stands in for the files of a competition: small images of one colour each."""

    folder: Path

    def images(self, split: str, ids: np.ndarray, channels: Any) -> ImageSet:
        paths = []
        for name in ids.tolist():
            path = self.folder / f"{name}.png"
            colour = np.frombuffer(name.encode().rjust(3, b" ")[-3:], np.uint8).astype(int) * 7 % 256
            Image.new("RGB", (24, 24), tuple(colour.tolist())).save(path)
            paths.append((path,))
        return ImageSet(split, ids, tuple(paths), ())


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(1, keepdims=True)


def draw(kind: str) -> tuple[str, str, np.ndarray, np.ndarray, tuple[str, ...], np.ndarray]:
    """Return [labels], [metric], probabilities or numbers (N, C), targets (N, C), classes, those of M test
    images."""
    rng = np.random.default_rng(0)
    names = tuple(f"finding {c}" for c in "abcdefg")
    if kind in ("labels", "probabilities", "binary"):
        c = 1 if kind == "binary" else len(names)
        logits = rng.normal(-1, 1.5, (N + M, c)) + np.linspace(1, -1, c)
        targets = (rng.random((N, c)) < 1 / (1 + np.exp(-1.2 * logits[:N]))).astype(np.float32)
        targets[rng.random(targets.shape) < (0.1 if c > 1 else 0)] = np.nan
        probs = 1 / (1 + np.exp(-logits))
        probs[N:, -1] *= 0.4
        metric = 'name = "fbeta"\nbeta = 2' if kind == "labels" else 'name = "roc_auc"'
        empty = 'classes = ["a"]\nempty = true'
        if kind == "binary":
            metric = 'name = "log_loss"'
        return empty, metric, probs[:N], targets, names[:c], probs[N:]
    if kind in ("one", "grades", "ranking"):
        n_classes = {"one": 6, "grades": 5, "ranking": 150}[kind]
        names, true = tuple(f"species {c}" for c in range(n_classes)), rng.integers(0, n_classes, N + M)
        probs, given = softmax(rng.normal(0, 1, (N + M, n_classes)) + 3 * np.eye(n_classes)[true]), true
        metric = {"one": 'name = "log_loss"', "ranking": 'name = "map_at_k"'}.get(kind, "")
        if kind == "grades":
            metric, names, true = 'name = "quadratic_kappa"', tuple("01234"), rng.binomial(4, 0.35, N + M)
            seen = true + rng.normal(0, 0.7, N + M)
            probs = softmax(-2 * np.abs(seen[:, None] - np.arange(n_classes)))
            given = np.where(np.arange(N + M) < 5, 4 - true, true)
        targets = np.eye(n_classes, dtype=np.uint8)[given[:N]]
        return 'column = "label"\nsingle = true', metric, probs[:N], targets, names, probs[N:]
    names = ("weight",) if kind == "number" else ("green", "dead", "clover", "total")
    numbers = rng.gamma(2, 900, (N + M, len(names)))
    guesses = numbers * rng.normal(0.95, 0.15, numbers.shape) + 150
    targets = numbers[:N].astype(np.float32)
    targets[:3] *= 10
    if len(names) > 1:
        targets[rng.random(targets.shape) < 0.15] = np.nan
        targets[np.isnan(targets).all(1), 0] = 700
    return 'column = "label"', 'name = "rmse"', guesses[:N], targets, names, guesses[N:] * 1.3


def results_of(kind: str, folder: Path) -> tuple[RunResults, np.ndarray]:
    labels, metric, probs, targets, classes, test = draw(kind)
    (folder / "drawn.toml").write_text(FORM.format(labels=labels, metric=metric))
    recipe: Recipe = load_recipe(str(folder / "drawn.toml"))
    probs, test = probs.astype(np.float32), test.astype(np.float32)
    ids, folds = np.array([f"image{i:03d}" for i in range(N)]), np.arange(N) % 3
    scorer = make_scorer(recipe.competition, classes)
    single = recipe.competition.labels.single
    decision = decide(
        probs, targets, scorer, folds=folds.astype(str), min_labels=0,
        exclusive=[list(range(len(classes)))] if single else [],
        rule="shrunk" if kind == "labels" else "auto",
    )  # fmt: skip
    parts = folds.astype(str)
    content = to_json(
        decision_content(decision, classes, parts, one_fold=False, metric=str(scorer.metric), stamp={})
    )
    rules, fitted = rules_of(content, classes), rule_from_json(content, classes)
    answers = decide_by_fold(rules, probs, parts, scorer)
    results = RunResults(
        recipe, DrawnFiles(folder), Labels(ids, classes, targets), np.arange(N), folds, parts,  # type: ignore[arg-type]
        probs, targets, answers, fitted, rules, scorer, {}, content,
    )  # fmt: skip
    return results, test


def page_of(results: RunResults, test: np.ndarray, path: Path) -> dict[str, Any]:
    content = report_data(results, [], test)
    with ProgressBars() as bars:
        content |= report_images(results, [], bars)
    path.write_text(report_page(content, {}), encoding="utf-8")
    return content


KINDS = ("labels", "probabilities", "binary", "one", "grades", "ranking", "number", "numbers")
SECTIONS = {
    "labels": {"lab", "separation", "calibration", "together"},
    "probabilities": {"lab", "separation", "calibration"},
    "binary": {"lab", "separation", "calibration"},
    "one": {"lab", "separation", "calibration", "confusion"},
    "grades": {"lab", "confusion", "grades"},
    "ranking": {"ranking"},
    "number": {"numbers"},
    "numbers": {"numbers"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_answer_has_its_page(kind: str, tmp_path: Path, browser: Any):
    results, test = results_of(kind, tmp_path)
    path = tmp_path / "report.html"
    content = page_of(results, test, path)
    page, heard = opened(browser, path, viewport={"width": 1280, "height": 900}, color_scheme="dark")
    assert not heard, heard
    check_accessible(page)
    shared = {"summary", "classes", "images", "suspects", "drift", "curves"}
    several = {"rules": content["weighed"]["rules"], "folds": content["by_fold"]["classes"]}
    shared |= {section for section, rows in several.items() if len(rows) > 1}
    assert (
        set(page.evaluate("[...document.querySelectorAll('section')].map(s => s.id)"))
        == SECTIONS[kind] | shared
    )
    page.evaluate(
        "for (const select of document.querySelectorAll('select')) for (const i of [1, 2, 0])"
        "{ select.selectedIndex = i % select.options.length; select.dispatchEvent(new Event('change')) }"
    )
    page.locator("#gallery button").first.click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert not heard, heard
    page.evaluate(  # the check of long lists takes seconds
        "document.querySelectorAll('tbody, #gallery, select').forEach(of => [...of.children].slice(5)"
        ".forEach(item => item.remove()))"
    )
    check_accessible(page)
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    check_heads_stand_over_their_columns(page)


def test_numbers_are_put_right_by_the_number_that_is_true(tmp_path: Path, browser: Any):
    """A number that is ticked as right keeps all its digits."""
    results, test = results_of("numbers", tmp_path)
    page_of(results, test, path := tmp_path / "report.html")
    page, heard = opened(browser, path, accept_downloads=True)
    boxes = page.locator("#suspects-table .ticks")
    first, second, third = places_in(results)[:3]
    boxes.nth(0).locator("input").fill("-12.5")
    boxes.nth(1).get_by_role("button", name="right").click()
    boxes.nth(2).get_by_role("button", name="unsure").click()
    assert page.inner_text("#ticks-count") == "3 ticks: 1 wrong, 1 right, 1 unsure." and not heard
    (tmp_path / "corrections.csv").write_text(download(page))
    (tmp_path / "drawn.toml").write_text(
        (tmp_path / "drawn.toml").read_text().replace("[labels]", '[labels]\ncorrections = "corrections.csv"')
    )
    competition = load_recipe(str(tmp_path / "drawn.toml")).competition
    expected = results.targets.copy()
    expected[first] = -12.5
    assert np.array_equal(correct(results.labels, competition).targets, expected, equal_nan=True)
    left = places_in(replace(results, recipe=results.recipe.model_copy(update={"competition": competition})))
    assert third in left and not {first, second} & set(left)


def places_in(results: RunResults) -> list[tuple[int, int]]:
    """The rows and columns of the suspects."""
    rows, columns, _ = find_suspects(results)
    return list(zip(rows.tolist(), columns.tolist()))


def test_scores_confusion_and_places_are_those_of_scikit_learn(tmp_path: Path):
    results, test = results_of("grades", tmp_path)
    data = report_data(results, [], test)
    true, given = results.targets.argmax(1), results.decisions.argmax(1)
    assert data["confusion"]["images"] == sk.confusion_matrix(true, given).tolist()
    kappa = sk.cohen_kappa_score(true, given, weights="quadratic")
    assert data["scores"][0]["value"] == pytest.approx(kappa) and data["greater_is_better"]
    for score in data["scores"][0]["folds"]:
        part = results.folds == score["fold"]
        assert score["value"] == pytest.approx(
            sk.cohen_kappa_score(true[part], given[part], weights="quadratic")
        )
    results, test = results_of("ranking", tmp_path)
    data = report_data(results, [], test)
    assert len(data["scores"]) == 1 and len(data["shown"]) == len(data["drift"]) == 100
    for k in (1, 5, 10):
        expected = sk.top_k_accuracy_score(
            results.targets.argmax(1), results.decisions, k=k, labels=range(results.targets.shape[1])
        )
        assert data["ranking"]["within"][k - 1] == pytest.approx(expected)
    assert (
        sum(pair["n"] for pair in data["ranking"]["pairs"]) <= N * (1 - data["ranking"]["within"][0]) + 1e-9
    )


def test_unknown_labels_are_counted_nowhere(tmp_path: Path):
    results, test = results_of("probabilities", tmp_path)
    data = report_data(results, [], test)
    known = ~np.isnan(results.targets)
    assert data["n_unknown"] == (~known).sum() > 100 and data["columns"] == ["AUC", "AP", "log loss"]
    for c, row in enumerate(data["classes"]):
        true, p = results.targets[known[:, c], c], results.decisions[known[:, c], c]
        assert row["values"][0] == pytest.approx(sk.roc_auc_score(true, p), abs=1e-4)
        assert row["n"] == true.sum() == row["misses"] + ((true == 1) & (p > 0.5)).sum()
        assert sum(b["n"] for b in row["calibration"]["bins"]) == len(true)
        curves = row["separation"]
        assert np.trapezoid(*np.array(curves["roc"]).T[::-1]) == pytest.approx(row["values"][0], abs=5e-3)
        assert curves["at_pr"] == pytest.approx(
            [sk.recall_score(true, p > 0.5), sk.precision_score(true, p > 0.5)]
        )
        assert curves["at_roc"] == pytest.approx(
            [1 - sk.recall_score(1 - true, p <= 0.5), curves["at_pr"][0]]
        )
    assert [row["name"] for row in data["drift"] if row["warn"]] == ["finding g"]
    rows, classes, _ = find_label_errors(results.probs, results.targets)
    assert known[rows, classes].all()


def test_an_unknown_label_changes_no_doubt_about_others():
    rng = np.random.default_rng(0)
    truth = 1 / (1 + np.exp(-rng.normal(0, 5, (4000, 2)))).astype(np.float32)
    turned = rng.random(truth.shape) < 0.03
    given = ((rng.random(truth.shape) < truth) ^ turned).astype(np.float32)
    half = given.copy()
    half[2000:, 1] = np.nan
    rows, classes, doubts = find_label_errors(truth, half)
    assert (classes == 0).any() and rows[classes == 1].max(initial=0) < 2000
    for c, n in ((0, 4000), (1, 2000)):
        alone = find_label_errors(truth[:n, [c]], given[:n, [c]])
        assert np.array_equal(rows[classes == c], alone[0]) and np.array_equal(doubts[classes == c], alone[2])


def test_numbers_that_were_planted_are_the_first_suspects():
    """Errors grow with the number: what is a large one is said by images with similar predictions."""
    rng = np.random.default_rng(0)
    answers = rng.gamma(2, 100, (1000, 2))
    targets = answers * rng.normal(1, 0.1, answers.shape)
    planted = [int(np.abs(answers[:, 0] - value).argmin()) for value in (30, 100, 200, 400)]
    targets[planted, 0] = answers[planted, 0] * 2
    targets[5, 1] = np.nan
    rows, columns, deviations = find_number_errors(answers, targets)
    assert set(rows[:4]) == set(planted) and not columns[:4].any() and (deviations[:4] > 5).all()
    assert len(rows) < 30 and (np.diff(np.abs(deviations)) <= 0).all()
    assert not len(find_number_errors(answers, answers)[0])


def test_suspected_grades_are_the_given_ones_that_are_furthest_off():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, 2000)
    probs = softmax(-4 * np.abs(true[:, None] + rng.normal(0, 0.2, (2000, 1)) - np.arange(5)))
    given = true.copy()
    given[:10] = np.where(true[:10] > 2, 0, 4)
    rows, grades, doubts = find_grade_errors(probs, np.eye(5, dtype=np.uint8)[given])
    wrong = np.flatnonzero(given != true)
    assert len(set(rows[:10]) & set(wrong)) >= 9 and (given[rows] == grades).all() and (doubts > 0.5).all()
    distance = np.abs(probs @ np.arange(5) - given)[rows]
    assert (np.diff(distance) <= 1e-12).all()


def test_the_place_of_a_true_label_is_that_of_a_stable_sort():
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 4, (50, 6)) / 4
    targets = (rng.random((50, 6)) < 0.3).astype(np.uint8)
    for place, true, answer in zip(places_of(targets, answers), targets, answers):
        order = np.argsort(-answer, kind="stable")
        assert place == next((i for i, c in enumerate(order, 1) if true[c]), 7)

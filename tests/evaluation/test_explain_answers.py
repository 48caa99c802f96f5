"""What `comp explain` prints and draws for each kind of answer, without any network."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comp.commands.explain import show
from comp.decisions.answer_rules import AnswerRule
from comp.evaluation.explanation import Explanation, Query, labels_to_show, number_text
from comp.plots import explanation as picture

CLASSES = ("a", "b", "c", "d")


def explained(
    rule: AnswerRule, probs: Sequence[float], true: Sequence[float] | None, path: Path
) -> Explanation:
    """An image of which the network says `probs`; a training image if `true` is given."""
    Image.new("RGB", (20, 20), "green").save(path / "image.png")
    known = None if true is None else np.array(true)
    query = Query("image", (path / "image.png",), np.zeros((8, 8, 3), np.uint8), rule, n_first=2, true=known)
    query = query if true is None else replace(query, fold=0)
    said = np.array(probs, np.float32)
    given = rule.decide(said[None])[0]
    shown, mapped = labels_to_show(query, said, given)
    ranges = np.array([[0, 10.0]] * len(probs)) if rule.answer == "numbers" else None
    return Explanation(query, 1, said, given, shown, np.ones((len(mapped), 4, 4)), ranges)


CASES = {
    "probabilities": (
        AnswerRule("probabilities", 4, np.full(4, 2.0), np.zeros(4)), [0.9, 0.2, 0.6, 0.1], [1, 1, 0, np.nan],
    ),
    "grades": (
        AnswerRule("grades", 4, cut_points=np.array([0.6, 1.4, 2.2])), [0.1, 0.2, 0.6, 0.1], [0, 0, 0, 1],
    ),
    "ranking": (AnswerRule("ranking", 4), [0.1, 0.2, 0.6, 0.1], [1, 0, 0, 0]),
    "numbers": (AnswerRule("numbers", 2), [3.14159, 12345.6], [4, np.nan]),
}  # fmt: skip


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All texts of the pictures that are drawn."""
    found: list[str] = []

    def keep(figure, *_, **__) -> None:
        figure.draw_without_rendering()
        from matplotlib.text import Text

        found.extend(text.get_text() for text in figure.findobj(Text) if text.get_text())

    monkeypatch.setattr(picture, "save", keep)
    return found


def lines(answer: Explanation, capsys: pytest.CaptureFixture[str]) -> tuple[str, list[str], list[list[str]]]:
    capsys.readouterr()
    show(answer, CLASSES)
    about, header, *rows = capsys.readouterr().out.splitlines()
    return about, header.split(), [row.split() for row in rows]


def test_probabilities_are_shown_as_they_are_and_calibrated(tmp_path: Path, capsys, texts):
    answer = explained(*CASES["probabilities"], tmp_path)
    _, header, rows = lines(answer, capsys)
    assert header == ["label", "probability", "true", "calibrated"]
    assert rows[0] == ["c", "0.600", "no", "0.692"]  # above 0.5 without the label: first
    assert ["d", "0.100", "unknown", "0.012"] in rows
    picture.draw([answer], CLASSES, "t", tmp_path / "p.png")
    assert {"b (true)", "d (unknown)", "above 0.5"} <= set(texts) and not any("missed" in t for t in texts)


def test_a_grade_lies_between_cut_points(tmp_path: Path, capsys, texts):
    answer = explained(*CASES["grades"], tmp_path)
    about, header, rows = lines(answer, capsys)
    assert about.endswith("the expected grade is 1.70, between the cut points 1.40 and 2.20")
    assert header == ["grade", "predicted", "true", "probability"]
    assert rows[:2] == [["c", "yes", "no", "0.600"], ["d", "no", "yes", "0.100"]]
    low = explained(CASES["grades"][0], [1, 0, 0, 0], None, tmp_path)
    assert low.about == "one network; the expected grade is 0.00, below the cut point 0.60"
    high = explained(CASES["grades"][0], [0, 0, 0, 1], None, tmp_path)
    assert high.about.endswith("is 3.00, above the cut point 2.20")
    picture.draw([answer, low], CLASSES, "t", tmp_path / "p.png")
    assert {"predicted", "d (true)"} <= set(texts)


def test_a_ranking_shows_places_and_a_true_label_that_is_not_among_the_first(tmp_path: Path, capsys, texts):
    answer = explained(*CASES["ranking"], tmp_path)
    _, header, rows = lines(answer, capsys)
    assert header == ["label", "place", "true", "probability"]
    assert rows == [
        ["a", "3", "yes", "0.100"],
        ["c", "1", "no", "0.600"],
        ["b", "2", "no", "0.200"],
        ["d", "4", "no", "0.100"],
    ]
    picture.draw([answer], CLASSES, "t", tmp_path / "p.png")
    assert {"among the first 2", "a (true)"} <= set(texts)


def test_numbers_are_shown_within_the_range_of_held_out_ones(tmp_path: Path, capsys, texts):
    answer = explained(*CASES["numbers"], tmp_path)
    _, header, rows = lines(answer, capsys)
    assert header[:4] == ["number", "predicted", "true", "error"]
    assert rows == [
        ["a", "3.142", "4", "-0.8584", "0", "to", "10"],
        ["b", "12,346", "unknown", "0", "to", "10"],
    ]
    picture.draw([answer], CLASSES, "t", tmp_path / "p.png")
    assert {"3.142", "12,346", "among held-out images", "true", "a 3.142"} <= set(texts)
    new = replace(explained(CASES["numbers"][0], [-2.5, 3], None, tmp_path), ranges=None)
    _, header, rows = lines(new, capsys)
    assert (header, rows) == (["number", "predicted"], [["a", "-2.5"], ["b", "3"]])
    picture.draw([new], CLASSES, "t", tmp_path / "p.png")
    assert number_text(-0.000123456) == "-0.0001235"

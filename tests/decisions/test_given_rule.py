"""`comp decide --thresholds`: a file is understood, or refused in one line."""

from pathlib import Path

import pytest

from comp.config.metric import Metric
from comp.decisions.given_rule import read_given, with_given
from comp.decisions.rules import FittedRule
from comp.errors import CompError

CLASSES = ("clear", "haze", "water")
RIGHT = "[thresholds]\nclear = 0.2\nhaze = 1\nwater = 0.0\n"
KAPPA = Metric(name="quadratic_kappa")


def read(folder: Path, text: str, metric: Metric = Metric(), groups=((0, 1),), single: bool = False):  # noqa: B008
    path = folder / "given.toml"
    path.write_text(text)
    return read_given(path, CLASSES, metric, groups=groups, single=single, min_labels=1)


def test_a_file_gives_each_label_its_threshold(tmp_path: Path):
    rule = read(tmp_path, RIGHT)
    assert isinstance(rule, FittedRule) and rule.thresholds.tolist() == [0.2, 1.0, 0.0]
    assert rule.min_labels == 1 and rule.groups == ()
    assert read(tmp_path, "exclusive = true\n" + RIGHT).groups == ((0, 1),)
    assert read(tmp_path, RIGHT, groups=((0, 1, 2),), single=True).groups == ((0, 1, 2),)
    assert read(tmp_path, "cut_points = [0.5, 1]", KAPPA).cut_points.tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("thresholds", "is not TOML"),
        ("", "no thresholds; thresholds, a number from 0 to 1 for each label, are expected"),
        ("cut_points = [1.0, 2.0]", "has cut_points; thresholds,"),
        ("thresholds = 0.5", "'thresholds': input should be a valid dictionary"),
        (RIGHT + "[treshold]\n", "unknown key 'treshold'; did you mean 'thresholds'?"),
        (RIGHT.replace("haze", "hase"), "unknown labels, 1 (hase); did you mean 'haze'?"),
        (RIGHT.replace("haze = 1\n", ""), "lacks labels, 1 (haze)"),
        (
            RIGHT.replace("0.2", "1.5"),
            "'thresholds.clear': input should be less than or equal to 1, found 1.5",
        ),
        (RIGHT.replace("0.2", "-0.1"), "greater than or equal to 0"),
        (RIGHT.replace("0.2", "nan"), "'thresholds.clear'"),
        (RIGHT.replace("0.2", '"0.2"'), "valid number, found '0.2'"),
        (RIGHT.replace("0.2", "true"), "valid number, found True"),
        (RIGHT + "clear = 0.3\n", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(text: str, words: str, tmp_path: Path):
    with pytest.raises(CompError) as error:
        read(tmp_path, text)
    assert words in str(error.value) and "\n" not in str(error.value), error.value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (RIGHT, "has thresholds; cut_points,"),
        ("cut_points = [0.5]", "has 1 cut_points; 3 grades have 2"),
        ("cut_points = [1.5, 0.5]", "don't rise"),
        ("cut_points = [0.5, inf]", "finite number"),
        ("exclusive = true\ncut_points = [0.5, 1.5]", "goes with thresholds"),
    ],
)
def test_wrong_cut_points_are_refused(text: str, words: str, tmp_path: Path):
    with pytest.raises(CompError, match=words):
        read(tmp_path, text, KAPPA)


def test_what_has_no_thresholds_is_refused(tmp_path: Path):
    with pytest.raises(CompError, match="ROC AUC is scored by probabilities"):
        read(tmp_path, RIGHT, Metric(name="roc_auc"))
    with pytest.raises(CompError, match="lists no group"):
        read(tmp_path, "exclusive = true\n" + RIGHT, groups=())
    with pytest.raises(CompError, match="no such file"):
        read_given(tmp_path, CLASSES, Metric(), groups=(), single=False, min_labels=1)


def test_the_automatic_rule_keeps_its_cross_fitted_score(tmp_path: Path):
    scores = {"cross_fitted": 0.8, "in_sample": 0.9, "default": 0.7}
    automatic = {"rule": "expected", "thresholds": {}, "slopes": {"clear": 1.0}, "by_fold": {"0": 1}}
    content = with_given(automatic | {"scores": scores}, read(tmp_path, RIGHT), 0.95, CLASSES)
    assert content["rule"] == "given" and content["given"]["automatic"] == "expected"
    assert content["thresholds"] == {"clear": 0.2, "haze": 1.0, "water": 0.0} and content["slopes"] is None
    assert content["scores"] == scores | {"in_sample": 0.95} and content["by_fold"] == {"0": 1}
    assert content["given"]["automatic_in_sample"] == 0.9 and "in-sample" in content["given"]["warning"]

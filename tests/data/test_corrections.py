"""Corrections of labels: each file has one meaning or is refused, and what they change."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comp.config.competition import Competition
from comp.config.loading import load_recipe, toml_text
from comp.data.corrections import correct, corrections_stamp, describe_corrections, read_corrections, settled
from comp.data.labels import Labels
from comp.errors import CompError
from comp.safe_text import escape_cell

CLASSES = ("clear", "haze", "road, dirt", "water")
GIVEN = Labels(
    np.array(["a", "b", "=1+1", "x,y"]),
    CLASSES,
    np.array([[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 1], [0, 1, 1, 1]], np.uint8),
)
WEATHER = {"exclusive": [["clear", "haze"]]}


def competition(text: str, metric: str = "fbeta", **labels: Any) -> Competition:
    table = {"csv": "t.csv", "id": "id", "column": "tags", "corrections": text, **labels}
    images = {"train": "a/{id}.jpg", "test": "b/{id}.jpg"}
    return Competition.model_validate(
        {"name": "x", "labels": table, "images": images, "metric": {"name": metric}}
    )


def corrected(text: str, given: Labels = GIVEN, **changes: Any) -> list[list[float]]:
    return correct(given, competition(text, **changes)).targets.tolist()


def test_a_value_says_whether_a_label_holds_and_an_empty_one_changes_nothing():
    found = corrected("id,label,value,who,when\na,water,1,me,\na,clear,0,me,\nb,haze,1,,\nb,water,,,\n")
    assert found == [[0, 0, 1, 1], *GIVEN.targets[1:].tolist()]


def test_a_label_that_holds_replaces_the_others_of_its_exclusive_group():
    assert corrected("id,label,value\na,haze,1\n", **WEATHER)[0] == [0, 1, 1, 0]
    made = correct(GIVEN, competition("id,label,value\na,haze,1\nb,water,1\n", **WEATHER))
    assert settled(GIVEN, competition("id,label,value\na,haze,1\nb,water,\n", **WEATHER)).tolist() == [
        [True, True, False, False], *[[False] * 4] * 3,
    ]  # fmt: skip
    assert describe_corrections(GIVEN.targets, made.targets, competition("")) == "3 labels of 2 images"
    one = Labels(np.array(["a", "b"]), ("0", "1", "2"), np.eye(3, dtype=np.uint8)[[0, 2]])
    assert corrected("id,label,value\nb,1,1\n", one, single=True, metric="quadratic_kappa") == [
        [1, 0, 0],
        [0, 1, 0],
    ]


def test_numbers_and_unknown_labels_get_the_right_value():
    given = Labels(np.array(["a", "b"]), ("height", "age"), np.array([[0.1, np.nan], [2, 3]], np.float32))
    found = corrected("id,label,value\na,age,-7.5\nb,height,\n", given, metric="mae")
    assert found == [[pytest.approx(0.1), -7.5], [2, 3]]
    unknown = Labels(np.array(["a"]), ("x", "y"), np.array([[np.nan, 1]], np.float32))
    assert corrected("id,label,value\na,x,0\n", unknown) == [[0, 1]]


def test_hostile_names_line_ends_and_separators_are_read_as_they_were_written(tmp_path: Path):
    """Names that a spreadsheet would run are written with a quote before them, as the page does."""
    cells = [escape_cell("=1+1"), '"road, dirt"', "1"], ['"x,y"', "water", "0"]
    text = "\ufeffid,label,value\r\n" + "".join(",".join(row) + "\r\n" for row in cells)
    (tmp_path / "c.csv").write_bytes(text.encode())
    (tmp_path / "x.toml").write_text(
        'extends = "demo"\n[competition.labels]\ncorrections = "c.csv"\nclasses = ["clear", "haze", '
        '"road, dirt", "water"]\nexclusive = []\n'
    )
    recipe = load_recipe(str(tmp_path / "x.toml"))
    assert correct(GIVEN, recipe.competition).targets.tolist() == [
        *GIVEN.targets[:2].tolist(), [1, 0, 1, 1], [0, 1, 1, 0],
    ]  # fmt: skip
    for separator in (";", "\t"):
        assert corrected(f"id{separator}label{separator}value\nb{separator}water{separator}1\n")[1][3] == 1
    twice = "id,label,value,who,when\nb,water,1,me,\nid,label,value,who,when\nb,water,1,you,\n"
    assert corrected(twice)[1][3] == 1  # two files, one after the other
    assert [one.who for one in read_corrections(competition(twice))] == ["me", "you"]


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ("q,haze,1", {}, "line 2: ids that the labels lack: 1 (q); are they of another competition?"),
        ("b,hase,1", {}, "line 2: no label 'hase'; did you mean 'haze'?"),
        ("b,haze,yes", {}, "line 2: the value is 'yes'; 1 (the label holds), 0 (it does not) or nothing"),
        ("b,haze,0.5", {}, "line 2: the value is '0.5'"),
        ("b,haze,nan", {"metric": "mae"}, "the value is 'nan'; a number or nothing (unsure) is expected"),
        ("b,water,0\nb,water,1", {}, "lines 2 and 3: 'water' of 'b' is 0 and 1; keep one of the two rows"),
        ("a,clear,0", WEATHER, "line 2: 'a' is left with none of 2 (clear, haze); exactly one is expected"),
        ("a,clear,1\na,haze,1", WEATHER, "lines 2, 3: 'a' is left with 'clear' and 'haze' of 2"),
        ("b,haze,0", {}, "'b' is left with none of 4 (clear, haze, road, dirt, water); at least one is"),
        ("b,,0", {}, "line 2: id and label are expected, found 'b' and ''"),
        ("b,haze", {}, "line 2: 2 fields (b | haze), but the header has 3"),
        ('"b,haze,1', {}, "is a quotation mark missing?"),
    ],
)
def test_what_is_not_understood_is_one_clear_line(rows: str, changes: dict[str, Any], message: str):
    with pytest.raises(CompError) as error:
        corrected(f"id,label,value\n{rows}\n", **changes)
    assert str(error.value).startswith("labels.corrections") and message in str(error.value)


def test_a_file_of_suspects_is_no_file_of_corrections():
    with pytest.raises(CompError, match="labels.corrections has no column 'value'; it has id, label, given"):
        corrected("id,label,given,probability,doubt,fold\na,clear,1,0.1,0.9,0\n")


def test_stamps_know_what_was_corrected_and_not_by_whom():
    one = corrections_stamp(competition("id,label,value,who,when\na,water,1,me,now\nb,haze,1,,\n"))
    two = corrections_stamp(competition("id,label,value\nb,haze,1.0\na,water,1\na,haze,\n"))
    assert one == two != corrections_stamp(competition("id,label,value\na,water,1\n"))
    assert (
        corrections_stamp(competition("")) == corrections_stamp(competition("id,label,value\na,x,\n")) == {}
    )
    assert correct(GIVEN, competition("")) is GIVEN


def test_a_recipe_and_the_command_line_may_set_another_file_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A path is relative to the TOML file that names it, or of --set to the working directory. A run keeps
    the text."""
    key = "competition.labels.corrections"
    for folder, label in (("own", "road"), (".", "water"), ("theirs", "haze")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "corrections.csv").write_text(
            f'id,label,value,who,when\ntrain_0,{label},1,"a ""b""",\n'
        )
    monkeypatch.chdir(tmp_path)
    plain = load_recipe("demo")
    assert plain.competition.labels.corrections == "" and "corrections" not in toml_text(plain)
    Path("own/base.toml").write_text(
        'extends = "demo"\n[competition.labels]\ncorrections = "corrections.csv"\n'
    )
    Path("own/again.toml").write_text('extends = "base.toml"\nseed = 7\n')
    Path("other.toml").write_text(
        'extends = "own/base.toml"\n[competition.labels]\ncorrections = "corrections.csv"\n'
    )

    def label(name: str, *sets: str) -> str:
        recipe = load_recipe(name, sets)
        back = Path("run.toml")
        back.write_text(toml_text(recipe))
        assert load_recipe("run.toml") == recipe
        return next((one.label for one in read_corrections(recipe.competition)), "")

    assert [label(f"own/{name}.toml") for name in ("base", "again")] == ["road", "road"]
    assert label("other.toml") == label("demo", f"{key}=corrections.csv") == "water"
    assert label("run.toml", f"{key}=theirs/corrections.csv") == "haze"  # a run's, whose file is read anew
    assert label("own/again.toml", f'{key}=""') == label("run.toml", f"{key}=") == ""
    text = (Path(__file__).parents[2] / "comp" / "competitions" / "demo.toml").read_text()
    changed = text.replace("[labels]", '[labels]\ncorrections = "corrections.csv"')
    Path("theirs/mine.toml").write_text(changed)  # a competition
    Path("of-mine.toml").write_text('extends = "demo"\ncompetition = "theirs/mine.toml"\n')
    assert label("theirs/mine.toml") == label("of-mine.toml") == "haze"
    for value, message in (
        ("gone.csv", "gone.csv: No such file or directory; labels.corrections names this file"),
        ("run.toml", "labels.corrections = 'run.toml': the name of a .csv file is expected"),
    ):
        with pytest.raises(CompError) as error:
            load_recipe("demo", [f"{key}={value}"])
        assert message in str(error.value)
    Path("wide.csv").write_bytes("id,label,value\n".encode("utf-16"))
    with pytest.raises(CompError, match="it is not UTF-8; save it as UTF-8"):
        load_recipe("demo", [f"{key}=wide.csv"])
    with pytest.raises(CompError, match="labels.corrections are of images, but with labels.answer_id"):
        load_recipe("demo", [f"{key}=corrections.csv", "competition.labels.answer_id='{image_name}'"])

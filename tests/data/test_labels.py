from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from comp.config.competition import LabelTable
from comp.config.loading import load_competition
from comp.data.labels import format_tags, parse_tags, read_labels
from comp.errors import CompError

TAGS = LabelTable(csv=("t.csv",), id="id", column="tags")


def read(folder: Path, text: str, **changes):
    (folder / "t.csv").write_text(text)
    return read_labels(folder / "t.csv", TAGS.model_copy(update=changes))


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 12)), elements=st.integers(0, 1)),
    st.booleans(),
)
def test_tags_survive_the_round_trip(decisions: np.ndarray, indices: bool):
    classes = tuple(f"label {i}" for i in range(decisions.shape[1]))
    _, back = parse_tags(format_tags(decisions, classes, ";", indices), classes, ";", indices, Path("x"))
    assert back.tolist() == decisions.tolist()


def test_names_indices_and_columns_give_the_same_matrix(tmp_path: Path):
    names = read(tmp_path, "id,tags\na,x y\nb,y\n")
    indices = read(tmp_path, "id,tags\na,0 1\nb,1\n", indices=True, classes=("x", "y"))
    columns = read(tmp_path, "id,x,y\na,1,1\nb,0,1.0\n", column=None)
    for labels in (names, indices, columns):
        assert (labels.classes, labels.targets.tolist()) == (("x", "y"), [[1, 1], [0, 1]])


def test_ids_stay_text_and_any_separator_works(tmp_path: Path):
    labels = read(tmp_path, "id,tags\n007,x|big house\n008,big house|x\n", separator="|")
    assert labels.ids.tolist() == ["007", "008"]
    assert labels.classes == ("big house", "x")


def test_images_without_a_label_are_taken_where_they_are_allowed(tmp_path: Path):
    assert read(tmp_path, "id,tags\na,x\nb,\n", empty=True).targets.tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("id,labels\na,x\n", {}, "has no column 'tags'; it has id, labels"),
        ("id,tags\na,x\na,y\n", {}, "more than once: 1 (a)"),
        ("id,tags\na,x z\n", {"classes": ("x", "y")}, "not in the list of classes: 1 (z)"),
        ("id,tags\na,0 7\n", {"classes": ("x", "y"), "indices": True}, "not in the list of classes: 1 (7)"),
        ("id,tags\na,0 x\n", {"classes": ("x", "y"), "indices": True}, "not indices: 1 (x)"),
        ("id,tags\na,x\nb,\n", {}, "without any label: 1 (b)"),
        ("id,x\na,2\n", {"column": None}, "than 0 and 1: 1 (x)"),
        ("", {}, "cannot be read as CSV"),
    ],
)
def test_what_is_wrong_with_labels_is_said(tmp_path: Path, text: str, changes: dict, message: str):
    with pytest.raises(CompError) as error:
        read(tmp_path, text, **changes)
    assert message in str(error.value)


def test_the_real_labels_of_the_protein_atlas(shared: Path):
    labels = read_labels(shared / "hpa" / "train.csv.zip", load_competition("hpa").labels)
    assert labels.targets.shape == (31072, 28)
    assert (labels.targets.sum(0).min(), labels.targets.sum(0).max()) == (11, 12885)


def test_the_real_labels_of_planet(shared: Path):
    labels = read_labels(shared / "planet32" / "train_v2.csv.zip", load_competition("planet").labels)
    count = dict(zip(labels.classes, labels.targets.sum(0).tolist()))
    assert (len(labels.ids), count["primary"], count["conventional_mine"]) == (40479, 37513, 100)

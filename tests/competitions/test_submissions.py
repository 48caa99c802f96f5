"""A submission of each competition that comes with comp has the sample's form, and says what was decided."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from comp.artifacts.csv_tables import read_table
from comp.cli.main import main
from comp.config.loading import load_competition
from comp.data.table_rows import lists_ids
from comp.decisions.metrics import most_probable
from comp.decisions.scorers import first_classes
from comp.kaggle.submission_file import check_sample, check_submission, submission_text
from tests.competitions.forms import FORMS
from tests.competitions.test_forms import downloaded


def drawn_answers(kind: str, single: bool, shape: tuple[int, int]) -> np.ndarray:
    """Return answers (N, C) of a kind, drawn."""
    probs = np.random.default_rng(0).random(shape).astype(np.float32)
    if kind == "grades" or (kind == "labels" and single):
        return most_probable(probs)
    return (probs > 0.5).astype(np.uint8) | most_probable(probs) if kind == "labels" else probs


@pytest.mark.parametrize("name", FORMS)
def test_a_submission_has_the_form_of_the_sample(here: Path, name: str):
    pytest.importorskip("pydicom" if load_competition(name).images.train[0].endswith(".dcm") else "PIL")
    _, competition, data = downloaded(name)
    labels, ids, kind = data.labels(competition), data.sample_ids(competition), competition.metric.kind
    classes, answer_of = labels.classes, data.test_answer_ids(competition)
    assert answer_of is None or len(answer_of) > len(ids)
    assert check_sample(data.sample_csv, competition, classes) is None
    answers = drawn_answers(kind, competition.labels.single, (len(ids), len(classes)))
    text = submission_text(answers, ids, classes, competition, data.sample_csv)
    Path("submission.csv").write_text(text)
    if not lists_ids(data.sample_csv, competition):
        sample, written = read_table(data.sample_csv, []), read_table(Path("submission.csv"), [])
        assert list(written.columns) == list(sample.columns)
        id_column = competition.submission.id or competition.labels.id
        assert written[id_column].tolist() == sample[id_column].tolist()
    said = check_submission(text, Path("submission.csv"), competition, classes, ids)
    if kind == "ranking":
        k = competition.metric.k
        assert (first_classes(said, k) == first_classes(answers, k)).all()
    else:
        np.testing.assert_array_equal(said.astype(answers.dtype), answers)


def test_a_row_for_each_image_and_class_holds_that_probability(here: Path):
    _, competition, data = downloaded("rsna-intracranial-hemorrhage")
    labels, ids = data.labels(competition), data.sample_ids(competition)
    answers = drawn_answers("probabilities", False, (len(ids), len(labels.classes)))
    text = submission_text(answers, ids, labels.classes, competition, data.sample_csv)
    Path("submission.csv").write_text(text)
    cells = pd.read_csv("submission.csv").set_index("ID")["Label"]
    for row, image in zip(answers, ids.tolist()):
        for p, label in zip(row, labels.classes):
            assert cells[f"{image}_{label}"] == pytest.approx(p, rel=1e-6)


@pytest.mark.parametrize(
    ("table", "single", "cure"),
    [
        ("id,y\n1,0\n2,1\n", "", 'classes = ["y"]'),
        ("id,y\n1,no\n2,yes\n", "single = true", 'classes = ["yes"]\nnone = "no"'),
    ],
)
def test_one_probability_of_two_labels_is_asked_for_as_the_error_says(
    here: Path, fails: Callable[..., str], table: str, single: str, cure: str
):
    start = '[labels]\ncsv = "train.csv"\nid = "id"\n'
    end = '\n[images]\ntrain = "{id}.png"\ntest = "{id}.png"\n[submission]\nsample = "sample.csv"\n'
    end += '[metric]\nname = "roc_auc"\n'
    folder = Path("files")
    folder.mkdir()
    (folder / "train.csv").write_text(table)
    (folder / "sample.csv").write_text("id,y\n3,0.5\n")
    for name in "123":
        Image.new("RGB", (32, 32)).save(folder / f"{name}.png")
    column = f'column = "y"\n{single}'
    Path("mine.toml").write_text(start + column + end)
    line = fails("download", "mine.toml", "--from", "files")
    for part in cure.split("\n"):
        assert f"labels.{part}" in line
    assert ("in place of labels.single" in line) == bool(single)
    cured = cure if single == "" else f'column = "y"\n{cure}'
    Path("mine.toml").write_text(start + cured + end)
    assert main(["download", "mine.toml", "--from", "files"]) == 0

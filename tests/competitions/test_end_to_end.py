"""Tables and images in the form of real competitions become a submission that a grader of its own reads."""

from pathlib import Path

import pandas as pd
import pytest

from comp.config.loading import load_competition
from tests.competitions.end_to_end import run
from tests.competitions.graders import GRADERS, grade
from tests.competitions.other_forms import OTHER

DIFFERENT = (  # answers: columns, rows of image and class, a number, five names, for two images, a grade
    "ranzcr-clip",
    "rsna-intracranial-hemorrhage",
    "petfinder-pawpularity",
    "hotel-id-2021",
    "rsna-breast-cancer",
    "aptos2019",
)
SLOW = ("petfinder-pawpularity", "aptos2019")  # a number, and a grade of five, take longer to learn


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_folder_in_a_competitions_form_becomes_a_submission_above_a_constant_answer(here: Path, name: str):
    pytest.importorskip("pydicom" if load_competition(name).images.train[0].endswith(".dcm") else "PIL")
    n, n_epochs = (120, 40) if name in SLOW else (60, 20)
    form, grader, file = run(name, n=n, n_test=24, phases=[(24, n_epochs)])
    score, constant = grade(grader, form, file)  # it also reads each id and column of the form
    assert (score > constant) == grader.greater and score != constant
    (sample,) = Path("files", name).glob("*sample*")
    assert pd.read_csv(sample).columns.tolist() == pd.read_csv(file).columns.tolist()


def test_each_competition_has_a_grader_of_its_own():
    from tests.competitions.forms import FORMS

    assert {*GRADERS} == {*FORMS}
    assert all(len(text.splitlines()) <= 25 for text, _, _ in OTHER.values())

"""Two submissions to end with, of a planted ledger."""

from pathlib import Path

import pytest

from comp.artifacts.files import write_text
from comp.artifacts.paths import submission_path
from comp.cli.main import main
from comp.kaggle import ledger
from comp.kaggle.pick import pick_two

N = 20  # test images


@pytest.fixture
def planted(here: Path) -> Path:
    """Submissions by how many of their images have other labels than those of `best`."""
    for name, score, n_other in (
        ("best", 0.94, 0),
        ("copy", 0.939999, 0),
        ("near", 0.938, 2),
        ("far", 0.931, 9),
        ("farther", 0.925, 12),
    ):
        lines = [f"i{i},{'b' if i < n_other else 'a'}" for i in range(N)]
        write_text(submission_path(name), "\n".join(["id,tags", *lines]) + "\n")
        ledger.add({"time": "now", "name": name, "competition": "tiny", "cross_fitted": score})
    return here


def test_the_second_is_the_best_of_those_least_like_the_first(planted: Path):
    first, second = pick_two(ledger.read())
    assert (first.row["name"], second.row["name"]) == ("best", "far")
    assert first.reason == "the best cross-fitted score"
    assert second.reason == "the best of the 2 least like it: 45.0% of the test images have other labels"


def test_copies_are_no_second_submission(planted: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("near", "far", "farther"):
        submission_path(name).unlink()
    assert main(["ledger", "--pick"]) == 0
    printed = capsys.readouterr().out
    assert "best, cross-fitted 0.9400: the best cross-fitted score\n" in printed
    assert "no other submission differs from it" in printed


def test_submissions_that_are_of_other_images_are_refused(planted: Path, fails):
    write_text(submission_path("far"), "id,tags\nx,a\n")
    assert "other images or columns" in fails("ledger", "--pick")

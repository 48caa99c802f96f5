"""Finished models on test sets that they were not made with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from comp.cli.main import main
from comp.data.discovery import FileFinder

Hidden = Callable[[Path, Path], None]


@pytest.fixture
def copy(submitted: Path, here: Path) -> Path:
    """A working directory in which the tiny competition was run to its end; its files are in files/."""
    shutil.copytree(submitted, here, dirs_exist_ok=True, symlinks=True)
    return here


def hidden_test_set(drawn: Path, target: Path) -> list[str]:
    """Other ids, other images and more rows than the drawn test set, and no training data."""
    (target / "test-jpg").mkdir(parents=True)
    names = []
    for i, path in enumerate(sorted((drawn / "train-jpg").iterdir())[:80]):
        names.append(f"hidden_{(i * 37) % 80}")
        shutil.copy(path, target / "test-jpg" / f"{names[-1]}.jpg")
    pd.DataFrame({"image_name": names, "tags": "clear"}).to_csv(target / "sample_submission.csv", index=False)
    return names


def test_on_the_same_test_set_it_is_what_the_stages_submit(copy: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["infer", "tiny.toml", "--to", "out/a.csv"]) == 0
    (submitted,) = (copy / "submissions").glob("tiny-*.csv")
    assert (copy / "out" / "a.csv").read_bytes() == submitted.read_bytes()
    assert main(["infer", "tiny.toml", "--to", "out/a.csv"]) == 0
    assert "done already" in capsys.readouterr().out


def test_a_hidden_test_set_needs_no_training_data(copy: Path, fails, monkeypatch: pytest.MonkeyPatch):
    names = hidden_test_set(copy / "files", copy / "hidden")
    shutil.rmtree(copy / "data")
    shutil.rmtree(copy / "folds")
    assert main(["infer", "tiny.toml", "--from", "hidden"]) == 0
    answer = pd.read_csv("submission.csv")
    assert answer["image_name"].tolist() == names
    assert answer["tags"].nunique() > 3
    (copy / "hidden" / "test-jpg" / f"{names[0]}.jpg").unlink()
    shutil.rmtree(copy / "data")
    assert f"no image for 1 ({names[0]}) of the 80 test ids" in fails(
        "infer", "tiny.toml", "--from", "hidden"
    )


def test_nothing_is_replaced_silently(copy: Path, fails):
    hidden_test_set(copy / "files", copy / "hidden")
    assert main(["infer", "tiny.toml"]) == 0
    shutil.rmtree(copy / "data")
    assert "was made with other ids" in fails("infer", "tiny.toml", "--from", "hidden")
    for path in (copy / "runs").rglob("infer.npz"):
        path.unlink()
    assert "--force replaces it" in fails("infer", "tiny.toml", "--from", "hidden")
    assert main(["infer", "tiny.toml", "--from", "hidden", "--force"]) == 0


def test_it_stops_on_time_and_goes_on(copy: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["infer", "tiny.toml", "--time-budget", "0.001s"]) == 3
    assert capsys.readouterr().err.startswith("comp infer: the time is up (")
    assert not (copy / "submission.csv").exists()
    assert main(["infer", "tiny.toml"]) == 0


def test_models_that_are_absent_are_named(copy: Path, fails):
    (copy / "runs" / "tiny" / "fold1" / "model.safetensors").unlink()
    assert "runs/tiny/fold1/model.safetensors" in fails("infer", "tiny.toml")
    assert main(["infer", "tiny.toml", "--folds", "0"]) == 0


def test_models_and_decisions_of_another_recipe_are_refused(copy: Path, fails):
    assert "was trained with phases.0.lr = 0.003, not 0.004" in fails(
        "infer", "tiny.toml", "--set", "phases.0.lr=0.004"
    )
    assert "was made with metric.beta = 2.0, not 1.0" in fails(
        "infer", "tiny.toml", "--set", "competition.metric.beta=1"
    )
    path = copy / "runs" / "tiny" / "decision.json"
    decision = json.loads(path.read_text())
    other = {**decision, "stamp": {**decision["stamp"], "labels": "0" * 16}}
    path.write_text(json.dumps(other))
    assert "was trained with other labels" in fails("infer", "tiny.toml")
    classes = dict(reversed(decision["thresholds"].items()))
    path.write_text(json.dumps({**decision, "thresholds": classes}))
    assert "other classes than" in fails("infer", "tiny.toml")
    folds = [copy / "runs" / "tiny" / f"fold{k}" / "model.safetensors" for k in (0, 1)]
    path.write_text(json.dumps(decision))
    shutil.copy(folds[0], folds[1])
    assert "fold1/model.safetensors was trained with fold = 0, not 1" in fails("infer", "tiny.toml")


def test_training_images_are_not_even_listed(copy: Path, monkeypatch: pytest.MonkeyPatch):
    from comp.config.loading import load_recipe
    from comp.data import discovery as finder

    listed: list[str] = []
    scandir = finder.os.scandir
    monkeypatch.setattr(finder.os, "scandir", lambda path: listed.append(Path(path).name) or scandir(path))
    parts = ("sample", "test")
    found, missing = FileFinder(load_recipe("tiny.toml").competition, [copy / "files"], parts).find()
    assert not missing
    assert found["files"].keys() == {"sample"}
    assert not found["images"]["train"]
    assert "test-jpg" in listed
    assert "train-jpg" not in listed

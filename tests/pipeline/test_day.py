"""A competitor's day on a folder that nobody prepared, as the README tells it: no --set is repeated, and no
file is opened by hand."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from comp.cli.main import main
from tests.fake_kaggle import FakeKaggle

SLUG = "aerial-scenes"
SMALL = (
    *("n_folds=2", "backbone=test_resnet", "pretrained=false", "views=identity", "n_trials=2"),
    f"competition.slug={SLUG}",
    "phases=[{ size = 32, epochs = 2, lr = 3e-3, batch_size = 16 }]",
)


@pytest.fixture
def folder(shared: Path, here: Path, kaggle: FakeKaggle) -> Path:
    """260 labelled images of UC Merced; 60 of them are the test set, whose labels a fake Kaggle knows."""
    with zipfile.ZipFile(shared / "ucmerced" / "ucmerced.zip") as archive:
        rows = pd.read_csv(archive.open("train.csv"), dtype=str).sample(260, random_state=0)
        train, test, place = rows[:200], rows[200:], here / "downloads"
        for split, part in (("train", train), ("test", test)):
            (place / f"{split}-jpg").mkdir(parents=True)
            for image in part["image_name"]:
                content = archive.read(f"train-jpg/{image}.jpg")
                (place / f"{split}-jpg" / f"{image}.jpg").write_bytes(content)
    train.to_csv(place / "train.csv", index=False)
    test.assign(tags="buildings").to_csv(place / "sample_submission.csv", index=False)
    usage = np.where(np.arange(len(test)) % 3, "Private", "Public")
    tables = {name: place / name for name in ("train.csv", "sample_submission.csv")}
    solution = test.assign(Usage=usage).to_csv(index=False)
    kaggle.add_competition(SLUG, tables, sample="sample_submission.csv", solution=solution)
    kaggle.score_after = 0.0
    return place


def test_a_day(folder: Path, kaggle: FakeKaggle, capsys: pytest.CaptureFixture[str]):
    def says(command: str, *more: str) -> str:
        assert main([*command.split(), *more]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    out = says("init downloads --name scenes")
    assert "train.csv" in out and "separated by spaces" in out and "comp run scenes.toml" in out
    settings = [word for setting in SMALL for word in ("--set", setting)]
    card = says("run scenes.toml --from downloads --as first", *settings)
    assert re.search(r"^cross-fitted +0\.\d{4}", card, re.M)
    says("run first --as second --set loss=bce+fbeta")
    assert "second" in says("runs") and "loss" in says("compare first second")
    says("blend first second --name mix")
    assert "cross-fitted" in says("decide mix")
    for run in ("first", "second", "mix"):
        assert re.search(r"^public +0\.\d{4}", says(f"submit {run} --send"), re.M)
    assert len(kaggle.submissions) == 3
    picked = says("ledger --pick")
    assert len(set(re.findall(r"\b(?:first|second|mix)-\w{8}\b", picked))) >= 2
    assert "mix" in says("runs --by score")

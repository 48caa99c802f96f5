"""The stages after each other, as a user runs them."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import comp
from comp.artifacts.predictions import load
from comp.cli.main import main
from comp.config.loading import load_recipe
from comp.data.manifest import read_manifest
from comp.decisions.metrics import FBeta
from tests.conftest import STAGES, TINY, run_all
from tests.fake_kaggle import FakeKaggle, old_planet


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which the tiny competition was run to its end."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "tiny.toml").write_text(TINY)
        run_all("tiny.toml")
    return folder


@pytest.fixture
def copy(finished: Path, here: Path) -> Path:
    shutil.copytree(finished, here, dirs_exist_ok=True)
    return here


def files_of(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"}


def test_a_second_run_does_nothing_and_says_so(copy: Path, capsys: pytest.CaptureFixture[str]):
    before = files_of(copy)
    run_all("tiny.toml")
    assert files_of(copy) == before
    assert capsys.readouterr().out.count("done already") == len(STAGES)


def test_the_submission_and_its_ledger_row(copy: Path):
    (name,) = (row["name"] for row in csv.DictReader((copy / "submissions" / "ledger.csv").open()))
    submission = pd.read_csv(copy / "submissions" / f"{name}.csv")
    sample = pd.read_csv(copy / "data" / "tiny" / "drawn" / "sample_submission.csv")
    assert submission["image_name"].tolist() == sample["image_name"].tolist()
    notes = json.loads((copy / "submissions" / f"{name}.json").read_text())
    assert notes["recipe"]["name"] == "tiny"
    assert set(notes["scores"]) == {"cross_fitted", "public", "private"}


def test_the_leaderboard_is_the_metric_on_each_part_of_the_hidden_labels(copy: Path):
    (row,) = csv.DictReader((copy / "submissions" / "ledger.csv").open())
    truth = pd.read_csv(copy / "data" / "tiny" / "drawn" / "solution.csv")
    answer = pd.read_csv(copy / "submissions" / f"{row['name']}.csv")
    names = sorted({tag for tags in [*truth["tags"], *answer["tags"]] for tag in tags.split()})

    def matrix(tags: pd.Series) -> np.ndarray:
        return np.array([[name in text.split() for name in names] for text in tags])

    for part in ("Public", "Private"):
        rows = (truth["Usage"] == part).to_numpy()
        expected = FBeta(beta=2, average="samples").score(
            matrix(truth["tags"])[rows], matrix(answer["tags"])[rows]
        )
        assert float(row[part.lower()]) == pytest.approx(expected, abs=1e-5)


def test_every_training_image_is_predicted_once_by_the_fold_that_did_not_see_it(copy: Path):
    recipe = load_recipe("tiny.toml")
    labels = read_manifest(recipe.competition).labels(recipe.competition)
    folds = pd.read_csv(copy / "folds" / "tiny-k2-s42.csv").set_index("id")["fold"]
    blended = load(copy / "runs" / "tiny" / "oof.npz", labels.classes)
    assert blended.ids.tolist() == labels.ids.tolist()
    for fold in (0, 1):
        part = load(copy / "runs" / "tiny" / f"fold{fold}" / "oof.npz", labels.classes)
        assert set(part.ids) == set(folds.index[folds == fold])
        rows = np.isin(blended.ids, part.ids)
        assert np.array_equal(
            blended.probs[rows], part.probs[np.argsort(part.ids)][np.argsort(np.argsort(blended.ids[rows]))]
        )


def test_the_decision_holds_three_honest_scores(copy: Path):
    decision = json.loads((copy / "runs" / "tiny" / "decision.json").read_text())
    scores = decision["scores"]
    rules = scores["rules"]
    assert list(rules) == ["0.5", "0.2", "global", "shrunk", "expected", "per-class"]
    assert {key: scores[key] for key in ("cross_fitted", "in_sample")} == rules[decision["rule"]]
    for picture in ("decision.png", "card.png"):
        assert (copy / "runs" / "tiny" / picture).read_bytes().startswith(b"\x89PNG")
    assert rules["per-class"]["in_sample"] >= rules["global"]["in_sample"]


def test_other_views_rerun_predict_and_not_train(copy: Path, fails, capsys: pytest.CaptureFixture[str]):
    views = ["--set", "views=['identity']"]
    assert main(["train", "tiny.toml", *views]) == 0
    assert "done already" in capsys.readouterr().out
    assert 'views.0 = "identity", not ' in (line := fails("predict", "tiny.toml", *views)) or "views" in line
    assert "--as NAME keeps both, --force replaces it" in line
    model = copy / "runs" / "tiny" / "fold0" / "model.safetensors"
    before = model.read_bytes()
    run_all("tiny.toml", *views, "--force")
    assert model.read_bytes() == before
    assert len((copy / "submissions" / "ledger.csv").read_text().splitlines()) == 3


def test_other_settings_do_not_replace_a_finished_or_a_half_trained_model(copy: Path, fails):
    line = fails("train", "tiny.toml", "--set", "phases.0.lr=0.5")
    assert "phases.0.lr = 0.003, not 0.5" in line
    (copy / "runs" / "tiny" / "fold0" / "model.safetensors").unlink()
    assert "phases.0.lr = 0.003, not 0.5" in fails(
        "train", "tiny.toml", "--folds", "0", "--set", "phases.0.lr=0.5"
    )


@pytest.mark.parametrize("fold", ["0", "1"])
def test_one_fold_alone_is_decided_and_submitted(here: Path, capsys: pytest.CaptureFixture[str], fold: str):
    run_all("tiny.toml", "--folds", fold, "--set", "phases.0.epochs=1")
    assert "one fold alone" in capsys.readouterr().out


def test_stages_called_too_early_say_what_comes_first(here: Path, fails):
    assert "run `comp download` first" in fails("folds", "tiny.toml")
    assert main(["download", "tiny.toml"]) == 0
    assert "run `comp folds` first" in fails("train", "tiny.toml")
    assert main(["folds", "tiny.toml"]) == 0
    assert "run `comp train` first" in fails("predict", "tiny.toml")
    assert "run `comp predict` first" in fails("blend", "tiny.toml")
    assert "run `comp blend` first" in fails("decide", "tiny.toml")
    assert "run `comp blend` first" in fails("submit", "tiny.toml")


def test_folds_decide_and_submit_never_import_torch(copy: Path):
    import subprocess
    import sys

    for stage in ("folds", "decide", "submit"):
        code = f"import sys; from comp.cli.main import main; main(['{stage}', 'tiny.toml'])"
        code += "; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True).returncode == 0


OWN = """
[labels]
csv = "labels.csv"
id = "file"
classes = ["left", "right"]
empty = true
group = "plate"

[images]
train = "cells/{id}-{channel}.png"
test = "unseen/{id}-{channel}.png"
channels = ["a", "b"]

[submission]
sample = "sample.csv"

[metric]
beta = 0.5
average = "macro"
"""


def test_a_competition_of_the_users_own_is_one_file_and_no_code(here: Path):
    """Two grey files an image, 0/1 columns, groups, images without labels, and a submission with a column a
    class."""
    rng = np.random.default_rng(0)
    for folder, n in (("cells", 40), ("unseen", 10)):
        (here / "mine" / folder).mkdir(parents=True)
        for i in range(n):
            for channel, lit in zip("ab", (i % 2, i // 2 % 2)):
                values = (rng.random((24, 24)) * 60 + 150 * lit).astype(np.uint8)
                Image.fromarray(values).save(here / "mine" / folder / f"{i:03}-{channel}.png")
    rows = [{"file": f"{i:03}", "left": i % 2, "right": i // 2 % 2, "plate": i // 5} for i in range(40)]
    pd.DataFrame(rows).to_csv(here / "mine" / "labels.csv", index=False)
    pd.DataFrame([{"file": f"{i:03}", "left": 0, "right": 0} for i in range(10)]).to_csv(
        here / "mine" / "sample.csv", index=False
    )
    (here / "own.toml").write_text(OWN)
    tiny = [
        "backbone=test_resnet",
        "pretrained=false",
        "n_folds=2",
        "n_trials=5",
        "ema_decay=0.5",
        "views=flips",
    ]
    tiny += ["phases=[{size = 32, epochs = 12, lr = 5e-3, batch_size = 4}]"]
    run_all("own.toml", "--from", "mine", *(word for setting in tiny for word in ("--set", setting)))
    (path,) = (p for p in (here / "submissions").glob("own-*.csv"))
    answer = pd.read_csv(path, dtype={"file": str})
    assert list(answer) == ["file", "left", "right"]
    assert (answer["left"] == [i % 2 for i in range(10)]).mean() >= 0.8
    assert (answer[["left", "right"]].sum(axis=1) == 0).any()  # an image may have no label
    folds = pd.read_csv(here / "folds" / "own-k2-s42.csv", dtype=str)
    assert (folds.assign(plate=[i // 5 for i in range(40)]).groupby("plate")["fold"].nunique() == 1).all()
    assert not list((here / "data" / "own").glob("cells*"))  # used in place


def test_the_real_planet_files_in_the_layout_of_the_mirror(here: Path, shared: Path):
    root = here / "in" / "planet" / "planet"
    root.mkdir(parents=True)
    (root / "train-jpg").symlink_to(shared / "planet256" / "train-jpg")
    (root / "test-jpg").symlink_to(shared / "planet256" / "test-jpg")
    extra = here / "in" / "test-jpg-additional"
    extra.mkdir()
    (extra / "test-jpg-additional").symlink_to(shared / "planet256" / "test-jpg-additional")
    shutil.copy(shared / "planet256" / "train.csv", root / "train_classes.csv")
    ids = [
        p.stem
        for split in ("test-jpg", "test-jpg-additional")
        for p in (shared / "planet256" / split).iterdir()
    ]
    pd.DataFrame({"image_name": ids, "tags": "primary"}).to_csv(root / "sample_submission.csv", index=False)
    settings = ["n_folds=2", "n_trials=5", "predict_batch_size=16"]
    settings += ["phases=[{size = 64, epochs = 1, batch_size = 8}, {size = 96, epochs = 1, batch_size = 8}]"]
    run_all("planet32", "--from", "in", *(word for setting in settings for word in ("--set", setting)))
    (path,) = (here / "submissions").glob("planet32-*.csv")
    assert pd.read_csv(path)["image_name"].tolist() == ids


def test_a_small_part_of_the_real_planet_from_a_kaggle_that_serves_its_archives(
    here: Path, shared: Path, kaggle: FakeKaggle
):
    old_planet(kaggle, shared, n_images=1000)
    settings = ["n_folds=2", "n_trials=5", "phases=[{size = 32, epochs = 6, lr = 5e-3}]"]
    run_all("planet32", "--send", *(word for setting in settings for word in ("--set", setting)))
    decision = json.loads((here / "runs" / "planet32" / "decision.json").read_text())
    assert decision["scores"]["cross_fitted"] > 0.72  # a constant answer scores 0.66 to 0.69
    (path,) = (here / "submissions").glob("planet32-*.csv")
    assert pd.read_csv(path)["image_name"].str.startswith("file_").any()
    (row,) = csv.DictReader((here / "submissions" / "ledger.csv").open())
    assert row["status"] == "complete" and row["public"] and row["ref"]


def test_the_library_holds_what_the_stages_made(copy: Path, fails):
    run = comp.run("tiny.toml")
    assert run.recipe == comp.load_run("tiny").recipe
    pd.testing.assert_index_equal(run.oof.index, run.targets.index)
    assert run.oof.shape == (90, 11) and run.test.shape == (60, 11)
    assert tuple(run.oof.columns) == run.classes == tuple(run.targets.columns)
    assert sorted(run.folds.unique()) == [0, 1] and run.folds.index.equals(run.targets.index)
    assert run.history[["fold", "epoch"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    (row,) = run.ledger.to_dict("records")
    assert row["cross_fitted"] == run.decision.scores["cross_fitted"]
    submitted = pd.read_csv(run.submission, keep_default_na=False).set_index("image_name")["tags"]
    decided = run.decision.predict(run.test)
    assert [" ".join(decided.columns[labels == 1]) for labels in decided.to_numpy()] == submitted.tolist()
    assert run.report().stat().st_size > 100_000 and run.decision.plot().axes
    files = [str(copy / f"data/tiny/drawn/test-jpg/{name}.jpg") for name in run.test.index[:3]]
    by_path = run.predict(files)
    assert by_path.index.tolist() == files
    assert by_path.to_numpy() == pytest.approx(run.test[:3].to_numpy(), abs=1e-5)
    arrays = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    assert run.predict(arrays).to_numpy() == pytest.approx(by_path.to_numpy(), abs=0.02)
    assert len(run.predict(files[0])) == len(run.predict(arrays[0])) == 1
    for call, message in (
        (lambda: comp.train("tiny", folds=[2]), "numbers from 0 to 1"),
        (lambda: comp.train("tiny.toml").predict([np.zeros((8, 8))]), "uint8 \\(height, width, 3\\)"),
        (lambda: comp.load_run("tine"), "there are 1 \\(tiny\\)"),
        (lambda: comp.train(comp.load_recipe("tiny.toml", {"mixup": 0.3})), "mixup = 0.0, not 0.3"),
    ):
        with pytest.raises(comp.CompError, match=message):
            call()
    assert "mixup = 0.0, not 0.3" in fails("train", "tiny.toml", "--set", "mixup=0.3")  # frozen by both
    assert main(["decide", "tiny"]) == 0 and comp.decide("tiny").name == "tiny"

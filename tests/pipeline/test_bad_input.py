"""Bad input, each with one clear line and nothing half-written. Some of it is tested where it is read: labels
in test_labels, fold files in test_folds, recipes in test_config, images in test_images, archives in
test_archives."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from comp.artifacts.predictions import Predictions, save
from comp.artifacts.stamps import digest
from comp.cli.main import main
from tests.conftest import comp, read_by


@pytest.fixture
def ready(here: Path) -> Path:
    for stage in ("download", "folds"):
        assert main([stage, *read_by(stage, ["tiny.toml"])]) == 0
    return here


def drawn(folder: Path) -> Path:
    return folder / "data" / "tiny" / "drawn"


def edit(path: Path, change) -> None:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    change(table).to_csv(path, index=False)


def runs_of(folder: Path) -> list[Path]:
    return (
        [
            p
            for p in (folder / "runs").rglob("*")
            if p.is_file() and p.suffix != ".lock" and p.name != "recipe.toml"  # kept by earlier stages
        ]
        if (folder / "runs").exists()
        else []
    )


def test_an_unknown_recipe_and_an_unknown_key(here: Path, fails):
    assert "did you mean 'demo'?" in fails("train", "dmo")
    assert "unknown key 'epoch'" in fails("train", "tiny.toml", "--set", "epoch=3")
    assert "no such file" in fails("train", "absent.toml")


def test_a_missing_column_and_an_id_twice(ready: Path, fails):
    edit(drawn(ready) / "train.csv", lambda t: t.rename(columns={"tags": "labels"}))
    assert "has no column 'tags'" in fails("train", "tiny.toml")
    edit(
        drawn(ready) / "train.csv",
        lambda t: pd.concat([t.rename(columns={"labels": "tags"}), t[:1].rename(columns={"labels": "tags"})]),
    )
    assert "more than once: 1 (train_0)" in fails("train", "tiny.toml")
    assert not runs_of(ready)


def test_a_label_that_is_not_in_the_list(ready: Path, fails):
    known = "competition.labels.classes=['primary', 'clear']"
    assert "not in the list of classes" in fails("folds", "tiny.toml", "--force", "--set", known)


def test_a_missing_and_a_cut_image_are_named_before_training(ready: Path, fails):
    (drawn(ready) / "train-jpg" / "train_3.jpg").unlink()
    assert "no image for 1 (train_3) of the 90 train ids" in fails("train", "tiny.toml")
    for name in ("test_5.jpg", "test_6.jpg"):
        path = drawn(ready) / "test-jpg" / name
        path.write_bytes(path.read_bytes()[:300])
    shutil.copy(drawn(ready) / "train-jpg" / "train_4.jpg", drawn(ready) / "train-jpg" / "train_3.jpg")
    line = fails("train", "tiny.toml")
    assert "can't be read: 2" in line and "test_5.jpg" in line and "test_6.jpg" in line
    assert not runs_of(ready)


def test_a_fold_file_that_lacks_ids(ready: Path, fails):
    edit(ready / "folds" / "tiny-k2-s42.csv", lambda t: t[t["id"] != "train_7"])
    assert "lacks ids: 1 (train_7); rerun `comp folds --force`" in fails("train", "tiny.toml")
    assert main(["folds", "tiny.toml", "--force"]) == 0
    assert len((ready / "folds" / "tiny-k2-s42.csv").read_text().splitlines()) == 91


def test_a_fold_file_of_the_users_own_is_kept(ready: Path):
    path = ready / "folds" / "tiny-k2-s42.csv"
    path.with_suffix(".json").unlink()
    edit(path, lambda t: t.assign(fold=[str(i % 2) for i in range(len(t))]))
    before = path.read_bytes()
    assert main(["folds", "tiny.toml"]) == 0
    assert path.read_bytes() == before


def test_predictions_of_other_classes_and_files_that_are_none(ready: Path, fails):
    folder = ready / "runs" / "tiny"
    probs = Predictions(np.array(["train_0"]), ("cat", "dog"), np.zeros((1, 2), np.float32))
    labels, folds = (pd.read_csv(name) for name in (drawn(ready) / "train.csv", "folds/tiny-k2-s42.csv"))
    fold_of = folds.set_index("id")["fold"].loc[labels["image_name"]].to_numpy()
    ids = digest(labels["image_name"].to_numpy(str)[fold_of == 0])
    for path in (folder / "fold0" / "oof.npz", folder / "fold0" / "test.npz"):
        save(path, probs, {"of": "somewhere else", "ids": ids})
    assert "predictions of other classes: 2 (cat, dog)" in fails("blend", "tiny.toml", "--folds", "0")
    (folder / "fold0" / "oof.npz").write_bytes(b"PK\3\4 cut short")
    assert "cannot be read" in fails("blend", "tiny.toml", "--folds", "0")
    assert not (folder / "oof.npz").exists()


def test_a_sample_submission_with_other_ids(ready: Path, fails):
    for stage in ("train", "predict", "blend", "decide"):
        assert main([stage, *read_by(stage, ["tiny.toml", "--folds", "0"])]) == 0
    edit(
        drawn(ready) / "sample_submission.csv", lambda t: t.assign(image_name=["other", *t["image_name"][1:]])
    )
    assert "lacks ids: 1 (other)" in fails("submit", "tiny.toml")
    edit(drawn(ready) / "sample_submission.csv", lambda t: pd.concat([t[1:], t[1:2]]))
    assert "more than once: 1 (test_1)" in fails("submit", "tiny.toml")
    assert not list((ready / "submissions").glob("tiny*")) if (ready / "submissions").exists() else True


def test_a_submission_with_rows_wrong_is_refused(ready: Path):
    from comp.config.loading import load_recipe
    from comp.data.manifest import read_manifest
    from comp.errors import CompError
    from comp.kaggle.submission_file import check_submission

    competition = load_recipe("tiny.toml").competition
    data = read_manifest(competition)
    ids, classes = data.sample_ids(competition).tolist(), data.labels(competition).classes

    def check(rows: list[tuple[str, str]]) -> None:
        text = pd.DataFrame(rows, columns=["image_name", "tags"]).to_csv(index=False)
        check_submission(text, Path("s.csv"), competition, classes, data.sample_ids(competition))

    good = [(i, "clear primary") for i in ids]
    check(good)
    for rows, message in (
        (good[1:], r"lacks ids of the sample submission: 1 \(test_0\)"),
        ([*good, ("extra", "clear")], r"has ids that the sample submission lacks: 1 \(extra\)"),
        ([*good, good[3]], r"more than once: 1 \(test_3\)"),
        (good[::-1], "not in the order"),
        ([(ids[0], "klear"), *good[1:]], r"not in the list of classes: 1 \(klear\)"),
        ([(ids[0], ""), *good[1:]], r"without any label, which tiny does not allow: 1 \(test_0\)"),
    ):
        with pytest.raises(CompError, match=message):
            check(rows)


def test_a_folder_that_is_not_there_and_one_without_the_files(here: Path, fails):
    assert "--from nowhere: no such folder" in fails("download", "planet", "--from", "nowhere")
    (here / "empty").mkdir()
    line = fails("download", "planet", "--from", "empty")
    assert "no labels file (train_v2.csv or train_classes.csv or train.csv)" in line and "--from" in line
    assert not (here / "data" / "planet" / "manifest.json").exists()


def test_files_that_went_away_after_the_download(ready: Path, fails):
    shutil.rmtree(drawn(ready) / "test-jpg")
    assert "is missing, but" in fails("folds", "tiny.toml")
    assert "is missing, but" in fails("download", "tiny.toml")
    assert main(["download", "tiny.toml", "--force"]) == 0


def test_a_wrong_from_leaves_what_was_there(ready: Path, fails):
    before = sorted(ready.rglob("*"))
    assert "no such folder" in fails("download", "tiny.toml", "--from", "nowhere", "--force")
    assert sorted(ready.rglob("*")) == before


def test_more_folds_than_images_and_torn_groups(ready: Path, fails):
    line = fails("folds", "tiny.toml", "--set", "n_folds=91")
    assert "90 images or groups can't fill 91 folds" in line
    edit(drawn(ready) / "train.csv", lambda t: t.assign(scene=[str(i // 9) for i in range(90)]))
    path = ready / "folds" / "tiny-k2-s42.csv"
    edit(path, lambda t: t.assign(fold=[str(i % 2) for i in range(90)]))
    path.with_suffix(".json").unlink()
    assert "groups in more than one fold: 10 (0, 1, 2, 3, 4, …)" in fails(
        "folds", "tiny.toml", "--set", "competition.labels.group='scene'"
    )


def test_a_model_of_other_settings_and_a_decision_for_other_predictions(ready: Path, fails):
    short = ["--folds", "0", "--set", "phases=[{size = 16, epochs = 1}]"]
    for stage in ("train", "predict", "blend", "decide", "submit"):
        assert main([stage, *read_by(stage, ["tiny.toml", *short])]) == 0
    assert "was trained with phases.0.lr = 0.001, not 0.003" in fails("predict", "tiny.toml", "--folds", "0")
    metric = "competition.metric.beta=1"
    assert "is for samples F2, not samples F1" in fails(
        "submit", *read_by("submit", ["tiny.toml", *short, "--set", metric])
    )
    more = [*short, "--set", "views=['identity']", "--force"]
    for stage in ("predict", "blend"):
        assert main([stage, *read_by(stage, ["tiny.toml", *more])]) == 0
    assert "was made for other predictions" in fails("submit", *read_by("submit", ["tiny.toml", *more]))


def test_what_later_stages_read_is_checked_before_training(ready: Path, fails):
    for key, message in (
        ("views=['d5']", "unknown view 'd5'; there are d4, flips, crops, identity"),
        ("rule=exakt", "no rule 'exakt'; there are 0.5, 0.2, global"),
        ("rule=drawn+exclusive", "needs groups of labels that exclude each other"),
        ("rule=shrunk+temperature", "+temperature works only with 'expected'"),
    ):
        assert message in fails("train", "tiny.toml", "--set", key)
    assert runs_of(ready) == []


def test_training_that_kept_nothing_is_begun_again_with_other_settings(ready: Path, fails):
    short = ["--folds", "0", "--set"]
    lost = "phases=[{size = 16, epochs = 1, lr = 1e30}]"
    assert "set precision" in fails("train", "tiny.toml", *short, lost, "--set", "clip_norm=1e30")
    assert main(["train", "tiny.toml", *short, "phases=[{size = 16, epochs = 1}]"]) == 0


def test_folds_that_do_not_exist(here: Path, fails):
    assert "--folds 7: numbers from 0 to 1" in fails("train", "tiny.toml", "--folds", "7")


def mounted(options: str, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `script` with a file system of its own mounted at `folder`/small. Skips where mounting isn't
    allowed."""
    (folder / "small").mkdir(exist_ok=True)
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c"]
    mount = f"mount -t tmpfs -o {options} tmpfs small"
    if (
        not shutil.which("unshare")
        or subprocess.run([*unshare, mount], cwd=folder, capture_output=True).returncode
    ):
        pytest.skip("this machine lets no one mount a file system of their own")
    environment = {**os.environ, "COMP_DATA": "small/data", "PY": sys.executable}
    return subprocess.run(
        [*unshare, f"{mount} && {script}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.parametrize("size", ["64k", "300k"])
def test_a_full_disk_is_one_line_and_leaves_nothing(here: Path, size: str):
    answer = mounted(
        f"size={size}", "$PY -m comp download tiny.toml; echo rc $?; find small -name 'drawn*'", here
    )
    assert answer.stdout.splitlines()[-1] == "rc 1"
    (line,) = answer.stderr.strip().splitlines()
    assert "No space left on device" in line


def test_a_disk_that_fills_up_while_images_are_decoded(here: Path):
    """The cache asks for its space at the start, so the error comes as a line and not as a crash."""
    script = """
    cp -r data small/ && $PY -m comp download tiny.toml --force &&
    $PY -m comp folds tiny.toml --force >/dev/null
    head -c 100M /dev/zero > small/filler
    $PY -m comp train tiny.toml --folds 0; echo rc $?
    find small -name '*.npy*'; rm small/filler
    $PY -m comp train tiny.toml --folds 0 >/dev/null; echo rc $?"""
    comp("download", "tiny.toml", cwd=here)
    answer = mounted("size=1500k", script, here)
    assert answer.stdout.splitlines()[-2:] == ["rc 1", "rc 0"], answer.stdout + answer.stderr
    assert "No space left on device" in answer.stderr


def test_a_disk_that_fills_up_under_a_checkpoint(here: Path):
    script = """
    head -c 100M /dev/zero > small/filler
    COMP_DATA=data COMP_RUNS=small/runs $PY -m comp train tiny.toml --folds 0; echo rc $?
    find small -name '*.pt' -o -name '*.safetensors' -o -name '*.partial'"""
    for stage in ("download", "folds"):
        comp(stage, "tiny.toml", cwd=here)
    answer = mounted("size=300k", script, here)
    assert answer.stdout.splitlines()[-1] == "rc 1", answer.stdout + answer.stderr
    (line,) = [line for line in answer.stderr.strip().splitlines() if not line.startswith("head:")]
    assert "No space left on device" in line


def test_a_read_only_folder_is_one_line(here: Path):
    script = "mount -o remount,ro small && $PY -m comp download tiny.toml; echo rc $?"
    answer = mounted("size=10m", script, here)
    assert answer.stdout.splitlines()[-1] == "rc 1"
    (line,) = answer.stderr.strip().splitlines()
    assert "Read-only file system" in line

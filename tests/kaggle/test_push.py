"""Kernels pushed to a fake Kaggle that runs them."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from comp.cli.main import main
from comp.kaggle.kernels import push as pushing
from tests.conftest import SLUG
from tests.fake_kaggle import FakeKaggle


@pytest.fixture
def ready(here: Path, built: Path, image: Path, kaggle: FakeKaggle, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(built, here, dirs_exist_ok=True, symlinks=True)
    monkeypatch.setattr(pushing, "POLL_SECONDS", (0.1, 0.5))
    files = {str(p.relative_to(here / "files")): p for p in (here / "files").rglob("*") if p.is_file()}
    kaggle.add_competition(SLUG, files, sample="sample_submission.csv")
    kaggle.python = str(image)
    return here


def push(kind: str, *more: str) -> int:
    return main(["kernel", "push", "tiny.toml", "--kind", kind, *more])


def n_versions(kaggle: FakeKaggle) -> dict[str, int]:
    return {ref: len(dataset.versions) for ref, dataset in kaggle.datasets.items()}


def test_a_pushed_kernel_runs_and_its_output_is_downloaded(ready: Path, kaggle: FakeKaggle, capsys):
    kaggle.fail("cut", r"PUT /upload", at=0.5)
    kaggle.fail("500", r"KernelsApiService/GetKernelSessionStatus")
    kaggle.fail("cut", r"GET .*submission.csv", at=0.5)
    assert push("infer") == 0
    printed = capsys.readouterr().out
    assert "17.5 of 30 GPU hours are left; it may take 8:30:00" in printed
    (pushed,) = kaggle.kernels["tester/comp-tiny-infer"].runs
    assert pushed.request["machineShape"] == "NvidiaTeslaT4"
    assert pushed.request["sessionTimeoutSeconds"] == 8.5 * 3600 + 600
    assert "complete" in printed and "kernel: submission.csv is written" in printed
    answer = pd.read_csv(ready / "runs/tiny/kernel-infer-v1/submission.csv")
    sample = pd.read_csv(ready / "files/sample_submission.csv")
    assert answer["image_name"].tolist() == sample["image_name"].tolist()
    assert (
        "submission.csv is written" in (ready / "runs/tiny/kernel-infer-v1/comp-tiny-infer.log").read_text()
    )
    datasets = {"tester/comp-wheels": 1, "tester/comp-tiny-infer-weights": 1}
    assert n_versions(kaggle) == datasets
    assert main(["kernel", "watch", "tiny.toml", "--kind", "infer"]) == 0
    decision = ready / "runs/tiny/decision.json"
    decision.write_text(json.dumps(json.loads(decision.read_text())))  # other bytes
    kaggle.python = shutil.which("true")  # a kernel that ends at once
    assert push("infer") == 0
    assert (ready / "runs/tiny/kernel-infer-v2/comp-tiny-infer.log").exists()
    assert n_versions(kaggle) == {**datasets, "tester/comp-tiny-infer-weights": 2}
    assert not kaggle.errors


def test_a_failed_kernel_shows_its_log(ready: Path, kaggle: FakeKaggle, fails, capsys):
    kaggle.add_competition(SLUG, {"train.csv": ready / "files/train.csv"}, sample="sample_submission.csv")
    line = fails("kernel", "push", "tiny.toml")
    assert "status error" in line and "comp-tiny-train.log" in line
    log = (ready / "runs/tiny/kernel-train-v1/comp-tiny-train.log").read_text()
    assert "comp download: tiny: no sample file" in log


def test_refused_inputs_are_named(ready: Path, kaggle: FakeKaggle, fails):
    kaggle.competitions[SLUG].accepted = False
    line = fails("kernel", "push", "tiny.toml", "--kind", "infer")
    assert f"competitions/{SLUG}" in line
    kaggle.fail("403", r"PUT /upload", times=9)
    (ready / "runs/tiny/kernel-infer-pushed.json").unlink()
    kaggle.datasets.clear()
    assert "could not be uploaded" in fails("kernel", "push", "tiny.toml", "--kind", "infer")

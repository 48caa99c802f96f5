"""A small drawn competition for the tests, the real data where it lies beside the checkout, and `comp` as
users call it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from comp import transfer
from comp.cli import main
from tests.fake_kaggle import FakeKaggle

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

TINY = """
extends = "demo"
n_folds = 2
n_trials = 5
ema_decay = 0.9

[competition]
name = "tiny"
title = "A small drawn competition"
drawn = { n_train = 90, n_test = 60, size = 32 }
labels = { csv = "train.csv", id = "image_name", column = "tags" }
images = { train = "train-jpg/{id}.jpg", test = "test-jpg/{id}.jpg" }
submission = { sample = "sample_submission.csv", solution = "solution.csv" }

[[phases]]
size = 16
epochs = 1
lr = 3e-3
batch_size = 16

[[phases]]
size = 32
epochs = 1
lr = 3e-3
batch_size = 16
"""

STAGES = ("download", "folds", "train", "predict", "blend", "decide", "submit")


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the real data is not beside the checkout")
    return SHARED


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with tiny.toml in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("COMP_DATA", "COMP_RUNS", "COMP_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "tiny.toml").write_text(TINY)
    return tmp_path


@pytest.fixture
def kaggle(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKaggle]:
    """A server that plays Kaggle, and credentials for it; comp tries again without long pauses."""
    folder = tmp_path_factory.mktemp("kaggle")
    monkeypatch.setattr(transfer, "PAUSES", (0.05,) * 4)
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_API_V1_TOKEN", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    with FakeKaggle(folder) as server:
        monkeypatch.setenv("HOME", str(folder))
        monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(folder))
        monkeypatch.setenv("KAGGLE_USERNAME", "tester")
        monkeypatch.setenv("KAGGLE_KEY", server.users["tester"])
        monkeypatch.setenv("COMP_KAGGLE_ENDPOINT", server.url)
        yield server


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `comp …`, which must fail with exit code 1 and one line; give that line."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert main(arguments) == 1
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith(f"comp {arguments[0]}: ")
        return lines[0]

    return run


def comp(
    *arguments: str, cwd: Path, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`comp …` as a process of its own."""
    answer = subprocess.run(
        [sys.executable, "-m", "comp", *arguments],
        cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert not check or answer.returncode == 0, answer.stdout + answer.stderr
    return answer


def run_all(*arguments: str) -> None:
    for stage in STAGES:
        assert main([stage, *arguments]) == 0, stage

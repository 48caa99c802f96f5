"""A time budget: each stage stops in time, and finished work is kept."""

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from comp.cli.main import main
from comp.compute.devices import Device
from comp.compute.jobs import show
from comp.compute.local_jobs import run_jobs
from comp.config.loading import load_recipe
from comp.console import ProgressBars, clock
from comp.data import image_files
from comp.deadline import NEVER, check_time, parse_budget
from comp.errors import CompError, TimeIsUp
from comp.training import trainer as training
from comp.training.epoch_lines import run_progress
from tests.conftest import read_by
from tests.data.test_images import folder_of


@pytest.mark.parametrize(("text", "seconds"), [("8.5h", 30600), ("90m", 5400), ("3600s", 3600)])
def test_a_budget_is_a_number_with_a_unit(text: str, seconds: float):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["90", "8.5 hours", "-1h", "0s", "h", ""])
def test_other_budgets_are_refused(text: str):
    with pytest.raises(CompError, match="h, m or s"):
        parse_budget(text)


def job(seconds: float, enough: bool, *, device: Device, report, deadline: float) -> None:
    """A job of a few seconds, which the time is `enough` for or not."""
    time.sleep(seconds)
    check_time(deadline if enough else 0.0, "some")
    report(line=f"{seconds} s of work done")


@pytest.mark.parametrize("n_places", [1, 2])
def test_jobs_without_a_deadline_all_end(n_places: int, capsys: pytest.CaptureFixture[str]):
    run_jobs(job, {"a": (0.1, True), "b": (0.2, True)}, [Device("cpu", 1)] * n_places, NEVER)
    assert capsys.readouterr().out.count("of work done") == 2


@pytest.mark.parametrize("n_places", [1, 2])
def test_when_the_time_is_up_no_job_is_started_and_the_running_ones_end(
    n_places: int, capsys: pytest.CaptureFixture[str]
):
    jobs = {"a": (0.1, False), "b": (3.0, True), "c": (0.1, True), "d": (0.1, True)}
    with pytest.raises(TimeIsUp) as stop:
        run_jobs(job, jobs, [Device("cpu", 1)] * n_places, time.time() + 3600)
    b = "b: not started, " if n_places == 1 else ""
    assert str(stop.value) == f"a: some, {b}c: not started, d: not started"
    assert capsys.readouterr().out == ("" if n_places == 1 else "b  3.0 s of work done\n")
    with pytest.raises(TimeIsUp, match="^b: not started$"):
        run_jobs(job, {"b": (0.1, True)}, [Device("cpu", 1)] * n_places, time.time() - 1)


def test_a_stopped_training_ends_with_the_same_weights_as_one_that_was_not(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    epochs = ("--set", "phases.0.epochs=5", "--folds", "0")
    monkeypatch.setenv("COMP_RUNS", "whole")
    for stage in ("download", "folds", "train"):
        assert main([stage, *read_by(stage, ["tiny.toml", *epochs])]) == 0
    monkeypatch.setenv("COMP_RUNS", "stopped")
    n_checks = 0

    def stop_in_the_second_epoch(deadline: float, done: str, *, needed: float = 0.0) -> None:
        nonlocal n_checks
        n_checks += 1
        check_time(0.0 if n_checks == 5 else deadline, done, needed=needed)

    with monkeypatch.context() as patch:
        patch.setattr(training, "check_time", stop_in_the_second_epoch)
        assert main(["train", "tiny.toml", *epochs, "--time-budget", "1h"]) == 3
    line = "comp train: the time is up (fold 0: 1 of 6 epochs); run it again to resume\n"
    assert capsys.readouterr().err == line
    with monkeypatch.context() as patch:
        expected = {3: 3601.0}
        patch.setattr(
            training.Trainer, "expected_seconds", lambda trainer: expected.get(trainer.n_epochs_done, 0.0)
        )
        assert main(["train", "tiny.toml", *epochs, "--time-budget", "1h"]) == 3
    assert capsys.readouterr().err == line.replace("1 of 6", "3 of 6")
    assert main(["train", "tiny.toml", *epochs]) == 0
    assert "resuming after epoch 3 of 6" in capsys.readouterr().out
    whole, stopped = (
        load_file(here / runs / "tiny" / "fold0" / "model.safetensors") for runs in ("whole", "stopped")
    )
    assert all(np.array_equal(whole[key], stopped[key]) for key in whole)


def test_an_epoch_that_would_end_too_late_is_not_started(here: Path):
    trainer = object.__new__(training.Trainer)
    trainer.recipe = load_recipe("tiny.toml")  # 1 epoch at 16 px, 1 at 32 px
    trainer.history = []
    assert trainer.expected_seconds() == 0
    trainer.history = [{"seconds": 10.0, "size": 16}]
    assert trainer.expected_seconds() == 40


def test_the_time_left_goes_by_pixels(here: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    phases = "phases=[{size = 16, epochs = 3, head_epochs = 1}, {size = 32, epochs = 2, batch_size = 4}]"
    inputs = SimpleNamespace(recipe=load_recipe("tiny.toml", [phases]), train_rows=np.arange(40))
    seconds = np.repeat([16**2 / 3, 16**2, 16**2, 32**2, 32**2], 10) / 10  # of each tenth of an epoch
    monkeypatch.setattr("comp.console.SECONDS_BETWEEN_LINES", 0.0)
    with ProgressBars() as bars:
        for i in range(50):
            monkeypatch.setattr("comp.console.time", SimpleNamespace(monotonic=lambda i=i: seconds[:i].sum()))
            show(bars, "fold 0", run_progress(inputs, i / 10))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"fold 0: {4 * i} of 200, {clock(seconds[i:].sum())} left" for i in range(1, 50)]


def test_prediction_and_resizing_stop_and_go_on(here: Path, monkeypatch: pytest.MonkeyPatch):
    for stage in ("download", "folds"):
        assert main([stage, *read_by(stage, ["tiny.toml"])]) == 0
    assert main(["train", "tiny.toml", "--folds", "0", "--time-budget", "0.001s"]) == 3
    assert not list((here / "data" / "tiny" / "cache").glob("*.npy"))
    assert main(["train", "tiny.toml", "--folds", "0"]) == 0
    assert main(["predict", "tiny.toml", "--folds", "0", "--time-budget", "0.001s"]) == 3
    assert not (here / "runs" / "tiny" / "fold0" / "oof.npz").exists()
    assert main(["predict", "tiny.toml", "--folds", "0"]) == 0


def test_resized_images_are_kept_when_the_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from comp.data import image_cache as module

    ids, folders = folder_of(tmp_path / "a", n=12)
    images = image_files.find_images("train", ids, folders, ())
    ticks = iter(range(1000))
    monkeypatch.setattr(module.time, "time", lambda: next(ticks))
    monkeypatch.setattr(module, "CHUNK", 4)
    with pytest.raises(TimeIsUp, match="7 of 12 train images resized"):
        module.build_caches({"train": (images, [16])}, tmp_path / "cache", "s", 6, 16)
    path = module.build_caches({"train": (images, [16])}, tmp_path / "cache", "s", NEVER, 16)["train"][16]
    whole = module.build_caches({"train": (images, [16])}, tmp_path / "whole", "s", NEVER, 16)["train"][16]
    assert np.array_equal(np.load(path), np.load(whole))

"""The rows that trackers receive: real clients where installed, and stand-ins that fail or hang."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from comp.cli.main import main
from comp.config.loading import load_recipe
from comp.tracking import follow as tracking
from comp.tracking.clients import INIT_TIMEOUT
from comp.tracking.run import Run
from tests.conftest import TINY, read_by

TRAIN = ["train", "tiny.toml", "--folds", "0"]


@pytest.fixture(scope="module")
def to_json(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with an untracked run."""
    folder = tmp_path_factory.mktemp("tracking")
    (folder / "tiny.toml").write_text(TINY.replace("epochs = 1", "epochs = 3", 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("COMP_DATA", "COMP_RUNS", "COMP_WEIGHTS"):
            patch.delenv(name, raising=False)
        for stage in ("download", "folds"):
            assert main([stage, *read_by(stage, ["tiny.toml"])]) == 0
        assert main(TRAIN) == 0
        (folder / "runs").rename(folder / "untracked")
        yield folder


@pytest.fixture
def there(to_json: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it without trained folds; clients have no accounts or folders."""
    shutil.copytree(to_json, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    return tmp_path / "copy"


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def stand_in(name: str, code: str, patch: pytest.MonkeyPatch) -> None:
    """Make a package with a tracker's name that is imported instead of the real one."""
    folder = Path("packages")
    folder.mkdir()
    (folder / f"{name}.py").write_text(code)
    patch.syspath_prepend(str(folder.resolve()))


def history(fold: int = 0) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(f"runs/tiny/fold{fold}/log.jsonl").open()]


def trained_the_same() -> bool:
    found, wanted = (load_file(f"{name}/tiny/fold0/model.safetensors") for name in ("runs", "untracked"))
    return all(np.array_equal(found[key], wanted[key]) for key in wanted)


def scalars(folder: str) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(folder).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_each_epoch_once_and_the_decision(there: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("tensorboard")
    track = ["--set", "track=tensorboard", "--set", "phases.0.epochs=150"]
    process = subprocess.Popen([sys.executable, "-m", "comp", *TRAIN, *track], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not Path("runs/tiny/fold0/tracked-tensorboard.json").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Path("runs/tiny/fold0/model.safetensors").exists()
    assert main([*TRAIN, *track]) == 0
    rows, found = history(), scalars("runs/tiny/tensorboard/fold0")
    for key in ("loss", "valid_loss", "mAP", "fbeta", "lr", "images_per_second", "memory"):
        assert [step for step, _ in found[key]] == list(range(1, 152))
        assert [value for _, value in found[key]] == pytest.approx([row[key] for row in rows], rel=1e-6)
    for stage in ("predict", "blend", "decide"):
        assert main([stage, *read_by(stage, ["tiny.toml", "--folds", "0", *track])]) == 0
    honest = json.loads(Path("runs/tiny/decision.json").read_text())["scores"]["cross_fitted"]
    assert scalars("runs/tiny/tensorboard/decision")["cross_fitted"] == [(1, pytest.approx(honest))]
    capsys.readouterr()
    assert main([*TRAIN, *track, "--set", "track=[]"]) == 0  # no stamp holds the tracker
    assert "done already" in capsys.readouterr().out


def test_what_is_trained_anew_is_another_run(there: Path):
    recipe = load_recipe("tiny.toml")
    seen = []
    for again in (False, False, True):
        if again:
            Path("runs/tiny/fold0/model.safetensors").unlink()
        assert main(TRAIN) == 0
        seen.append(Run(recipe, 0, {}).id)
    assert seen[0] == seen[1] != seen[2]


def test_a_client_that_is_not_installed_costs_a_line(there: Path, capsys, monkeypatch):
    stand_in("trackio", "raise ImportError(\"No module named 'trackio'\")", monkeypatch)
    assert main([*TRAIN, "--set", "track=trackio"]) == 0 and trained_the_same()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("trackio")]
    assert lines[0].startswith("trackio: No module named 'trackio'; pip install trackio.")
    assert len(lines) == 2 and "lacks 4 of 4 rows" in lines[1]


FAILING = """
def init(*arguments, **options):
    return Run()
class Run:
    def log(self, row, step):
        if step > 2 and not __import__("os").path.exists("mended"):
            raise ConnectionError("the server said no")
        open("told", "a").write(f"{step} ")
    def finish(self):
        pass
"""


def test_what_an_error_kept_back_is_told_by_the_same_command(there: Path, capsys, monkeypatch):
    stand_in("trackio", FAILING, monkeypatch)
    assert main([*TRAIN, "--set", "track=trackio"]) == 0 and trained_the_same()
    printed = capsys.readouterr().out
    assert printed.count("the server said no") == 1 and "trackio: lacks 2 of 4 rows" in printed
    Path("mended").touch()
    for _ in range(2):
        assert main([*TRAIN, "--set", "track=trackio"]) == 0
        assert "trackio" not in capsys.readouterr().out
        assert Path("told").read_text().split() == ["1", "2", "3", "4"]


def test_a_client_that_hangs_holds_nothing_up(there: Path, silent: int, capsys, monkeypatch):
    code = f"import socket\ndef init(*a, **o): socket.create_connection(('127.0.0.1', {silent})).recv(1)"
    stand_in("trackio", code, monkeypatch)
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 1.0)
    assert main([*TRAIN, "--set", "track=trackio"]) == 0 and trained_the_same()
    assert "trackio: lacks 4 of 4 rows" in capsys.readouterr().out


def test_rows_of_other_settings_are_not_told(there: Path, monkeypatch):
    stand_in("trackio", FAILING, monkeypatch)
    Path("mended").touch()
    shutil.copytree("untracked", "runs")
    assert main([*TRAIN, "--set", "track=trackio", "--set", "phases.0.epochs=1", "--force"]) == 0
    assert len(history()) == 2 and Path("told").read_text().split() == ["1", "2"]


@pytest.mark.skipif(not importlib.util.find_spec("mlflow"), reason="mlflow is not installed")
def test_mlflow_keeps_the_epochs_and_may_hang(there: Path, silent: int, capsys, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 60.0)
    for _ in range(2):  # the second one resumes
        assert main([*TRAIN, "--set", "track=mlflow"]) == 0
        Path("runs/tiny/fold0/tracked-mlflow.json").unlink()
    client = MlflowClient(f"sqlite:///{there / 'runs/mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert run.info.run_name == "tiny fold 0" and run.data.params["phases.0.epochs"] == "3"
    assert [m.step for m in client.get_metric_history(run.info.run_id, "mAP")] == [1, 2, 3, 4]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent}")
    started = time.monotonic()
    assert main([*TRAIN, "--set", "track=mlflow"]) == 0
    assert time.monotonic() - started < 4 * INIT_TIMEOUT + 30
    assert "mlflow: lacks 4 of 4 rows" in capsys.readouterr().out


@pytest.mark.skipif(not importlib.util.find_spec("wandb"), reason="wandb is not installed")
def test_wandb_writes_here_where_no_server_answers(there: Path, silent: int, capsys, monkeypatch):
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 90.0)
    monkeypatch.setenv("WANDB_API_KEY", "local-" + 40 * "a")
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent}")
    assert main([*TRAIN, "--set", "track=wandb"]) == 0 and trained_the_same()
    printed = capsys.readouterr().out
    assert printed.count("wandb: ") == 1 and "offline now" in printed and "lacks" not in printed
    assert len(list(Path("runs/tiny/wandb").glob("offline-run-*/run-*.wandb"))) == 1


@pytest.mark.skipif(not importlib.util.find_spec("trackio"), reason="trackio is not installed")
def test_trackio_keeps_the_epochs(there: Path, monkeypatch):
    storage = pytest.importorskip("trackio.sqlite_storage").SQLiteStorage
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 60.0)
    monkeypatch.setenv("TRACKIO_DIR", str(there / "trackio"))
    for _ in range(2):
        assert main([*TRAIN, "--set", "track=trackio"]) == 0
    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", there / "trackio")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", there / "trackio")
    (name,) = storage.get_runs("tiny")
    assert name.startswith("tiny fold 0 ")
    assert [row["step"] for row in storage.get_logs("tiny", name)] == [1, 2, 3, 4]

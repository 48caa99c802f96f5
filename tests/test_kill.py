"""Two folds at once, the parent killed, and the same command given again at once."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from comp.cli import main


@pytest.mark.usefixtures("all_cores")
def test_folds_side_by_side_go_on_after_their_parent_was_killed(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    train = ["train", "tiny.toml", "--set", "phases.0.epochs=6"]
    for stage in ("download", "folds"):
        assert main([stage, "tiny.toml", "--set", "competition.drawn.n_train=300"]) == 0
    monkeypatch.setenv("COMP_RUNS", "whole")
    assert main(train) == 0
    monkeypatch.setenv("COMP_RUNS", "killed")
    logs = [here / "killed" / "tiny" / f"fold{fold}" / "log.jsonl" for fold in (0, 1)]
    process = subprocess.Popen([sys.executable, "-m", "comp", *train], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any(log.exists() and len(log.read_text().splitlines()) >= 2 for log in logs):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    capsys.readouterr()
    assert main(train) == 0
    assert "goes on after epoch" in capsys.readouterr().out
    for fold in (0, 1):
        whole, killed = (
            load_file(here / name / "tiny" / f"fold{fold}" / "model.safetensors")
            for name in ("whole", "killed")
        )
        assert all(np.array_equal(whole[key], killed[key]) for key in whole)
    assert main(["predict", *train[1:]]) == 0
    assert len(list(here.glob("killed/tiny/fold?/oof.npz"))) == 2

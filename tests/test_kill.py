"""Two folds at once, the parent killed, and the same command given again at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import comp


@pytest.mark.usefixtures("all_cores")
def test_folds_side_by_side_go_on_after_their_parent_was_killed(here: Path):
    train = ["train", "tiny.toml", "--set", "phases.0.epochs=6"]
    for stage in ("download", "folds"):
        comp(stage, "tiny.toml", "--set", "competition.drawn.n_train=300", cwd=here)
    comp(*train, cwd=here, COMP_RUNS="whole")
    logs = [here / "killed" / "tiny" / f"fold{fold}" / "log.jsonl" for fold in (0, 1)]
    process = subprocess.Popen(
        [sys.executable, "-m", "comp", *train],
        cwd=here, env={**os.environ, "COMP_RUNS": "killed"}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not any(log.exists() and len(log.read_text().splitlines()) >= 2 for log in logs):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    answer = comp(*train, cwd=here, COMP_RUNS="killed")
    assert "goes on after epoch" in answer.stdout
    for fold in (0, 1):
        whole, killed = (
            load_file(here / name / "tiny" / f"fold{fold}" / "model.safetensors")
            for name in ("whole", "killed")
        )
        assert all(np.array_equal(whole[key], killed[key]) for key in whole)
    comp("predict", "tiny.toml", *train[2:], cwd=here, COMP_RUNS="killed")
    assert len(list(here.glob("killed/tiny/fold?/oof.npz"))) == 2

"""Processes of our own end with the one that they work for, without a word; and two folds at once, the parent
killed, and the same command given again at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from comp.cli.main import main
from comp.compute.devices import Device
from comp.compute.local_jobs import run_jobs
from comp.deadline import NEVER
from comp.errors import CompError

PARENT = """
import contextlib, os, signal, sys, time
from operator import methodcaller
from comp.child_processes import Child

def kill(*_):
    os.killpg(0, number) if number == signal.SIGINT else os.kill(os.getpid(), number)
    time.sleep(10)  # a signal may come a moment later

number, moment = int(sys.argv[1]), sys.argv[2]
if moment == "before a word":
    Child.send = kill
with contextlib.suppress(KeyboardInterrupt):
    children = [Child(methodcaller("recv")) for _ in range(2)]
    time.sleep(float(moment))
    kill()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["before a word", "0", "0.3"])
def test_children_end_with_their_parent_at_any_moment_and_say_nothing(number: int, moment: str):
    """The inherited output is closed once all child processes are gone."""
    answer = subprocess.run(
        [sys.executable, "-c", PARENT, str(int(number)), moment],
        capture_output=True, text=True, timeout=60, start_new_session=True,
    )  # fmt: skip
    assert (answer.stdout, answer.stderr) == ("", "")
    assert answer.returncode == (0 if number == signal.SIGINT else -number)


def dies(last: bool, *, device: Device, report, deadline: float) -> None:
    report(line="a word before")
    if last:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_job_is_named_after_what_it_said(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(CompError, match=r"^b was killed \(-9\), as .* memory runs out; run again to resume$"):
        run_jobs(dies, {"a": (False,), "b": (True,)}, [Device("cpu", 1)] * 2, NEVER)
    out, err = capfd.readouterr()
    assert "b  a word before" in out and not err


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
    process = subprocess.Popen(
        [sys.executable, "-m", "comp", *train], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not any(log.exists() and len(log.read_text().splitlines()) >= 2 for log in logs):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.communicate(timeout=60)[1] == b""  # the folds' processes hold it open until they end
    capsys.readouterr()
    assert main(train) == 0
    assert "resuming after epoch" in capsys.readouterr().out
    for fold in (0, 1):
        whole, killed = (
            load_file(here / name / "tiny" / f"fold{fold}" / "model.safetensors")
            for name in ("whole", "killed")
        )
        assert all(np.array_equal(whole[key], killed[key]) for key in whole)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # one fold after the other, in this process
    assert main(["predict", *train[1:]]) == 0
    assert len(list(here.glob("killed/tiny/fold?/oof.npz"))) == 2

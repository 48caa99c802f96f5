"""A Ray cluster of three machines, played by nodes here that share no folder for temporary files. The first
one asks and runs no jobs. Their Python knows what comp needs, but not comp."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
from safetensors.numpy import load_file
from safetensors.torch import save_file

from comp.cli.main import main
from comp.compute.devices import Device
from comp.compute.ray_jobs import device_for
from comp.errors import CompError
from tests.conftest import TINY

pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")
pytestmark = pytest.mark.usefixtures("all_cores")

QUICK = '{"health_check_period_ms":1000,"health_check_failure_threshold":3,"health_check_timeout_ms":3000}'
OVERRIDES = ("phases.0.epochs=12", "pretrained=true", "weights=weights")
SETTINGS = ["tiny.toml", *(f"--set={override}" for override in OVERRIDES)]
TRAIN, PREDICT = ["train", *SETTINGS], ["predict", *SETTINGS]


class Nodes:
    """Nodes of a Ray cluster, each with a folder for temporary files of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "lean"], check=True)
        self.python = folder / "lean" / "bin" / "python"
        (site,) = (folder / "lean" / "lib").glob("python*/site-packages")
        packages = {str(Path(module.__file__).parents[1]) for module in (np, pytest)}
        (site / "packages.pth").write_text("\n".join(packages))  # .pth files of these folders aren't read
        self.processes: dict[str, psutil.Popen] = {}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        head = ("--head", f"--port={self.port}", "--include-dashboard=false", f"--system-config={QUICK}")
        self.start("first", 0, *head, f"--temp-dir={folder}/ray")
        self.address = f"{address_in(folder / 'first.log')}:{self.port}"

    def start(self, name: str, n_cpus: int, *options: str) -> None:
        (self.folder / name).mkdir()
        log = self.folder / f"{name}.log"
        with log.open("w") as file:
            self.processes[name] = psutil.Popen(
                [self.python, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats",
                 f"--num-cpus={n_cpus}", "--num-gpus=0", "--object-store-memory=100000000", *options],
                env={**os.environ, "TMPDIR": str(self.folder / name)}, cwd="/",
                stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while "Ray runtime started" not in log.read_text():
            assert time.monotonic() < deadline and self.processes[name].poll() is None, log.read_text()
            time.sleep(0.1)

    def join(self, name: str) -> None:
        self.start(name, 1, f"--address={self.address}")

    def kill(self, name: str) -> None:
        top = self.processes.pop(name)
        for process in [top, *top.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        top.wait()


def address_in(log: Path) -> str:
    """Return the address that a node prints at its start."""
    return log.read_text().partition("Local node IP: ")[2].split()[0]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    folder = Path(tempfile.mkdtemp(prefix="comp-", dir="/tmp"))  # socket names must be short
    nodes = None
    try:
        nodes = Nodes(folder)
        nodes.join("a")
        nodes.join("b")
        yield nodes
    finally:
        for name in list(nodes.processes) if nodes else ():
            nodes.kill(name)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a competition, and in whole/ the results of a local run with one thread per fold."""
    folder = tmp_path_factory.mktemp("asking")
    (folder / "tiny.toml").write_text(TINY.replace("n_train = 90", "n_train = 400"))
    (folder / "weights").mkdir()
    state = timm.create_model("test_resnet").state_dict()
    save_file(state, folder / "weights" / "test_resnet.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COMP_RUNS", "whole")
        for stage in (["download", "tiny.toml"], ["folds", "tiny.toml"], TRAIN, PREDICT):
            assert main(stage) == 0
    return folder


@pytest.fixture
def runs(nodes: Nodes, folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """An empty folder for runs inside the competition's folder, with the cluster's address set."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    monkeypatch.setenv("COMP_RUNS", request.node.name)
    return folder / request.node.name


def test_a_killed_machine_costs_no_finished_epoch_and_changes_no_weight(
    nodes: Nodes, folder: Path, runs: Path, capfd: pytest.CaptureFixture[str]
):
    killed: dict[int, int] = {}  # by fold: the epochs received when its machine was killed
    ended = threading.Event()

    def kill() -> None:
        """Return a machine that trains, once three epochs of its fold were received."""
        while not ended.wait(0.02):
            for log in runs.glob("tiny/fold?/log.jsonl"):
                n_back, fold = len(log.read_text().splitlines()), log.parent
                here = fold / "last.pt"  # received after the log
                if n_back < 3 or not here.exists() or here.stat().st_mtime_ns < log.stat().st_mtime_ns:
                    continue
                for name in "ab":
                    if list((nodes.folder / name).glob(f"*/job-*/tiny/{fold.name}/last.pt")):
                        nodes.kill(name)
                        killed[int(fold.name[-1])] = n_back
                        return

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        assert main([*TRAIN, "--on", "ray"]) == 0
    finally:
        ended.set()
        killer.join()
    ((fold, n_done),) = killed.items()
    out = capfd.readouterr().out
    assert f"fold {fold}  lost its worker on" in out
    assert f"fold {fold}  resuming after epoch" in out
    for epoch in range(1, n_done + 1):
        assert out.count(f"fold {fold}  {epoch:>2}/13") == 1, out
    for fold in (0, 1):
        ours, theirs = (path / "tiny" / f"fold{fold}" for path in (runs, folder / "whole"))
        a, b = (load_file(path / "model.safetensors") for path in (ours, theirs))
        assert a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)
        names = {path.name for path in ours.iterdir() if not path.name.endswith(".lock")}
        assert names == {"log.jsonl", "model.safetensors", "started.json"}
        a, b = (json.loads((path / "started.json").read_text()) for path in (ours, theirs))
        assert (a["recipe"], a["stamp"]) == (b["recipe"], b["stamp"])
    for where in ("local", "ray"):
        assert main([*TRAIN, "--on", where]) == 0
        assert capfd.readouterr().out == "train: tiny fold 0, 1 done already\n"


def test_predictions_are_those_of_a_local_run(folder: Path, runs: Path):
    shutil.copytree(folder / "whole", runs)
    files = [runs / "tiny" / f"fold{fold}" / name for fold in (0, 1) for name in ("oof.npz", "test.npz")]
    for file in files:
        file.unlink()
    assert main([*PREDICT, "--on", "ray"]) == 0
    for file in files:
        assert file.read_bytes() == (folder / "whole" / file.relative_to(runs)).read_bytes()
    assert not list(runs.rglob(".*.partial"))


def test_an_error_on_another_machine_is_one_line_about_files_here(nodes: Nodes, runs: Path, fails):
    damaged = runs / "tiny" / "fold0" / "last.pt"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"damaged")
    line = fails(*TRAIN, "--folds=0", "--on=ray")
    assert line.startswith("comp train: fold 0 on ")
    assert f"{damaged.relative_to(runs.parent)} is damaged; remove it" in line
    assert str(nodes.folder) not in line


def test_a_budget_that_is_used_up_starts_no_job(runs: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*TRAIN, "--on=ray", "--time-budget=0.001s"]) == 3
    assert "fold 0: not started, fold 1: not started" in capsys.readouterr().err


def test_no_cluster_is_one_line(runs: Path, fails, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        line = fails(*TRAIN, "--on=ray")
    assert f"no Ray cluster (RAY_ADDRESS={address})" in line
    assert "ray start --head" in line


def test_places_are_a_gpu_each_or_the_most_cores_with_which_all_jobs_run_at_once():
    for n_cores in range(1, 9):
        for n_jobs in range(1, 9):
            assert device_for([{"CPU": n_cores}], n_jobs).n_threads == n_cores // min(n_jobs, n_cores)
    assert device_for([{}, {"CPU": 16.0}, {"CPU": 4.0}], 5) == Device("cpu", 4)
    assert device_for([{"CPU": 64.0}, {"CPU": 16.0, "GPU": 2.0}, {"CPU": 4.0, "GPU": 1.0}], 5) == Device(
        "cuda:0", 4
    )
    with pytest.raises(CompError, match="no machine"):
        device_for([{"memory": 1e9}], 1)

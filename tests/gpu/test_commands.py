"""Commands that compute run on a GPU as on a CPU, and each GPU gets folds of its own."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from comp.benchmarks.bare_step import make_bare_step
from comp.cli.main import main
from comp.compute.devices import Device, devices, n_cores
from comp.compute.local_jobs import run_jobs
from comp.config.loading import load_recipe
from tests.conftest import TINY
from tests.gpu.place_job import write_place
from tests.pretend_cuda import PretendCuda

SHORT = (
    'precision = "fp32"\nviews = ["flips"]\n'
    + TINY[: TINY.index("[[phases]]")].replace("n_train = 90, n_test = 60", "n_train = 50, n_test = 50")
    + "[[phases]]\nsize = 32\nepochs = 1\nlr = 3e-3\nbatch_size = 12\n"
    + '[tune]\n"phases.0.lr" = [3e-3, 1e-3]\n'
)


def compute(folder: Path) -> tuple[np.ndarray, list[float]]:
    """Train, predict and find a learning rate; return out-of-fold probabilities, and all losses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMP_RUNS", str(folder))
        for command, *options in (
            ["train", "--folds", "0"],
            ["predict", "--folds", "0"],
            ["find-lr", "--steps", "20", "--rates", "1e-4,1e-2"],
        ):
            assert main([command, "tiny.toml", *options]) == 0, command
    run = folder / "tiny"
    rows = [json.loads(line) for line in (run / "fold0" / "log.jsonl").open()]
    losses = json.loads((run / "find-lr-0.json").read_text())["losses"]
    with np.load(run / "fold0" / "oof.npz") as arrays:
        return arrays["probs"], losses + [row["valid_loss"] for row in rows]


def test_every_command_that_computes_does_on_a_gpu_what_it_does_on_a_cpu(here: Path, one_thread: None):
    if torch.cuda.is_available():
        pytest.skip("comp uses the GPU wherever there is one; tests/gpu/test_real_gpu.py compares")
    (here / "tiny.toml").write_text(SHORT)
    for stage in ("download", "folds"):
        assert main([stage, "tiny.toml"]) == 0
    probs, losses = compute(here / "cpu")
    with PretendCuda() as gpu:
        found, found_losses = compute(here / "gpu")
        assert main(["tune", "tiny.toml", "--trials", "1", "--folds", "0"]) == 0
        assert len(gpu.marks.by_address) > 1000  # it did run there
    assert np.abs(found - probs).max() < 1e-3
    assert len(losses) == 21
    assert found_losses == pytest.approx(losses, rel=1e-2)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_bare_step_waits_only_before_and_after(gpu: Any, precision: str):
    phases = "phases=[{size=32,epochs=1,batch_size=4,lr=1e-3}]"
    recipe = load_recipe("demo", [f"precision={precision}", phases])
    step = make_bare_step(recipe, recipe.phases[0], gpu.device, 3)
    assert step(1) > 0  # the first step makes the optimizer's state
    gpu.watching = True
    assert step(2) > 0
    gpu.watching = False
    assert sum(gpu.waits.values()) == 2 and all("synchroniz" in why for why in gpu.waits)


def test_each_gpu_gets_a_fold_in_a_process_of_its_own(pretended: PretendCuda, tmp_path: Path):
    pretended.n_gpus = 2
    places = devices(5)
    assert [place.name for place in places] == ["cuda:0", "cuda:1"]
    assert {place.n_threads for place in places} == {max(1, n_cores() // 2)}
    assert all(place.n_loaders >= 1 for place in places)
    run_jobs(write_place, {f"fold {fold}": (tmp_path,) for fold in range(2)}, places, float("inf"))
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written.keys() == {"cuda0", "cuda1"}
    assert len({*written.values(), str(os.getpid())}) == 3


def test_a_job_sets_up_its_own_gpu(pretended: PretendCuda, monkeypatch: pytest.MonkeyPatch):
    pretended.n_gpus = 2
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert Device("cuda:1", 4).activate() == torch.device("cuda:1")
    assert chosen == [torch.device("cuda:1")]
    assert torch.get_num_threads() == 2 and torch.backends.cudnn.benchmark

"""What only a real GPU shows: `./run.sh test -m gpu`. Elsewhere these tests are skipped."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from comp.training.trainer import Trainer
from tests.conftest import TINY, comp
from tests.gpu.conftest import CPU, difference, run_epochs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; torch sees none"),
]
New = Callable[..., Trainer]
GPU = torch.device("cuda:0")
BIG = "[{size=256,epochs=1,batch_size=32,lr=1e-3}]"


@pytest.mark.parametrize(("precision", "error"), [("fp32", 5e-3), ("bf16", 3e-2), ("fp16", 3e-2)])
@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
def test_each_precision_trains_as_fp32_on_a_cpu_does(
    new_trainer: New, precision: str, error: float, resident: bool
):
    there = new_trainer(GPU, resident, precision=precision, augment="satellite", mixup=0.2)
    here = new_trainer(CPU, precision="fp32", augment="satellite", mixup=0.2)
    for trainer in (there, here):
        run_epochs(trainer, 2)
    for key in ("loss", "valid_loss"):
        assert there.history[-1][key] == pytest.approx(here.history[-1][key], rel=error)
    assert difference(there.state.model.state_dict(), here.state.model.state_dict()) < 10 * error


def test_a_run_goes_on_from_its_checkpoint_to_rounding(new_trainer: New):
    whole = new_trainer(GPU, True, precision="fp16")
    run_epochs(whole)
    whole.save()
    again = new_trainer(GPU, True, precision="fp16")
    assert again.resume()
    for trainer in (whole, again):
        run_epochs(trainer)
    assert again.history[-1]["loss"] == pytest.approx(whole.history[-1]["loss"], rel=1e-3)


def test_memory_that_truly_runs_out_makes_micro_batches(new_trainer: New):
    settings = {"precision": "fp32", "phases": BIG, "ema_decay": 0}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    whole = new_trainer(GPU, True, **settings)
    held = torch.cuda.memory_allocated()
    run_epochs(whole)
    needed = torch.cuda.max_memory_allocated() - held
    del whole
    torch.cuda.empty_cache()
    trainer = new_trainer(GPU, True, **settings)
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 0.7 * needed) / total)
    try:
        lines = [event["line"] for event in run_epochs(trainer) if "line" in event]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert trainer.micro_batches.factor >= 2
    assert any("out of memory" in line for line in lines)
    assert np.isfinite(trainer.history[-1]["loss"])


def test_a_compiled_network_trains_as_well(new_trainer: New):
    losses = []
    for compiled in ("false", "true"):
        trainer = new_trainer(GPU, True, compile=compiled, precision="fp32")
        run_epochs(trainer)
        losses.append(trainer.history[-1]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=5e-3)


def test_a_run_is_trained_and_predicted_as_without_the_gpu(here: Path):
    (here / "tiny.toml").write_text('precision = "fp32"\n' + TINY)
    for stage in ("download", "folds"):
        comp(stage, "tiny.toml", cwd=here)
    found = []
    for name, visible in (("gpu", {}), ("cpu", {"CUDA_VISIBLE_DEVICES": ""})):
        for stage in ("train", "predict"):
            comp(stage, "tiny.toml", "--folds", "0", cwd=here, COMP_RUNS=name, **visible)
        with np.load(here / name / "tiny" / "fold0" / "oof.npz") as arrays:
            found.append(arrays["probs"])
    row = json.loads((here / "gpu" / "tiny" / "fold0" / "log.jsonl").read_text().splitlines()[-1])
    assert row["memory"] > 0
    assert np.abs(found[0] - found[1]).max() < 0.02

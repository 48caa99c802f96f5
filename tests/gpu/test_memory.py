"""When a GPU runs out of memory, batches go on as micro-batches, and nothing else changes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from comp.compute.devices import MicroBatches, is_out_of_memory
from comp.training.trainer import Trainer
from tests.gpu.conftest import CPU, difference, run_epochs

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB"
MESSAGES = {
    "allocator": FULL,
    "runtime": "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
    "driver": "CUDA driver error: out of memory",
    "engine": "GET was unable to find an engine to execute this computation",
    "algorithm": "Unable to find a valid cuDNN algorithm to run convolution",
    "cublas": "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "workspace": "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cudnn": "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "nvml": "NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp",
    "cpu": "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory",
}


class FailsAbove:
    """Raise the error where a convolution sees more than n images, in training or else in prediction."""

    def __init__(self, n: int, *, training: bool, error: Exception):
        self.n, self.training, self.error = n, training, error
        self.n_raised = 0

    def __call__(self, operator: Any, args: tuple[Any, ...]) -> None:
        forward = "conv" in str(operator) and "backward" not in str(operator)
        if forward and len(args[0]) > self.n and torch.is_grad_enabled() == self.training:
            self.n_raised += 1
            raise self.error


@pytest.mark.parametrize("training", [True, False], ids=["training", "validation"])
def test_a_run_that_is_out_of_memory_goes_on_in_micro_batches(
    gpu: Any, new_trainer: Callable[..., Trainer], training: bool
):
    settings = {"precision": "fp32", "phases": "[{size=32,epochs=2,batch_size=16,lr=1e-3}]"}
    there = new_trainer(gpu.device, True, **settings)
    gpu.before = FailsAbove(8, training=training, error=torch.OutOfMemoryError(FULL))
    lines = [event["line"] for event in run_epochs(there) if "line" in event]
    assert there.micro_batches.factor == (2 if training else 1)
    assert there.micro_valid.factor == (1 if training else 2)
    assert sum("batches of 16 run as 2 micro-batches" in line for line in lines) == training
    gpu.before = None
    if training:  # batch norms see half of a batch at once, as with `accumulate`
        settings["phases"] = settings["phases"].replace("lr=", "accumulate=2,lr=")
    here = new_trainer(CPU, **settings)
    run_epochs(here)
    assert difference(there.state.model.state_dict(), here.state.model.state_dict()) < 1e-3
    assert there.history[-1]["valid_loss"] == pytest.approx(here.history[-1]["valid_loss"], rel=1e-3)


def test_gradients_of_a_part_that_was_done_before_are_not_added_twice(
    gpu: Any, new_trainer: Callable[..., Trainer]
):
    settings = {"precision": "fp32", "ema_decay": 0, "clip_norm": 1e9}
    phases = "[{size=32,epochs=1,batch_size=32,accumulate=%d,lr=1e-3}]"
    norms = []
    for full in (True, False):
        trainer = new_trainer(gpu.device, False, phases=phases % (2 if full else 4), **settings)
        first_layers = 0

        def fail_once(operator: Any, args: tuple[Any, ...]) -> None:
            nonlocal first_layers
            if "convolution.default" in str(operator) and args[0].shape[1] == 3:
                first_layers += 1
                if first_layers == 2:
                    raise torch.OutOfMemoryError(FULL)

        def look(optimizer: Any, *_: Any) -> None:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
            norms.append(float(torch.nn.utils.get_total_norm(gradients)))

        trainer.state.optimizer.register_step_pre_hook(look)
        gpu.before = fail_once if full else None
        run_epochs(trainer)
        gpu.before = None
        assert trainer.micro_batches.factor == (2 if full else 1)
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


def test_an_error_of_another_kind_is_not_retried(gpu: Any, new_trainer: Callable[..., Trainer]):
    trainer = new_trainer(gpu.device, True, precision="fp32")
    gpu.before = FailsAbove(8, training=True, error=RuntimeError("CUDA error: an illegal memory access"))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        run_epochs(trainer)
    gpu.before = None


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_each_way_to_say_out_of_memory_makes_batches_smaller(message: str):
    def work(parts: list[slice]) -> int:
        if len(parts) < 4:
            raise RuntimeError(message)
        return len(parts)

    assert is_out_of_memory(RuntimeError(message))
    assert MicroBatches().run(8, work) == 4


def test_other_errors_are_not_taken_for_it():
    for message in (
        "CUDA error: device-side assert triggered",
        "CUBLAS_STATUS_EXECUTION_FAILED",
        "NCCL error",
    ):
        assert not is_out_of_memory(RuntimeError(message))

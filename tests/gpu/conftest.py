"""The device of the tests in this folder: a GPU where there is one, else a pretended one."""

import collections
import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from comp.config.loading import load_recipe
from comp.data.labels import Labels
from comp.training.trainer import Trainer
from comp.training.training_data import FoldInputs
from tests.pretend_cuda import T4, Hook, PretendCuda

CPU = torch.device("cpu")
N_IMAGES = 48  # in 3 folds: 2 training steps an epoch, of 16 images
PHASES = "[{size=32,epochs=1,batch_size=16,lr=1e-3},{size=40,epochs=1,batch_size=16,lr=1e-3}]"


class RealCuda(contextlib.ExitStack):
    """A GPU, with what the tests ask of a `PretendCuda`."""

    device = torch.device("cuda:0")
    real = True

    def __init__(self) -> None:
        super().__init__()
        self.before: Hook | None = None
        self.capability: tuple[int, int] = torch.cuda.get_device_capability()
        self.seen: list[warnings.WarningMessage] = []

    def __enter__(self) -> "RealCuda":
        super().__enter__()
        gpu = self

        class Hooked(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                if gpu.before:
                    gpu.before(func, args)
                return func(*args, **(kwargs or {}))

        capability = mock.patch.object(
            torch.cuda, "get_device_capability", lambda device=None: self.capability
        )
        self.enter_context(capability)
        self.seen = self.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        self.callback(torch.cuda.set_sync_debug_mode, 0)
        tf32 = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False  # fp32 is compared with a CPU's
        self.callback(setattr, torch.backends.cudnn, "allow_tf32", tf32)
        self.enter_context(Hooked())
        return self

    @property
    def watching(self) -> bool:
        return torch.cuda.get_sync_debug_mode() > 0

    @watching.setter
    def watching(self, value: bool) -> None:
        torch.cuda.set_sync_debug_mode("warn" if value else "default")

    @property
    def waits(self) -> collections.Counter[str]:
        texts = [f"{w.message} at {w.filename}:{w.lineno}" for w in self.seen]
        return collections.Counter(text for text in texts if "synchroniz" in text)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch use one thread: tiny networks are fastest so. What `Device.activate` changes is restored."""
    threads, exact = torch.get_num_threads(), torch.get_float32_matmul_precision()
    benchmark = torch.backends.cudnn.benchmark
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(exact)
    torch.backends.cudnn.benchmark = benchmark


@pytest.fixture
def gpu(one_thread: None) -> Iterator[Any]:
    """A device; of a pretended one, a T4's capability. `gpu.waits` counts what makes the CPU wait while
    `gpu.watching`, and `gpu.before` is called with each operator."""
    with RealCuda() if torch.cuda.is_available() else PretendCuda(T4) as device:
        yield device


@pytest.fixture
def pretended(one_thread: None) -> Iterator[PretendCuda]:
    """A pretended device, for what depends on which GPUs there are."""
    if torch.cuda.is_available():
        pytest.skip("a GPU can't be pretended where there is one")
    with PretendCuda(T4) as device:
        yield device


@pytest.fixture
def new_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trainer]:
    """Make a trainer of a tiny fold on a device, with these settings of a recipe."""
    monkeypatch.chdir(tmp_path)

    def make(device: torch.device, resident: bool | None = None, **settings: Any) -> Trainer:
        settings = {"competition.labels.exclusive": [], "ema_decay": 0.9, "phases": PHASES, **settings}
        recipe = load_recipe("demo", [f"{key}={value}" for key, value in settings.items()])
        rng = np.random.default_rng(0)
        caches = {}
        for phase in recipe.phases:
            path = tmp_path / f"cache-{phase.size}.npy"
            np.save(path, rng.integers(0, 256, (N_IMAGES, phase.size, phase.size, 3), np.uint8))
            caches[phase.size] = (path,)
        targets = (rng.random((N_IMAGES, 3)) < 0.4).astype(np.uint8)
        labels = Labels(np.arange(N_IMAGES).astype(str), ("a", "b", "c"), targets)
        inputs = FoldInputs(recipe, 0, labels, np.arange(N_IMAGES) % 3, caches, {})
        trainer = Trainer(inputs, device, 0)
        trainer.batches.resident = resident
        return trainer

    return make


@dataclass(frozen=True)
class Seen:
    """What a convolution was given."""

    shape: tuple[int, ...]
    channels_last: bool  # so are images, weights and answer
    training: bool


@pytest.fixture
def seen_by_convolutions() -> Iterator[list[Seen]]:
    """What convolutions of any network are given from now on."""
    found: list[Seen] = []

    def look(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...], answer: torch.Tensor) -> None:
        if isinstance(layer, torch.nn.Conv2d):
            parts = (inputs[0], layer.weight, answer)
            form = all(part.is_contiguous(memory_format=torch.channels_last) for part in parts)
            found.append(Seen(tuple(inputs[0].shape), form, layer.training))

    hook = torch.nn.modules.module.register_module_forward_hook(look)
    yield found
    hook.remove()


def run_epochs(trainer: Trainer, n: int = 1) -> list[dict[str, Any]]:
    """Train n epochs; return what they reported."""
    told: list[dict[str, Any]] = []
    for _ in range(n):
        trainer.epoch(lambda **event: told.append(event), float("inf"))
    return told


def watch_steps(gpu: Any, trainer: Trainer) -> None:
    """Train an epoch, and watch from the end of its first step, which makes the optimizer's state, to the end
    of its last one: batches, steps and looks at the loss."""
    update, n_steps = trainer.state.update, N_IMAGES * 2 // 3 // trainer.phase()[1].batch_size
    n_done = 0

    def watched() -> None:
        nonlocal n_done
        update()
        n_done += 1
        gpu.watching = n_done < n_steps

    trainer.state.update = watched  # type: ignore[method-assign]
    run_epochs(trainer)
    trainer.state.update = update  # type: ignore[method-assign]
    assert n_done == n_steps > 1


@torch.no_grad()
def difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Return the greatest difference of two networks' weights."""
    assert a.keys() == b.keys()
    return max(float((a[key].float().cpu() - b[key].float().cpu()).abs().max()) for key in a)

"""Data-parallel training within one job, as `torchrun` starts it: every rank works on its share of each
batch, and the gradient is that of the whole batch. Rank 0 alone writes files and reports."""

import atexit
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from timm.layers import convert_sync_batchnorm
from torch import nn

from comp.compute.devices import Device, n_cores

FEW = 16  # images, of which a batch norm's statistics are poor


@dataclass(frozen=True)
class Ranks:
    rank: int = 0
    size: int = 1

    @classmethod
    def of_torchrun(cls) -> "Ranks":
        """As torchrun tells of them; one alone without it."""
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    @classmethod
    @contextlib.contextmanager
    def joined(cls) -> Iterator["Ranks"]:
        """The ranks, which know of each other in here; all but the first are silent."""
        ranks = cls.of_torchrun()
        if ranks.size == 1:
            yield ranks
            return
        device = torch.device(ranks.place().name)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "nccl" if device.type == "cuda" else "gloo"
        if not torch.distributed.is_initialized():  # once a process: another group would never be complete
            torch.distributed.init_process_group(backend, timeout=timedelta(hours=2))
            atexit.register(torch.distributed.destroy_process_group)
        with contextlib.ExitStack() as stack:
            if not ranks.is_first:
                nowhere = stack.enter_context(Path(os.devnull).open("w"))
                stack.enter_context(contextlib.redirect_stdout(nowhere))
            yield ranks

    def place(self) -> Device:
        """This rank's GPU, or its share of the cores."""
        n_here = int(os.environ.get("LOCAL_WORLD_SIZE", self.size))
        n_threads = max(1, n_cores() // n_here)
        return Device(
            f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu", n_threads
        )

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This rank's part of n images: neighbours, in sizes that differ by one at most."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def agreed(self, value: Any) -> Any:
        """What rank 0 has."""
        if self.size == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box)
        return box[0]

    def gathered(self, rows: np.ndarray) -> np.ndarray:
        """All ranks' rows, after each other."""
        if self.size == 1:
            return rows
        parts: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(parts, rows)
        return np.concatenate(parts)

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.size > 1:
            torch.distributed.barrier()

    def summed(self, value: torch.Tensor) -> torch.Tensor:
        if self.size > 1:
            torch.distributed.all_reduce(value)
        return value

    def prepared(self, model: nn.Module, device: torch.device, n_images: int) -> nn.Module:
        """The model; where ranks see as few as `n_images` at once, on GPUs with batch norms that see those of
        all ranks, which costs a good part of a step."""
        few = self.size > 1 and n_images < FEW and device.type == "cuda"
        return convert_sync_batchnorm(model) if few else model

    def parallel(self, model: nn.Module, device: torch.device) -> nn.Module:
        """What runs the model and averages its gradients over the ranks."""
        if self.size == 1:
            return model
        ids = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)

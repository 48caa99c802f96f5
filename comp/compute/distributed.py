"""Data-parallel training (DDP) in one job, as `torchrun` starts it. Each rank works on its share of a batch;
the gradient is that of the whole batch. Only rank 0 writes files and prints."""

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
from comp.compute.gpus import usable_gpus
from comp.errors import CompError

TIMEOUT = timedelta(minutes=30)  # for a rank that is gone; caches are built outside of collectives
MIN_NORM_IMAGES = 16  # per GPU; with fewer, batch norms use the statistics of all GPUs


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train one network together; by default a single one."""

    rank: int = 0
    size: int = 1

    @classmethod
    def from_torchrun(cls) -> "ProcessGroup":
        """Return the group that torchrun's environment describes; a single process without it."""
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    @classmethod
    @contextlib.contextmanager
    def join(cls) -> Iterator["ProcessGroup"]:
        """Connect the ranks inside a `with` block. Only rank 0 prints."""
        ranks = cls.from_torchrun()
        if ranks.size == 1:
            yield ranks
            return
        device = torch.device(ranks.device().name)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "nccl" if device.type == "cuda" else "gloo"
        if not torch.distributed.is_initialized():  # once per process: a second group is never complete
            torch.distributed.init_process_group(backend, timeout=TIMEOUT)
            atexit.register(torch.distributed.destroy_process_group)
        with contextlib.ExitStack() as stack:
            if not ranks.is_first:
                nowhere = stack.enter_context(Path(os.devnull).open("w"))
                stack.enter_context(contextlib.redirect_stdout(nowhere))
            yield ranks

    def device(self) -> Device:
        """Return this rank's GPU, or its share of the cores. Raise CompError if there are fewer usable GPUs
        than ranks here."""
        n_here = int(os.environ.get("LOCAL_WORLD_SIZE", self.size))
        n_threads = max(1, n_cores() // n_here)
        gpus, others = usable_gpus()
        if not gpus:
            return Device("cpu", n_threads)
        if n_here > len(gpus):
            raise CompError(
                f"{n_here} processes were started for {len(gpus)} usable GPUs"
                f"{''.join(f'; {line}' for line in others)}; set torchrun's --nproc-per-node to {len(gpus)}"
            )
        return Device(f"cuda:{gpus[int(os.environ.get('LOCAL_RANK', 0))]}", n_threads)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, n: int) -> slice:
        """Return this rank's slice of n images. Sizes differ by at most one."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value."""
        if self.size == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box)
        return box[0]

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Return all ranks' rows, concatenated."""
        if self.size == 1:
            return rows
        parts: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(parts, rows)
        return np.concatenate(parts)

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self.size > 1:
            torch.distributed.barrier()

    def add_up(self, value: torch.Tensor) -> torch.Tensor:
        """Replace the tensor by its sum over ranks, and return it."""
        if self.size > 1:
            torch.distributed.all_reduce(value)
        return value

    def prepare(self, model: nn.Module, device: torch.device, n_images: int) -> nn.Module:
        """Return the model, with synchronised batch norms if each GPU sees few images (`n_images`) at once.
        These make a step noticeably slower."""
        few = self.size > 1 and n_images < MIN_NORM_IMAGES and device.type == "cuda"
        return convert_sync_batchnorm(model) if few else model

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Return the module to call, which averages gradients over the ranks."""
        if self.size == 1:
            return model
        ids = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)

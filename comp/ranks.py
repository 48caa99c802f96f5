"""Data-parallel training within one job, as `torchrun` starts it: every rank works on its share of each
batch, and the gradient is that of the whole batch. Rank 0 alone writes files and reports."""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed
from timm.layers import convert_sync_batchnorm
from torch import nn


@dataclass(frozen=True)
class Ranks:
    rank: int = 0
    size: int = 1

    @classmethod
    def started(cls) -> "Ranks":
        """The ranks that torchrun tells of, joined; one alone without it."""
        size = int(os.environ.get("WORLD_SIZE", 1))
        if size == 1:
            return cls()
        if not torch.distributed.is_initialized():
            if torch.cuda.is_available():
                torch.cuda.set_device(local_rank())
            backend = "nccl" if torch.cuda.is_available() else "gloo"
            torch.distributed.init_process_group(backend, timeout=timedelta(hours=2))
        return cls(torch.distributed.get_rank(), size)

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

    def summed(self, value: torch.Tensor) -> torch.Tensor:
        if self.size > 1:
            torch.distributed.all_reduce(value)
        return value

    def prepared(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model, on GPUs with batch norms that see the whole batch."""
        return convert_sync_batchnorm(model) if self.size > 1 and device.type == "cuda" else model

    def parallel(self, model: nn.Module, device: torch.device) -> nn.Module:
        """What runs the model and averages its gradients over the ranks."""
        if self.size == 1:
            return model
        ids = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", 0))

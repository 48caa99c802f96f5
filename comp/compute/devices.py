"""GPUs, cores and memory of this machine, and batches that shrink when memory runs out."""

import gc
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Device:
    name: str  # "cpu", "cuda:0", …
    n_threads: int  # for torch and for loading

    def activate(self) -> torch.device:
        torch.set_num_threads(self.n_threads if self.name == "cpu" else max(1, self.n_threads // 2))
        device = torch.device(self.name)
        if device.type == "cuda":
            torch.cuda.set_device(device)
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")
        return device

    def release(self) -> None:
        """Give back the memory that no tensor is in any more."""
        gc.collect()
        if self.name != "cpu":
            torch.cuda.empty_cache()

    @property
    def n_loaders(self) -> int:
        """Processes that load batches beside a GPU; on a CPU the step itself wants the cores."""
        return 0 if self.name == "cpu" else max(1, min(8, self.n_threads - 1))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch, or a library that it calls, found no memory: not all of them say it by a class."""
    signs = (
        "can't allocate memory",
        "CUDA out of memory",
        "CUDA error: out of memory",
        "unable to find an engine",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_ALLOC_FAILED",
    )
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in signs)


def memory_in_use(device: torch.device) -> int:
    """Bytes: the most that tensors held on a GPU so far, or what the process has in memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:  # not on Linux: the most so far
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_ranks() -> bool:
    """Whether this is one of several processes of torchrun, which have to agree on when to stop."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def devices(n_jobs: int) -> list[Device]:
    """The places where jobs run at once. On CPUs the cores are shared out evenly: small networks gain more
    from folds side by side than from threads. The split depends on the number of jobs asked for and not on
    how many are left, so that a resumed run rounds as the first did."""
    n_gpus = torch.cuda.device_count()
    if n_gpus:
        return [Device(f"cuda:{i}", max(1, n_cores() // n_gpus)) for i in range(n_gpus)]
    n_workers = max(1, min(n_jobs, n_cores()))
    return [Device("cpu", n_cores() // n_workers)] * n_workers


class Parts:
    """Works on batches as a whole, or in parts where memory runs out, which it remembers."""

    def __init__(self) -> None:
        self.size = 0  # images at once; 0: all

    def __call__(self, work: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        """What `work` gives for the images, under each other."""
        while True:
            try:
                return torch.cat([work(part) for part in images.split(self.size or len(images))])
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.size == 1:
                    raise
                self.size = max(1, (self.size or len(images)) // 2)
            if images.is_cuda:
                torch.cuda.empty_cache()

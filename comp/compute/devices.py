"""GPUs, cores and memory of this machine, and micro-batches when out of memory."""

import contextlib
import ctypes
import gc
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from comp.child_processes import CAN_START
from comp.compute.gpus import usable_gpus
from comp.console import info
from comp.errors import CompError

# Large tensors on huge pages, where the system gives these on request; torch reads it at its first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

T = TypeVar("T")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
LARGE = 32 << 20  # bytes; the most that every glibc takes
OUT_OF_MEMORY = (  # in lower case: parts of messages of an error that is a plain RuntimeError
    "can't allocate memory",
    "could not create a primitive",  # oneDNN lacks memory for its work space
    "out of memory",
    "unable to find an engine",  # cuDNN finds none whose workspace fits
    "unable to find a valid cudnn algorithm",  # the same
    "cublas_status_alloc_failed",
    "cublas_status_not_initialized",  # no memory for its workspace
    "cudnn_status_alloc_failed",
    "nvml_success == r",  # PyTorch fails while it composes the message
)


@dataclass(frozen=True)
class Device:
    name: str  # "cpu", "cuda:0", …
    n_threads: int  # shared by torch and the loaders

    def activate(self, *, deterministic: bool = False) -> torch.device:
        """Set up torch for this device, and return it. With `deterministic` a GPU computes the same bits each
        time, except where torch warns that an operation can't. Raise CompError for a GPU that can't be
        used."""
        torch.set_num_threads(self.n_threads if self.name == "cpu" else max(1, self.n_threads // 2))
        device = torch.device(self.name)
        if device.type == "cuda":
            if device.index not in usable_gpus()[0]:
                raise CompError(f"{self.name} can't be used; `comp check` says what can")
            if deterministic:  # cuBLAS reads it at its first call
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.cuda.set_device(device)
            torch.backends.cudnn.benchmark = not deterministic  # it times algorithms, and takes the fastest
            torch.use_deterministic_algorithms(deterministic, warn_only=True)
            torch.set_float32_matmul_precision("high")
        else:
            keep_freed_memory()
        return device

    def release(self) -> None:
        """Free the memory that no tensor uses."""
        gc.collect()
        if self.name != "cpu":
            torch.cuda.empty_cache()
            return
        with contextlib.suppress(AttributeError, OSError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)

    @property
    def n_loaders(self) -> int:
        """The number of loader processes: none on a CPU, where the training step needs all cores."""
        return 0 if self.name == "cpu" else max(1, min(8, self.n_threads - 1))


def keep_freed_memory() -> None:
    """Let this process keep the memory that tensors free, for the next ones; by default glibc gives much of
    it back to the system. A training step of `test_resnet` at 64 px asked for 2,000 pages anew, and took a
    third longer. Blocks of `LARGE` and more are given back: kept ones rarely fit others, and the process
    grows with each step. Other C libraries are left as they are."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # TypeError: Windows has no CDLL(None)
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def give_freed_memory_back() -> None:
    """Let this process give freed memory back to the system again, as glibc does by default: blocks that are
    kept don't fit others once memory is short."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 17)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 17)
        libc.malloc_trim(0)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether PyTorch, or a library that it calls, ran out of memory. Some of them only say so in the
    message."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(sign in text for sign in OUT_OF_MEMORY)


def memory_in_use(device: torch.device) -> int:
    """Return bytes: on a GPU the peak that tensors held so far, on a CPU what the process holds now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not on Linux
        return peak_memory()


def peak_memory() -> int:
    """Return the most bytes that this process held so far; 0 on Windows, where that is not known."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def n_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_ranks() -> bool:
    """Return whether this is one of several processes of torchrun."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def devices(n_jobs: int) -> list[Device]:
    """Return the devices that jobs run on in parallel: all usable GPUs, or equal shares of the cores. On CPUs
    small networks gain more from parallel folds than from threads. `n_jobs` is the number of requested jobs,
    not of unfinished ones, so a resumed run has the same number of threads and rounds the same. On Windows,
    jobs run one after the other. Raise CompError for GPUs that can't be used."""
    gpus, others = usable_gpus()
    for line in others:
        info(line)
    if not CAN_START:
        if len(gpus) > 1:
            info(f"on this system one GPU is used, cuda:{gpus[0]}; choose another by CUDA_VISIBLE_DEVICES")
        return [Device(f"cuda:{gpus[0]}" if gpus else "cpu", n_cores())]
    if gpus:
        return [Device(f"cuda:{i}", max(1, n_cores() // len(gpus))) for i in gpus]
    n_workers = max(1, min(n_jobs, n_cores()))
    return [Device("cpu", n_cores() // n_workers)] * n_workers


class MicroBatches:
    """Run batches whole, or as micro-batches once out of memory. The number of micro-batches is
    remembered."""

    def __init__(self, smallest: float = 1):
        self.smallest = smallest  # images in a micro-batch
        self.factor = 1  # by which the number of micro-batches was raised when out of memory

    def run(
        self,
        n: int,
        work: Callable[[list[slice]], T],
        *,
        n_parts: int = 1,
        let_go: Callable[[], bool] = lambda: False,
        retrying: Callable[[int], None] = lambda n_parts: None,
    ) -> T:
        """Return `work(parts)` for a batch of n images in `n_parts` micro-batches. When out of memory, call
        `let_go`, which frees what can be read again and returns whether there was any; else double the number
        of micro-batches. Call `retrying` with the number, and try again."""
        while True:
            parts = split_evenly(n, min(n, n_parts * self.factor))
            try:
                return work(parts)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if not let_go():
                    if n < 2 * self.smallest * len(parts):
                        raise
                    self.factor *= 2
            retrying(min(n, n_parts * self.factor))
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
            else:
                give_freed_memory_back()

    def over(
        self,
        images: torch.Tensor,
        work: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor],
        let_go: Callable[[], bool] = lambda: False,
        beside: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return `work` of the images and of what is `beside` each, its parts concatenated. `let_go` is that
        of `run`."""

        def in_parts(parts: list[slice]) -> torch.Tensor:
            return torch.cat([work(images[p], None if beside is None else beside[p]) for p in parts])

        return self.run(len(images), in_parts, let_go=let_go)


def split_evenly(n: int, n_parts: int) -> list[slice]:
    """Return slices that split n images into parts whose sizes differ by at most one."""
    ends = [n * k // n_parts for k in range(n_parts + 1)]
    return list(map(slice, ends[:-1], ends[1:]))


def processor_name(place: torch.device) -> str:
    """Return the name of the GPU, or of the CPU, that computes on a device."""
    return torch.cuda.get_device_name(place) if place.type == "cuda" else cpu_name()


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), platform.machine())

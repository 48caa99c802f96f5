"""A CUDA device that is pretended on the CPU, for tests of what code does on a GPU.

    with PretendCuda(capability=(7, 5)) as gpu:
        trainer = Trainer(inputs, gpu.device, 0)

Tensors keep real values, and the CPU computes with them. Which of them are "on the GPU" is kept by storage:
`.to("cuda")` and factories with device="cuda" mark what they make, and operators pass the mark on, forward
and backward. `.device` and `.is_cuda` tell it.

- What a GPU refuses is refused: tensors of two devices in one operator, `.numpy()` of a tensor on the GPU.
- What a GPU does later is done later: the target of a copy on a second stream, or of an asynchronous copy to
  the host, holds rubbish until something waits for the copy. Pinned memory that is written before its copy
  has ended is an error.
- What makes the CPU wait for the GPU is counted in `gpu.waits`, while `gpu.watching`.

It can't show speed, memory, rounding of CUDA's kernels, cuDNN, NCCL, Triton and real races.
"""

import collections
import contextlib
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

Tensor = torch.Tensor
Hook = Callable[[Any, tuple[Any, ...]], None]  # is called with each operator and its arguments
aten = torch.ops.aten
CPU = torch.device("cpu")
T4, H100 = (7, 5), (9, 0)  # compute capabilities

ASKS = {aten._has_compatible_shallow_copy_type.default}  # whether a tensor may take another's place
COPIES = {aten.copy_.default, aten._foreach_copy_.default, aten._to_copy.default}
INDEXED = {  # take indices from the host as well
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
WAITS = {  # operators whose result's size or value the CPU has to know
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten._unique2.default,
}
UNPINNED = "copy to the GPU from memory that isn't pinned, or without non_blocking"
TO_HOST = "copy to the host"


class Marks:
    """Where storages are said to be: "cuda" or "pinned"; others are ordinary memory."""

    def __init__(self) -> None:
        self.by_address: dict[int, tuple[StorageWeakRef, str]] = {}

    def add(self, tensor: Tensor, mark: str) -> None:
        ref = StorageWeakRef(tensor.untyped_storage())
        self.by_address[ref.cdata] = (ref, mark)  # the weak reference keeps the address from being reused

    def remove(self, tensor: Tensor) -> None:
        self.by_address.pop(tensor.untyped_storage()._cdata, None)

    def get(self, tensor: Tensor) -> str | None:
        if tensor.layout is not torch.strided:
            return None
        found = self.by_address.get(tensor.untyped_storage()._cdata)
        return found[1] if found and not found[0].expired() else None


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Within it, tensors are worked on as the CPU's."""
    with torch._C.DisableTorchFunction(), _disable_current_modes(), torch.no_grad():
        yield


class Copy:
    """A copy between host and GPU that the CPU has not waited for."""

    def __init__(self, source: Tensor, target: Tensor, stream: "Stream", to_host: bool):
        with plainly():
            self.source, self.target = source.detach(), target.detach()
            self.values = self.source.clone()  # of the moment at which the copy was asked for
            self.target.fill_(float("nan") if target.is_floating_point() else 113)
        self.streams, self.to_host, self.arrived = {stream}, to_host, False

    def arrive(self) -> None:
        if not self.arrived:
            with plainly():  # the GPU's memory keeps the stream's order; the host's is read when it is read
                self.target.copy_(self.values if self.to_host else self.source)
        self.arrived = True

    def check(self) -> None:
        """Raise where pinned memory was written before the copy from it had ended."""
        with plainly():
            if not self.to_host and not torch.equal(self.source, self.values):
                raise RuntimeError("pinned memory was overwritten before its copy to the GPU had ended")


class Stream:
    def __init__(self, device: Any = None, priority: int = 0, **_: Any):
        pass

    def copies(self) -> list[Copy]:
        return [copy for copy in PretendCuda.now.copies if self in copy.streams]

    def follow(self, copies: list[Copy]) -> None:
        """Let what is asked of this stream from now on come after the copies; the CPU does not wait."""
        for copy in copies:
            copy.streams.add(self)
            if not copy.to_host:
                copy.arrive()

    def wait_stream(self, other: "Stream") -> None:
        self.follow(other.copies())

    def wait_event(self, event: "Event") -> None:
        self.follow(event.copies)

    def synchronize(self) -> None:
        PretendCuda.now.wait("stream")
        PretendCuda.now.finish(self.copies())

    def query(self) -> bool:
        return not self.copies()

    def record_event(self, event: "Event | None" = None) -> "Event":
        event = event or Event()
        event.record(self)
        return event


class Event:
    def __init__(self, **_: Any):
        self.copies: list[Copy] = []
        self.n_asked = 0

    def record(self, stream: Stream | None = None) -> None:
        self.copies, self.n_asked = (stream or PretendCuda.now.stream).copies(), 0

    def wait(self, stream: Stream | None = None) -> None:
        (stream or PretendCuda.now.stream).follow(self.copies)

    def query(self) -> bool:
        self.n_asked += 1
        if self.copies and self.n_asked < 2:  # not there yet, the first time
            return False
        PretendCuda.now.finish(self.copies)
        return True

    def synchronize(self) -> None:
        PretendCuda.now.wait("event")
        PretendCuda.now.finish(self.copies)


class Generator(torch._C.Generator):
    def __new__(cls, device: Any = None) -> "Generator":
        return super().__new__(cls, device="cpu")


class Operators(TorchDispatchMode):
    """Passes marks on, and refuses what a GPU refuses."""

    def __init__(self, gpu: "PretendCuda"):
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, gpu = dict(kwargs or {}), self.gpu
        if gpu.before:
            gpu.before(func, args)
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        places = [gpu.marks.get(x) for x in tensors]
        on_gpu = "cuda" in places
        device, pinned = kwargs.get("device"), kwargs.get("pin_memory")
        if pinned:
            kwargs["pin_memory"] = False
        if device is not None and torch.device(device).type == "cuda":  # made there, or sent there
            kwargs["device"] = CPU
            if tensors and func is aten._to_copy.default and not on_gpu and tensors[0].dim():
                gpu.wait(UNPINNED)
            on_gpu = True
        elif on_gpu and func not in COPIES | ASKS:
            strangers = [x for x, place in zip(tensors, places) if place != "cuda" and x.dim()]
            if strangers and func in INDEXED:
                gpu.wait("index from the host")
            elif strangers:
                raise RuntimeError(
                    f"Expected all tensors to be on the same device, but {func} got cuda:0 and cpu"
                )
            if func in WAITS:
                gpu.wait(str(func))
        elif func is aten.copy_.default and on_gpu and places[:2] != ["cuda", "cuda"] and tensors[1].dim():
            asynchronous = places[1] == "pinned" and (kwargs.get("non_blocking") or args[2:] == (True,))
            if not asynchronous:
                gpu.wait(UNPINNED if places[0] == "cuda" else TO_HOST)
        out = func(*args, **kwargs)
        if func is aten.copy_.default:  # stays where its target is
            return out
        if on_gpu or pinned:
            for x in tree_leaves(out):
                if isinstance(x, Tensor):
                    gpu.marks.add(x, "cuda" if on_gpu else "pinned")
        return out


class Functions(TorchFunctionMode):
    """Stands for functions whose work the operators don't see."""

    def __init__(self, gpu: "PretendCuda"):
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, gpu = dict(kwargs or {}), self.gpu
        name = getattr(func, "__name__", "")
        if name in ("tensor", "as_tensor", "asarray") and kwargs.get("device") is not None:
            device = torch.device(kwargs.pop("device"))
            return gpu.to(func(*args, **kwargs), device)
        if not (args and isinstance(args[0], Tensor)):
            return func(*args, **kwargs)
        if name == "to":
            return gpu.to(*args, **kwargs)
        if name in ("cpu", "cuda"):
            return gpu.to(args[0], CPU if name == "cpu" else gpu.device, **kwargs)
        if name == "copy_" and (kwargs.get("non_blocking") or args[2:] == (True,)):
            target, source = args[:2]
            if gpu.is_on(source) and not gpu.is_on(target):
                return gpu.copy_later(source, target, to_host=True)
            if gpu.is_on(target) and gpu.marks.get(source) == "pinned" and gpu.stream is not gpu.main:
                return gpu.copy_later(source, target, to_host=False)
        if name == "pin_memory":
            if gpu.is_on(args[0]):
                raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
            out = args[0].clone(memory_format=torch.preserve_format)
            gpu.marks.add(out, "pinned")
            return out
        if name in ("numpy", "__array__") and gpu.is_on(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        if name == "tolist" and gpu.is_on(args[0]):
            gpu.wait("tolist")
        out = func(*args, **kwargs)
        if name == "__deepcopy__" and gpu.is_on(args[0]):
            gpu.marks.add(out, "cuda")
        return out


class PretendCuda(contextlib.ExitStack):
    """The device. `capability` is that of CUDA, `free` its memory in bytes; `before` may raise errors."""

    now: "PretendCuda"
    device = torch.device("cuda:0")
    real = False

    def __init__(self, capability: tuple[int, int] = T4, n_gpus: int = 1, free: float = 15e9):
        super().__init__()
        self.capability, self.n_gpus, self.free = capability, n_gpus, int(free)
        self.before: Hook | None = None
        self.marks, self.main, self.copies = Marks(), Stream(), list[Copy]()
        self.waits: collections.Counter[str] = collections.Counter()
        self.thread = threading.local()  # each has a current stream

    # --- what is where, and who waits

    @property
    def stream(self) -> Stream:
        return getattr(self.thread, "stream", self.main)

    @property
    def watching(self) -> bool:
        return getattr(self.thread, "watching", False)

    @watching.setter
    def watching(self, value: bool) -> None:
        self.thread.watching = value

    def is_on(self, tensor: Tensor) -> bool:
        return self.marks.get(tensor) == "cuda"

    def device_of(self, tensor: Tensor) -> torch.device:
        return self.device if self.is_on(tensor) else torch._C.TensorBase.device.__get__(tensor)

    def wait(self, why: str) -> None:
        if self.watching:
            lines = [
                f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"
                for frame in traceback.extract_stack()
                if "/comp/" in frame.filename and "site-packages" not in frame.filename
            ]
            self.waits[f"{why} at {lines[-1] if lines else '?'}"] += 1

    def finish(self, copies: list[Copy]) -> None:
        """The CPU has waited for the copies."""
        for copy in list(copies):
            copy.arrive()
            if copy in self.copies:
                self.copies.remove(copy)
                copy.check()

    def copy_later(self, source: Tensor, target: Tensor, to_host: bool) -> Tensor:
        for copy in self.copies:
            copy.check()
        self.copies.append(Copy(source, target, self.stream, to_host))
        return target

    def to(self, tensor: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
        """Stand for `tensor.to`."""
        other = args[0] if args else kwargs.get("other")
        if isinstance(other, Tensor):
            device, dtype, non_blocking, form = self.device_of(other), other.dtype, False, None
        else:
            if len(args) > 3:
                args, copy = args[:3], args[3]
            with torch._C.DisableTorchFunction():
                device, dtype, non_blocking, form = torch._C._nn._parse_to(*args, **kwargs)
        was_there = self.is_on(tensor)
        goes_there = was_there if device is None else device.type == "cuda"
        plan = {"dtype": dtype or tensor.dtype, "memory_format": form or torch.preserve_format}
        with torch._C.DisableTorchFunction():
            if was_there == goes_there:
                return tensor.to(copy=copy, **plan)
            if non_blocking and was_there:
                out = torch.empty_like(tensor, **plan)
            else:
                out = tensor.to(copy=True, **plan)
        if goes_there:
            pinned = self.marks.get(tensor) == "pinned"
            if not (pinned and non_blocking) and tensor.dim():
                self.wait(UNPINNED)
            self.marks.add(out, "cuda")
            if pinned and non_blocking and self.stream is not self.main:
                self.copy_later(tensor, out, to_host=False)
            return out
        self.marks.remove(out)
        if non_blocking:
            self.marks.add(out, "pinned")
            return self.copy_later(tensor, out, to_host=True)
        self.wait(TO_HOST)
        return out

    # --- torch.cuda

    @contextlib.contextmanager
    def on_stream(self, stream: Stream) -> Iterator[None]:
        before, self.thread.stream = self.stream, stream
        yield
        self.thread.stream = before

    def synchronize(self, device: Any = None) -> None:
        self.wait("synchronize")
        self.finish(self.copies)

    def __enter__(self) -> "PretendCuda":
        super().__enter__()
        PretendCuda.now = self
        autocast, load, run = torch.autocast, torch.load, threading.Thread.run
        group = torch._C._group_tensors_by_device_and_dtype

        def group_here(lists: Any, with_indices: bool = False) -> Any:
            return {
                (self.device_of(next(t for t in parts[0][0] if t is not None)), key[1]): parts
                for key, parts in group(lists, with_indices).items()
            }

        def autocast_here(device_type: str, *args: Any, **kwargs: Any) -> Any:
            return autocast("cpu" if device_type == "cuda" else device_type, *args, **kwargs)

        def load_here(file: Any, map_location: Any = None, **kwargs: Any) -> Any:
            state = load(file, map_location="cpu", **kwargs)
            if map_location is not None and torch.device(map_location).type == "cuda":
                for x in tree_leaves(state):
                    if isinstance(x, Tensor):
                        self.marks.add(x, "cuda")
            return state

        def run_here(thread: threading.Thread) -> None:  # modes are those of a thread
            with Operators(self), Functions(self):
                run(thread)

        cuda = {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "device_count": lambda: self.n_gpus,
            "current_device": lambda: 0,
            "get_device_capability": lambda device=None: self.capability,
            "get_arch_list": lambda: ["sm_75", "sm_90"],
            "get_device_name": lambda device=None: "pretended",
            "mem_get_info": lambda device=None: (self.free, self.free),
            "set_device": lambda device: None,
            "empty_cache": lambda: None,
            "synchronize": self.synchronize,
            "reset_peak_memory_stats": lambda device=None: None,
            "max_memory_allocated": lambda device=None: 1,
            "manual_seed_all": lambda seed: None,
            "current_stream": lambda device=None: self.stream,
            "default_stream": lambda device=None: self.main,
            "stream": self.on_stream,
            "Stream": Stream,
            "Event": Event,
            "_lazy_init": lambda: None,
        }
        places: list[tuple[Any, str, Any]] = [(torch.cuda, name, value) for name, value in cuda.items()]
        places += [
            (torch, "autocast", autocast_here),
            (torch, "load", load_here),
            (torch, "Generator", Generator),
            (torch._C, "_group_tensors_by_device_and_dtype", group_here),
            (threading.Thread, "run", run_here),
        ]
        for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
            if hasattr(torch.optim.Optimizer, name):  # the one or the other, by version
                places.append((torch.optim.Optimizer, name, lambda optimizer: None))
        for place, name, value in places:
            self.enter_context(mock.patch.object(place, name, value))
        own: dict[str, Any] = {
            "device": property(self.device_of),
            "is_cuda": property(self.is_on),
            "is_pinned": lambda tensor, device=None: self.marks.get(tensor) == "pinned",
            "record_stream": lambda tensor, stream: None,
        }
        for name, value in own.items():  # of the C++ class below, so that these are new here
            assert name not in Tensor.__dict__
            setattr(Tensor, name, value)
            self.callback(delattr, Tensor, name)
        self.enter_context(Operators(self))
        self.enter_context(Functions(self))
        return self

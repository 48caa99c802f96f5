"""From image caches to batches on the device."""

import gc
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from comp.batches.augmentation import Transform, training_transform
from comp.batches.sampling import Step
from comp.compute.devices import is_out_of_memory
from comp.config.augment import Augment
from comp.data.image_files import open_cache, resize
from comp.errors import CompError
from comp.user_code import NO_CODE, Code

# images (B, H, W, channels) uint8; targets (B, C) float32, with the other columns of a RowLayout
Batch = tuple[torch.Tensor, torch.Tensor]
MAX_SHARE_OF_GPU = 1 / 3  # of its free memory: larger caches are not kept there
MAX_THREADS = 4  # that fill pinned memory


class CachedDataset(Dataset):
    """Map a step to its batch, read from the caches. With `augment` albumentations transforms it; `code`
    holds the user's own."""

    def __init__(
        self,
        caches: Sequence[Path],
        targets: np.ndarray | None,
        augment: Augment | None = None,
        code: Code = NO_CODE,
    ):
        self.caches, self.targets, self.augment, self.code = tuple(caches), targets, augment, dict(code)
        self.images: np.ndarray | ConcatCache | None = None
        self.transform: Transform | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "images": None, "transform": None}

    def __getitem__(self, step: Step) -> Batch:
        if self.images is None:  # opened in the process that reads it
            self.images = open_caches(self.caches)
            self.transform = training_transform(self.augment, self.code) if self.augment else None
        seed, rows = step
        batch = self.images[rows]
        if self.transform:
            batch = np.ascontiguousarray(self.transform(batch, seed))
        return torch.from_numpy(batch), self.targets_of(rows)

    def targets_of(self, rows: np.ndarray) -> torch.Tensor:
        """Return the targets (B, C) float32 of these rows, or (B, 0) where there are none."""
        targets = np.zeros((len(rows), 0)) if self.targets is None else self.targets[rows]
        return torch.from_numpy(targets.astype(np.float32))


class ConcatCache:
    """Several caches as one, (N, H, W, channels) uint8. Images are resized to the largest size."""

    def __init__(self, parts: Sequence[np.ndarray]):
        self.parts, side = parts, max(part.shape[1] for part in parts)
        self.ends = np.cumsum([len(part) for part in parts])
        self.shape = (int(self.ends[-1]), side, side, parts[0].shape[-1])
        self.nbytes = int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        index = np.arange(len(self))[rows]
        answer = np.empty((len(index), *self.shape[1:]), np.uint8)
        self.read_into(answer, index)
        return answer

    def read_into(self, out: np.ndarray, rows: np.ndarray) -> None:
        """Write the images of these rows to `out`."""
        part_of = np.searchsorted(self.ends, rows, "right")
        for k in np.unique(part_of):
            here = np.flatnonzero(part_of == k)
            images = self.parts[k][rows[here] - self.ends[k] + len(self.parts[k])]
            same = images.shape[1] == self.shape[1]
            out[here] = images if same else [resize(image, self.shape[1]) for image in images]


def open_caches(paths: Sequence[Path]) -> np.ndarray | ConcatCache:
    """Return one cache as an array, several as a `ConcatCache`."""
    return open_cache(paths[0]) if len(paths) == 1 else ConcatCache([open_cache(path) for path in paths])


def read_into(out: np.ndarray, images: np.ndarray | ConcatCache, rows: np.ndarray) -> None:
    """Write these rows of a cache to `out`. Other threads run meanwhile."""
    if isinstance(images, ConcatCache):
        images.read_into(out, rows)
    else:
        np.take(images, rows, axis=0, out=out, mode="clip")  # mode="raise" would make a copy


class DeviceLoader:
    """Map steps to batches on the device.

    On a CPU this process reads them. A GPU holds the images if they fit and need no transform on the CPU.
    Otherwise threads read ahead into pinned memory, or worker processes where albumentations has work to do,
    and each batch is copied while the GPU works on the previous one. `rows` are those that steps will ask
    for; None: any of the cache. `resident` overrides whether the GPU holds the images."""

    def __init__(
        self,
        dataset: CachedDataset,
        device: torch.device,
        n_loaders: int,
        *,
        rows: np.ndarray | None = None,
        resident: bool | None = None,
    ):
        self.dataset, self.device, self.n_loaders = dataset, device, n_loaders
        # one stream for all epochs: torch keeps freed memory by stream, for the stream that freed it
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.rows = None if rows is None else np.unique(rows)
        self.images: torch.Tensor | None = None  # of self.rows, on the device
        if resident is None:
            resident = not dataset.augment and fits(self._n_bytes(), device)
        if resident:
            self._upload()

    def __call__(self, steps: Sequence[Step]) -> Iterator[Batch]:
        for i, (_, rows) in enumerate(steps):
            batch = self._held(rows)
            if batch is None:
                yield from self._read(steps[i:])
                return
            yield batch

    def let_go(self) -> bool:
        """Free the images that the device holds. From the next batch on they are read from the caches.
        Return whether there were any."""
        held, self.images = self.images is not None, None
        return held

    def _n_bytes(self) -> int:
        """Return what images and targets (float32) take on the device."""
        images, targets = open_caches(self.dataset.caches), self.dataset.targets
        n_rows = len(images) if self.rows is None else len(self.rows)
        n_labels = 0 if targets is None else targets.shape[1]
        return n_rows * (images[:1].nbytes + 4 * n_labels)

    def _upload(self) -> None:
        images = open_caches(self.dataset.caches)
        rows = np.arange(len(images)) if self.rows is None else self.rows
        try:
            kept = torch.empty((len(rows), *images.shape[1:]), dtype=torch.uint8, device=self.device)
            step = max(1, (64 << 20) // max(1, images[:1].nbytes))
            for first in range(0, len(rows), step):  # in chunks: the file is never in memory twice
                some = images[rows[first : first + step]]
                kept[first : first + step] = torch.from_numpy(some).to(self.device)
            self.targets = self.dataset.targets_of(rows).to(self.device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return  # less is free than was counted: the caches are read
        self.images = kept

    def _held(self, rows: np.ndarray) -> Batch | None:
        """Return a batch of images that the device holds, or None where it holds none."""
        if self.images is None:
            return None
        places = rows if self.rows is None else np.searchsorted(self.rows, rows)
        index = torch.from_numpy(np.ascontiguousarray(places, np.int64))
        try:
            if self.device.type == "cuda":
                index = index.pin_memory().to(self.device, non_blocking=True)
            return self.images.index_select(0, index), self.targets.index_select(0, index)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self.let_go()
            return None

    def _read(self, steps: Sequence[Step]) -> Iterator[Batch]:
        if self.stream is None and not self.n_loaders:
            yield from map(self.dataset.__getitem__, steps)
            return
        batches = self._by_processes(steps) if self.dataset.augment else self._by_threads(steps)
        yield from _copied_ahead(batches, self.device, self.stream) if self.stream else batches

    def _by_processes(self, steps: Sequence[Step]) -> Iterable[Batch]:
        try:
            yield from DataLoader(
                self.dataset,
                sampler=steps,  # type: ignore[arg-type]
                batch_size=None,
                num_workers=self.n_loaders if len(steps) > 2 else 0,
                pin_memory=self.stream is not None,
            )
        except CompError as error:  # with the worker's traceback before its own line
            line = str(error).strip().splitlines()[-1].removeprefix("comp.errors.CompError: ")
            raise CompError(line) from error

    def _by_threads(self, steps: Sequence[Step]) -> Iterator[Batch]:
        """Yield batches; for a GPU in pinned memory, which torch uses again once they are copied. A thread
        fills it with one copy; a process would need three, and shared memory."""
        images, n_threads = open_caches(self.dataset.caches), min(MAX_THREADS, max(1, self.n_loaders))
        pinned = self.stream is not None
        ahead: deque[tuple[Future, Batch]] = deque()
        with ThreadPoolExecutor(n_threads) as pool:
            for _, rows in steps:
                batch = torch.empty((len(rows), *images.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
                targets = self.dataset.targets_of(rows)
                targets = targets.pin_memory() if pinned else targets
                ahead.append((pool.submit(read_into, batch.numpy(), images, rows), (batch, targets)))
                if len(ahead) > n_threads:
                    yield _result(*ahead.popleft())
            while ahead:
                yield _result(*ahead.popleft())


def _result(reading: Future, batch: Batch) -> Batch:
    reading.result()
    return batch


def fits(n_bytes: int, device: torch.device) -> bool:
    """Return whether a cache of this size is kept on the device."""
    if device.type != "cuda":
        return False
    gc.collect()
    torch.cuda.empty_cache()  # frees what an earlier phase or fold held
    return n_bytes <= MAX_SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0]


def _copied_ahead(
    batches: Iterable[Batch], device: torch.device, stream: torch.cuda.Stream
) -> Iterator[Batch]:
    """Yield pinned batches on the GPU. Each is copied on `stream` while the GPU works on the previous one."""
    main = torch.cuda.current_stream(device)
    ready: Batch | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            images, targets = (part.to(device, non_blocking=True) for part in batch)
        if ready:
            yield ready
        main.wait_stream(stream)
        for part in (images, targets):
            part.record_stream(main)
        ready = images, targets
    if ready:
        yield ready

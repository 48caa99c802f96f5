"""From image caches to batches on the device."""

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from comp.batches.augmentation import Transform, training_transform
from comp.batches.sampling import Step
from comp.config.augment import Augment
from comp.data.image_files import open_cache, resize

Batch = tuple[torch.Tensor, torch.Tensor]  # images (B, H, W, channels) uint8, targets (B, C) float32
MAX_SHARE_OF_GPU = 1 / 3  # of its free memory: larger caches are not kept there


class CachedDataset(Dataset):
    """Map a step to its batch, read from the caches. With `augment` albumentations transforms it."""

    def __init__(self, caches: Sequence[Path], targets: np.ndarray | None, augment: Augment | None = None):
        self.caches, self.targets, self.augment = tuple(caches), targets, augment
        self.images: np.ndarray | ConcatCache | None = None
        self.transform: Transform | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "images": None, "transform": None}

    def __getitem__(self, step: Step) -> Batch:
        if self.images is None:  # opened in the process that reads it
            self.images = open_caches(self.caches)
            self.transform = training_transform(self.augment) if self.augment else None
        seed, rows = step
        batch = self.images[rows]
        if self.transform:
            batch = np.ascontiguousarray(self.transform(batch, seed))
        targets = np.zeros((len(rows), 0)) if self.targets is None else self.targets[rows]
        return torch.from_numpy(batch), torch.from_numpy(targets.astype(np.float32))


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
        part_of = np.searchsorted(self.ends, index, "right")
        for k in np.unique(part_of):
            here = np.flatnonzero(part_of == k)
            images = self.parts[k][index[here] - self.ends[k] + len(self.parts[k])]
            same = images.shape[1] == self.shape[1]
            answer[here] = images if same else [resize(image, self.shape[1]) for image in images]
        return answer


def open_caches(paths: Sequence[Path]) -> np.ndarray | ConcatCache:
    """Return one cache as an array, several as a `ConcatCache`."""
    return open_cache(paths[0]) if len(paths) == 1 else ConcatCache([open_cache(path) for path in paths])


class DeviceLoader:
    """Map steps to batches on the device.

    On a CPU this process reads them. A GPU holds the whole cache if it fits and needs no transform on the
    CPU. Otherwise worker processes read ahead, and each batch is copied while the GPU works on the previous
    one. `resident` overrides whether the GPU holds the cache."""

    def __init__(
        self, dataset: CachedDataset, device: torch.device, n_loaders: int, *, resident: bool | None = None
    ):
        self.dataset, self.device, self.n_loaders = dataset, device, n_loaders
        self.images: torch.Tensor | None = None
        if resident is None:
            resident = not dataset.augment and fits(open_caches(dataset.caches).nbytes, device)
        if resident:
            self.images = _on_device(dataset.caches, device)
            targets = dataset.targets
            n = len(self.images)
            self.targets = torch.from_numpy(
                np.zeros((n, 0), np.float32) if targets is None else targets.astype(np.float32)
            ).to(device)

    def __call__(self, steps: Sequence[Step]) -> Iterator[Batch]:
        if self.images is not None:
            for _, rows in steps:
                index = torch.from_numpy(np.ascontiguousarray(rows, np.int64))
                if self.device.type == "cuda":
                    index = index.pin_memory().to(self.device, non_blocking=True)
                yield self.images.index_select(0, index), self.targets.index_select(0, index)
        elif self.device.type != "cuda" and not self.n_loaders:
            for step in steps:
                yield self.dataset[step]
        else:
            batches: DataLoader = DataLoader(
                self.dataset,
                sampler=steps,  # type: ignore[arg-type]
                batch_size=None,
                num_workers=self.n_loaders if len(steps) > 2 else 0,
                pin_memory=self.device.type == "cuda",
            )
            yield from _copied_ahead(batches, self.device) if self.device.type == "cuda" else batches


def fits(n_bytes: int, device: torch.device) -> bool:
    """Return whether a cache of this size is kept on the device."""
    if device.type != "cuda":
        return False
    gc.collect()
    torch.cuda.empty_cache()  # frees what an earlier phase or fold held
    return n_bytes <= MAX_SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0]


def _on_device(caches: Sequence[Path], device: torch.device) -> torch.Tensor:
    images = open_caches(caches)
    kept = torch.empty(images.shape, dtype=torch.uint8, device=device)
    step = max(1, (64 << 20) // max(1, images[:1].nbytes))
    for first in range(0, len(images), step):  # in chunks: the file is never in memory twice
        kept[first : first + step] = torch.from_numpy(images[first : first + step].copy()).to(device)
    return kept


def _copied_ahead(batches: DataLoader, device: torch.device) -> Iterator[Batch]:
    """Yield pinned batches on the GPU. Each is copied on a second stream while the GPU works on the previous
    one."""
    stream, main = torch.cuda.Stream(device), torch.cuda.current_stream(device)
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

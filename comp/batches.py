"""Batches from the cache: whole batches by index, whose random draws depend on the seed and the step alone,
so that workers, kills and restarts change nothing."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from comp.augment import Transform, training_transform

Step = tuple[int, np.ndarray]  # the seed of its draws, the rows of the cache


class CacheBatches(Dataset):
    """Step -> (images (B, H, W, channels) uint8, targets (B, C) float32)."""

    def __init__(self, cache: Path, targets: np.ndarray | None, augment: str):
        self.cache, self.targets, self.augment = cache, targets, augment
        self.images: np.ndarray | None = None
        self.transform: Transform | None = None

    def __getitem__(self, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        if self.images is None:  # opened in the process that reads
            self.images = np.load(self.cache, mmap_mode="r", allow_pickle=False)
            self.transform = training_transform(self.augment)
        seed, rows = step
        assert self.transform is not None
        batch = np.ascontiguousarray(self.transform(self.images[rows], seed))
        targets = np.zeros((len(rows), 0)) if self.targets is None else self.targets[rows]
        return torch.from_numpy(batch), torch.from_numpy(targets.astype(np.float32))


def epoch_steps(rows: np.ndarray, batch_size: int, seeds: Sequence[int]) -> list[Step]:
    """The steps of one training epoch: all rows in an order drawn from `seeds`, cut into equal batches; what
    is left over waits for another epoch's order."""
    rng = np.random.default_rng(list(seeds))
    order = rng.permutation(rows)
    n_steps = max(1, len(rows) // batch_size)
    draws = rng.integers(0, 2**31 - 1, n_steps)
    return [(int(draws[i]), np.sort(order[i * batch_size : (i + 1) * batch_size])) for i in range(n_steps)]


def in_order(rows: np.ndarray, batch_size: int) -> list[Step]:
    return [(0, rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]


def load_batches(
    dataset: CacheBatches, steps: Sequence[Step], device: torch.device, n_loaders: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of these steps, on the device."""
    loader: DataLoader = DataLoader(
        dataset,
        sampler=steps,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=n_loaders if len(steps) > 2 else 0,
        pin_memory=device.type == "cuda",
    )
    for images, targets in loader:
        yield images.to(device, non_blocking=True), targets.to(device, non_blocking=True)

"""Batches on a GPU are whole when they are worked on, and are those of a CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from comp.batches.loader import CachedDataset, DeviceLoader, fits
from comp.batches.sampling import epoch_steps
from comp.config.augment import Augment
from tests.gpu.conftest import CPU
from tests.pretend_cuda import PretendCuda

N = 40


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    path = tmp_path / "cache.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), np.uint8))
    return path


@pytest.mark.parametrize(
    ("resident", "augment"),
    [(True, None), (False, None), (False, Augment(symmetry="d4"))],
    ids=["resident", "streamed", "augmented"],
)
def test_batches_are_those_of_a_cpu(gpu: Any, cache: Path, resident: bool, augment: Augment | None):
    dataset = CachedDataset([cache], np.eye(N), augment)
    steps = epoch_steps(np.arange(N), 8, (1, 2, 3))
    here = list(DeviceLoader(dataset, CPU, 0, resident=False)(steps))
    loader = DeviceLoader(dataset, gpu.device, 0, resident=resident)
    for _ in range(2):  # epochs
        kept = []
        for (images, targets), (x, y) in zip(loader(steps), here, strict=True):
            assert images.device == targets.device == gpu.device
            kept.append(images + 0)  # work on the GPU, before anything else waits
            assert torch.equal(images.cpu(), x) and torch.equal(targets.cpu(), y)
        assert all(torch.equal(found.cpu(), x) for found, (x, _) in zip(kept, here, strict=True))


def test_an_epoch_that_stops_early_leaves_nothing_to_the_next(gpu: Any, cache: Path):
    dataset = CachedDataset([cache], np.eye(N))
    steps = epoch_steps(np.arange(N), 8, (1, 2, 3))
    loader = DeviceLoader(dataset, gpu.device, 0, resident=False)
    next(iter(loader(steps)))
    found = [images.cpu() for images, _ in loader(steps)]
    here = [images for images, _ in DeviceLoader(dataset, CPU, 0)(steps)]
    assert all(torch.equal(a, b) for a, b in zip(found, here, strict=True))


def test_a_cache_stays_on_the_gpu_where_a_third_of_its_free_memory_holds_it(pretended: PretendCuda):
    pretended.free = 3_000
    assert fits(1_000, pretended.device)
    assert not fits(1_001, pretended.device)
    assert not fits(1, CPU)

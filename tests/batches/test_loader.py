"""Batches are the same whichever way they reach the device."""

from pathlib import Path

import numpy as np
import pytest
import torch

from comp.batches.loader import Batch, CachedDataset, DeviceLoader
from comp.batches.sampling import epoch_steps, ordered_steps
from comp.compute.devices import MicroBatches

CPU = torch.device("cpu")
N = 40


@pytest.fixture(params=["one cache", "two caches of different sizes"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> CachedDataset:
    sides = [16] if request.param == "one cache" else [16, 12]
    paths = [tmp_path / f"{side}.npy" for side in sides]
    for side, path in zip(sides, paths):
        shape = (N // len(sides), side, side, 3)
        np.save(path, np.random.default_rng(side).integers(0, 256, shape, np.uint8))
    return CachedDataset(paths, np.eye(N))


def assert_equal(found: list[Batch], expected: list[Batch]) -> None:
    for (a, b), (c, d) in zip(found, expected, strict=True):
        assert torch.equal(a, c) and torch.equal(b, d)


def test_threads_read_what_one_process_reads(dataset: CachedDataset):
    steps = epoch_steps(np.arange(N), 8, (1, 2, 3))
    alone, threads = (list(DeviceLoader(dataset, CPU, n)(steps)) for n in (0, 2))
    assert_equal(threads, alone)


def test_the_device_holds_only_the_rows_that_are_asked_for(dataset: CachedDataset):
    rows = np.array([31, 3, 4, 22, 5])
    loader = DeviceLoader(dataset, CPU, 0, rows=rows, resident=True)
    assert loader.images is not None and len(loader.images) == len(rows)
    steps = ordered_steps(rows, 2)
    assert_equal(list(loader(steps)), list(DeviceLoader(dataset, CPU, 0)(steps)))


def test_batches_go_on_when_the_device_lets_its_images_go(dataset: CachedDataset):
    steps = epoch_steps(np.arange(N), 8, (1, 2, 3))
    loader = DeviceLoader(dataset, CPU, 2, resident=True)
    found = []
    for batch in loader(steps):
        found.append(batch)
        if len(found) == 2:
            assert loader.let_go() and not loader.let_go()
    assert_equal(found, list(DeviceLoader(dataset, CPU, 0)(steps)))


def test_images_on_the_device_are_let_go_before_batches_are_split():
    held, tried = [True], []

    def work(parts: list[slice]) -> int:
        tried.append(len(parts))
        if len(tried) < 3:
            raise RuntimeError("CUDA out of memory")
        return len(parts)

    assert MicroBatches().run(8, work, let_go=lambda: bool(held and held.pop())) == 2
    assert tried == [1, 1, 2]

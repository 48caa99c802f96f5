"""Predictions and heat maps of a GPU are those of a CPU, and have arrived when they are kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from comp.artifacts.predictions import load
from comp.compute.devices import Device
from comp.config.loading import load_recipe
from comp.models import network as models
from comp.models.gradcam import heat_maps
from comp.models.inference import PredictionInputs, predict_image, predict_set
from tests.gpu.conftest import CPU, Seen
from tests.gpu.test_memory import FULL, FailsAbove

N = 40
SPEC = models.ModelSpec(
    "test_resnet", ("a", "b", "c"), 3, 32, (0.5,) * 3, (0.2,) * 3, groups=((0, 2),)
)  # fmt: skip


def random_images(n: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), np.uint8)


def make_network(spec: models.ModelSpec = SPEC) -> torch.nn.Module:
    torch.manual_seed(0)
    return models.create(spec, pretrained=False)


def predict(folder: Path, device: str, report: Any = lambda **_: None, **settings: Any) -> np.ndarray:
    """Return the probabilities of N images, in batches of 8 with 8 views."""
    model_file, cache = folder / "model.safetensors", folder / "cache.npy"
    if not cache.exists():
        models.save(model_file, make_network(), SPEC, {})
        np.save(cache, random_images(N, 32))
    settings = {"predict_batch_size": 64, "precision": "fp32", **settings}
    recipe = load_recipe("demo", [f"{key}={value}" for key, value in settings.items()])
    path = folder / f"{device[:3]}.npz"
    ids = np.arange(N).astype(str)
    inputs = PredictionInputs(recipe, model_file, path, ids, np.arange(N)[::-1].copy(), cache, {})
    predict_set(inputs, device=Device(device, 1), report=report, deadline=float("inf"))
    probs = load(path, SPEC.classes).probs
    path.unlink()
    return probs


def test_predictions_have_arrived_when_they_are_kept(gpu: Any, tmp_path: Path):
    there = predict(tmp_path, "cuda:0")
    assert np.abs(there - predict(tmp_path, "cpu")).max() < (1e-3 if gpu.real else 1e-5)  # TF32
    assert np.abs(there[:, 0] + there[:, 2] - 1).max() < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_views_and_weights_stay_channels_last(
    gpu: Any, tmp_path: Path, seen_by_convolutions: list[Seen], precision: str
):
    predict(tmp_path, "cuda:0", precision=precision)
    assert {seen.shape[0] for seen in seen_by_convolutions} == {64}  # all views of a batch at once
    assert all(seen.channels_last and not seen.training for seen in seen_by_convolutions)


def test_a_batch_waits_for_nothing_but_the_probabilities_of_the_one_before(gpu: Any, tmp_path: Path):
    def report(done: int = 0, total: int = 0, **_: Any) -> None:
        gpu.watching = 0 < done < total

    predict(tmp_path, "cuda:0", report)
    assert all(why.startswith("event") for why in gpu.waits), gpu.waits


def test_predictions_that_run_out_of_memory_are_the_same(gpu: Any, tmp_path: Path):
    gpu.before = full = FailsAbove(16, training=False, error=torch.OutOfMemoryError(FULL))
    there = predict(tmp_path, "cuda:0")
    gpu.before = None
    assert full.n_raised >= 2  # by 64 views at once, then by 32
    assert np.abs(there - predict(tmp_path, "cpu")).max() < (1e-3 if gpu.real else 1e-5)  # TF32


@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-4), ("fp16", 5e-3), ("bf16", 4e-2)])
def test_one_image_has_the_probabilities_of_a_cpu(gpu: Any, precision: str, error: float):
    image = random_images(1, 32)[0]
    there = predict_image(
        load_recipe("demo", [f"precision={precision}"]), make_network(), SPEC, image, gpu.device
    )
    here = predict_image(load_recipe("demo", ["precision=fp32"]), make_network(), SPEC, image, CPU)
    assert np.abs(there - here).max() < error


def test_heat_maps_are_those_of_a_cpu(gpu: Any):
    spec = models.ModelSpec("test_resnet", ("a", "b", "c"), 3, 64, (0.5,) * 3, (0.2,) * 3)
    images, classes = random_images(3, 64), [[0], [1, 2], []]
    here = heat_maps(make_network(spec), spec, images, classes, CPU)
    there = heat_maps(make_network(spec), spec, images, classes, gpu.device)
    for a, b in zip(here, there, strict=True):
        assert a.shape == b.shape and np.allclose(a, b, atol=1e-4)

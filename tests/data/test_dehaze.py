"""Haze removal against its published definition, written out, and as a recipe's filter."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from comp.artifacts.paths import model_path
from comp.artifacts.stamps import read_stamp
from comp.cli.main import main
from comp.config.loading import load_recipe
from comp.data.dehaze import dehaze, guided_filter
from comp.data.image_cache import build_caches
from comp.data.image_files import find_images, resize
from comp.deadline import NEVER
from comp.errors import CompError
from comp.training.model_stamp import check_models, stamped_settings


def window(array: np.ndarray, row: int, column: int, radius: int) -> np.ndarray:
    return array[max(0, row - radius) : row + radius + 1, max(0, column - radius) : column + radius + 1]


def each_window(array: np.ndarray, radius: int, of) -> np.ndarray:
    height, width = array.shape[:2]
    found = [[of(window(array, i, j, radius)) for j in range(width)] for i in range(height)]
    return np.array(found, np.float64)


def plain_guided(guide: np.ndarray, values: np.ndarray, radius: int, epsilon: float) -> np.ndarray:
    """Equations 5, 6 and 8 of He, Sun and Tang (2010)."""
    both = np.stack([guide, values], -1)

    def line(part: np.ndarray) -> tuple[float, float]:
        x, y = part[..., 0], part[..., 1]
        a = ((x * y).mean() - x.mean() * y.mean()) / (x.var() + epsilon)
        return a, y.mean() - a * x.mean()

    lines = each_window(both, radius, line)
    means = each_window(lines, radius, lambda part: part.mean((0, 1)))
    return means[..., 0] * guide + means[..., 1]


def plain_dehaze(image: np.ndarray) -> np.ndarray:
    """Equations 5, 11, 12 and 16 of He, Sun and Tang (2009), with the guided filter for the soft matting."""
    values = image.astype(np.float64)
    radius = max(1, round(min(image.shape[:2]) / 64))
    dark = each_window(values, radius, np.min)
    threshold = np.sort(dark.ravel())[-max(1, dark.size // 1000)]
    haziest = values[dark >= threshold]
    air = haziest[haziest.sum(1).argmax()]
    through = 1 - 0.95 * each_window(values / air, radius, np.min)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) / 255
    through = np.maximum(plain_guided(grey, through, 8 * radius, 1e-3), 0.1)[..., None]
    return ((values - air) / through + air).round().clip(0, 255)


def scene(height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    """A clear picture in which every neighbourhood has something dark, as the prior supposes."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(10, 220, (height // 4, width // 4, 3), np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    image[rng.random((height, width)) < 0.2] = 0
    return image


def hazy(clear: np.ndarray, through: np.ndarray, air: tuple[int, ...] = (210, 220, 235)) -> np.ndarray:
    """The model: what comes through of the scene, and the air's light."""
    mixed = clear * through[..., None] + np.array(air) * (1 - through[..., None])
    return mixed.round().astype(np.uint8)


def slope(shape: tuple[int, ...], least: float, most: float) -> np.ndarray:
    return np.broadcast_to(np.linspace(least, most, shape[1]), shape[:2])


def test_the_guided_filter_is_the_published_one():
    rng = np.random.default_rng(0)
    guide, values = rng.random((2, 23, 31)).astype(np.float32)
    for radius in (1, 4, 40):
        expected = plain_guided(guide.astype(float), values.astype(float), radius, 1e-3)
        assert np.abs(guided_filter(guide, values, radius) - expected).max() < 1e-4


@pytest.mark.parametrize(("size", "least"), [((40, 56), 0.3), ((40, 56), 1.0), ((97, 100), 0.4)])
def test_haze_removal_is_the_published_one(size: tuple[int, int], least: float):
    clear = scene(*size)
    image = hazy(clear, slope(clear.shape, least, 1.0))
    found = dehaze(image)
    assert found.dtype == np.uint8 and found.shape == image.shape
    difference = np.abs(found - plain_dehaze(image))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.001


def test_a_hazy_scene_comes_closer_to_the_clear_one():
    for seed in range(4):
        clear = scene(128, 128, seed)
        clear[:24, :24] = 215  # something bright, behind most of the haze
        image = hazy(clear, slope(clear.shape, 0.25, 0.9))
        before, after = (np.abs(x.astype(float) - clear).mean() for x in (image, dehaze(image)))
        assert after < 0.5 * before


def test_images_without_anything_in_them_stay_as_they_are():
    for value in (0, 1, 128, 255):
        flat = np.full((20, 30, 3), value, np.uint8)
        assert np.array_equal(dehaze(flat), flat)


def test_the_cache_holds_what_was_filtered_in_the_finest_detail(tmp_path: Path):
    ids = np.array([f"im{i}" for i in range(6)])
    (tmp_path / "a").mkdir()
    chips = [hazy(scene(96, 96, i), slope((96, 96), 0.3, 0.8)) for i in range(6)]
    for name, chip in zip(ids, chips, strict=True):
        Image.fromarray(chip).save(tmp_path / "a" / f"{name}.png")
    images = find_images("train", ids, [(tmp_path / "a", "{id}.png")], [])

    def build(filter: str, sizes: list[int], max_size: int) -> dict[int, Path]:
        where = tmp_path / "cache"
        return build_caches({"train": (images, sizes)}, where, "s", NEVER, max_size, filter)["train"]

    plain, both = build("none", [32, 64], 64), build("dehaze", [32, 64], 64)
    assert not set(plain.values()) & set(both.values())
    for i, chip in enumerate(chips):
        max_size = dehaze(resize(chip, 64))
        assert np.array_equal(np.load(both[64])[i], max_size)
        assert np.array_equal(np.load(both[32])[i], resize(max_size, 32))
        assert np.array_equal(np.load(plain[32])[i], resize(chip, 32))
    assert build("dehaze", [64], 64)[64] == both[64]  # as predict asks for it
    assert build("dehaze", [32], 32)[32] != both[32]  # filtered in another detail
    assert build("none", [32], 32)[32] == plain[32]


def test_a_filter_is_for_rgb_images():
    with pytest.raises(CompError) as error:
        load_recipe("hpa", ["filter=dehaze"])
    assert str(error.value).endswith(
        "filter = 'dehaze' needs RGB images; hpa has the channels red, green, blue, yellow"
    )
    with pytest.raises(CompError, match="'filter': input should be 'none', 'dehaze', FILE.py.*, found 'fog'"):
        load_recipe("planet", ["filter=fog"])


def test_a_model_is_used_with_the_filter_that_it_was_trained_with(here: Path, fails):
    changes = ["filter=dehaze", "augment.crop=0.5", "phases=[{size = 16, epochs = 1, batch_size = 16}]"]
    plain = ["--folds", "0", *(word for change in changes[1:] for word in ("--set", change))]
    dehazed = [*plain, "--set", changes[0]]
    for stage in ("download", "folds"):
        assert main([stage, "tiny.toml"]) == 0
    for stage in ("train", "predict"):
        assert main([stage, "tiny.toml", *dehazed]) == 0
        assert 'filter = "dehaze", not null' in fails(stage, "tiny.toml", *plain)
    stamp = read_stamp(model_path("tiny", 0))
    assert stamp and stamp["augment"] == {"extends": "dihedral", "crop": 0.5}
    assert "filter" not in stamped_settings(load_recipe("tiny.toml"))  # as in the stamps of earlier runs

    def check(*sets: str) -> None:
        recipe = load_recipe("tiny.toml", sets)
        made = {key: getattr(recipe, key) for key in ("rule", "n_trials", "seed")}
        made |= {"metric": recipe.competition.metric.stamp, "empty": False, "exclusive": []}
        made |= {key: stamp[key] for key in ("labels", "folds")}
        decision = {"stamp": made, "thresholds": dict.fromkeys(recipe.competition.labels.classes)}
        check_models(recipe, {0: model_path("tiny", 0)}, decision, here / "decision.json")

    with pytest.raises(CompError, match='filter = "dehaze", not null'):
        check(*changes[1:])
    with pytest.raises(CompError, match="other classes than"):  # what is compared before agrees
        check(*changes)

"""Augmentation follows the recipe, and is the same on the device and with albumentations."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.transforms import RandomResizedCrop

from comp.batches import augmentation as module
from comp.batches.augmentation import AugmentParams, BatchAugmentation, training_transform
from comp.batches.cpu_augmentation import move_images, turn_images
from comp.batches.preprocessing import Preprocess
from comp.batches.tta import SYMMETRIES, VIEWS
from comp.batches.view_names import view_names
from comp.config.augment import AUGMENTATIONS, Augment
from comp.config.loading import load_recipe, toml_text
from comp.errors import CompError

SIZE = 48


def only(**settings: Any) -> Augment:
    return Augment(extends="none", **settings)


def on_device(augment: Augment, images: np.ndarray, seed: int) -> np.ndarray:
    """Return images (B, H, W, channels) augmented on the device, in values 0 … 255."""
    n_channels, batched = images.shape[-1], BatchAugmentation(augment, images.shape[-1])
    prepare = Preprocess((0.0,) * n_channels, (1 / 255,) * n_channels, images.shape[1], batched)
    return prepare(torch.from_numpy(images), batched.draw(len(images), seed)).permute(0, 2, 3, 1).numpy()


def on_cpu(augment: Augment, images: np.ndarray, seed: int) -> np.ndarray:
    return training_transform(augment)(images, seed).astype(np.float32)


BOTH = pytest.mark.parametrize("apply", [on_device, on_cpu])


def ramps(n: int) -> np.ndarray:
    """(n, SIZE, SIZE, 2): how far right and how far down each pixel lies, five values a pixel. Interpolated
    between pixels such images stay what they are."""
    down, right = np.mgrid[0:SIZE, 0:SIZE]
    return np.tile(np.stack([right, down], -1).astype(np.uint8) * 5, (n, 1, 1, 1))


def seen(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sides, corners) of the windows of ramps that images (B, SIZE, SIZE, 2) show: shares of the side, x
    first, (B, 2) each."""
    x, y = images[:, SIZE // 2, :, 0] / 5, images[:, :, SIZE // 2, 1] / 5
    lines = np.stack([x, y], 1)[:, :, 8:-8]  # (B, 2, …), away from the borders
    slopes = (lines[:, :, -1] - lines[:, :, 0]) / (lines.shape[2] - 1)
    corners = (lines[:, :, 0] + 0.5 - 8.5 * slopes) / SIZE
    return slopes, corners


def test_the_sets_that_were_there_draw_what_they_drew():
    for seed in range(5):
        n, rng = 64, np.random.default_rng(seed)
        symmetry, moved = np.sort(rng.integers(0, 8, n)), rng.random(n) < 0.5
        zoom, turn = rng.uniform(0.9, 1.1, n), np.radians(rng.uniform(-15, 15, n))
        shift = rng.uniform(-0.12, 0.12, (n, 2))
        rows = [[np.cos(turn) / zoom, -np.sin(turn) / zoom], [np.sin(turn) / zoom, np.cos(turn) / zoom]]
        moves = np.concatenate([np.moveaxis(np.array(rows), -1, 0), shift[:, :, None]], 2)
        lit = rng.random(n) < 0.5
        contrast = np.where(lit, rng.uniform(0.9, 1.1, n), 1)
        brightness = np.where(lit, rng.uniform(-0.1, 0.1, n), 0)
        found = BatchAugmentation(Augment(extends="satellite")).draw(n, seed)
        plain = BatchAugmentation(Augment(extends="dihedral")).draw(n, seed)
        assert found and plain and not plain.moved.any()
        assert np.array_equal(found.symmetry, symmetry) and np.array_equal(plain.symmetry, symmetry)
        assert np.array_equal(found.moved, moved)
        for part, wanted in ((found.moves, moves), (found.contrast[:, 0], contrast)):
            assert np.array_equal(part, wanted.astype(np.float32))
        assert np.array_equal(found.brightness[:, 0], brightness.astype(np.float32))


def test_the_sets_that_were_there_are_the_same_steps_of_albumentations():
    images = np.random.default_rng(0).integers(0, 256, (16, 20, 20, 3), np.uint8)
    affine = A.Affine((0.9, 1.1), translate_percent=(-0.06, 0.06), rotate=(-15, 15), border_mode=4, p=0.5)
    light = A.RandomBrightnessContrast(brightness_limit=0.1, contrast_limit=0.1, p=0.5)
    steps = {"dihedral": [A.D4(p=1)], "satellite": [A.D4(p=1), affine, light]}
    for name, wanted in steps.items():
        compose = A.Compose(wanted)
        compose.set_random_seed(3)
        expected = [compose(image=image)["image"] for image in images]
        assert np.array_equal(training_transform(Augment(extends=name))(images, 3), expected)


@BOTH
@pytest.mark.parametrize(
    ("symmetry", "names"),
    [
        ("none", ["identity"]),
        ("flip_h", ["identity", "flip_h"]),
        ("flips", view_names(["flips"])),
        ("d4", SYMMETRIES),
    ],
)
def test_a_symmetry_draws_its_views_equally_often(apply, symmetry: str, names):
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    # light for none of them, so that there is something to do where no symmetry is
    found = apply(only(symmetry=symmetry, light=0.1, p=0), np.stack([image] * 800), 1).round()
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    wanted = [VIEWS[name](x)[0].permute(1, 2, 0).numpy() for name in names]
    counts = [sum(np.array_equal(one, view) for one in found) for view in wanted]
    assert sum(counts) == 800
    assert np.abs(np.array(counts) - 800 / len(wanted)).max() < 60


@BOTH
def test_a_crop_is_a_window_of_an_area_and_an_aspect_within_bounds(apply):
    sides, corners = seen(apply(only(crop=0.3), ramps(1500), 0))
    area, aspect = sides.prod(1), sides[:, 0] / sides[:, 1]
    slack = 0.06  # whole pixels by albumentations, whole values of 5 a pixel
    assert 0.3 - slack < area.min() < 0.34 and 0.95 < area.max() < 1 + slack
    assert 0.75 - slack < aspect.min() < 0.8 and 1.25 < aspect.max() < 4 / 3 + slack
    assert corners.min() > -slack and (corners + sides).max() < 1 + slack
    room = (1 - sides)[sides.max(1) < 0.8]
    places = corners[sides.max(1) < 0.8] / room
    assert np.abs(places.mean(0) - 0.5).max() < 0.04 and places.std(0).min() > 0.25


def test_windows_are_distributed_as_those_of_torchvision_and_albumentations():
    sides, _ = module.draw_windows(4000, 0.3, np.random.default_rng(0))
    torch.manual_seed(0)
    image = torch.empty(1, 1000, 1000)
    drawn = [RandomResizedCrop.get_params(image, [0.3, 1.0], [3 / 4, 4 / 3])[2:] for _ in range(4000)]
    theirs = np.array(drawn)[:, ::-1] / 1000  # width first
    third, _ = seen(on_cpu(only(crop=0.3), ramps(2000), 0))
    quantiles = np.linspace(0.05, 0.95, 10)
    for measure in (lambda s: np.sqrt(s.prod(1)), lambda s: s[:, 0], lambda s: s[:, 1] / s[:, 0]):
        mine = np.quantile(measure(sides), quantiles)
        assert np.abs(mine - np.quantile(measure(theirs), quantiles)).max() < 0.03
        assert np.abs(mine - np.quantile(measure(third), quantiles)).max() < 0.05


def plant(monkeypatch: pytest.MonkeyPatch, top: int, left: int, height: int, width: int) -> None:
    """Make every crop this window, in pixels."""
    sides = np.array([width, height]) / SIZE
    middles = np.array([2 * left + width, 2 * top + height]) / SIZE - 1
    monkeypatch.setattr(
        module, "draw_windows", lambda n, *_: (np.tile(sides, (n, 1)), np.tile(middles, (n, 1)))
    )


def test_a_window_is_enlarged_to_the_whole(monkeypatch: pytest.MonkeyPatch):
    plant(monkeypatch, top=4, left=10, height=36, width=30)
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 4), np.uint8)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    wanted = functional.interpolate(x[:, :, 4:40, 10:40], (SIZE, SIZE), mode="bilinear").permute(0, 2, 3, 1)
    found = on_device(only(crop=0.5), images, 0)
    assert np.abs(found - wanted.numpy())[:, 2:-2, 2:-2].max() < 0.01  # borders depend on pixels beyond them


def test_the_window_is_one_of_the_image_as_it_was_moved(monkeypatch: pytest.MonkeyPatch):
    images = ramps(16)
    moved = on_device(only(zoom=0.1, shift=0.05, turn=10), images, 0)
    plant(monkeypatch, top=12, left=16, height=20, width=24)
    found = on_device(only(zoom=0.1, shift=0.05, turn=10, crop=0.5), images, 0)
    window = torch.from_numpy(moved[:, 12:32, 16:40]).permute(0, 3, 1, 2)
    wanted = functional.interpolate(window, (SIZE, SIZE), mode="bilinear").permute(0, 2, 3, 1).numpy()
    assert np.abs(found - wanted)[:, 3:-3, 3:-3].max() < 0.05
    assert np.ptp(found[:, 24, 24, 0]) > 5  # they were moved


@BOTH
@pytest.mark.parametrize(
    "settings",
    [{"shift": 0.2}, {"zoom": 0.3}, {"turn": 40.0}, {"turn": 20.0, "p": 0.8}],
    ids=str,
)
def test_moves_have_the_range_and_the_share_that_are_asked_for(apply, settings: dict[str, float]):
    augment = only(**settings)
    found = apply(augment, ramps(800), 2)[:, 20:28, 20:28] / 5  # (B, 8, 8, 2), around the middle
    right, down = ((found[:, k, j] - found[:, 0, 0]) / 7 for k, j in ((0, 7), (7, 0)))
    zoom = 1 / np.sqrt(np.abs(right[:, 0] * down[:, 1] - right[:, 1] * down[:, 0]))
    turn = np.degrees(np.arctan2(right[:, 1], right[:, 0]))
    shift = (found.mean((1, 2)) - 23.5) / SIZE
    for values, limit, slack in (
        (zoom - 1, augment.zoom, 0.03),
        (turn, augment.turn, 2),
        (shift, augment.shift, 0.01),
    ):
        assert -limit - slack < values.min() and values.max() < limit + slack
        assert not limit or (values.min() < -0.8 * limit and values.max() > 0.8 * limit)
    still = (np.abs(found - ramps(1)[:, 20:28, 20:28] / 5).max((1, 2, 3)) < 1e-3).mean()
    assert still == pytest.approx(1 - augment.p, abs=0.08)  # a small turn may move no pixel


def test_light_and_gains_are_distributed_alike_on_the_device_and_by_albumentations():
    augment, grey = only(light=0.1, gain=0.2), np.full((3000, 2, 2, 4), 120, np.uint8)
    mine, theirs = (apply(augment, grey, 0)[:, 0, 0] for apply in (on_device, on_cpu))
    quantiles = np.linspace(0.02, 0.98, 13)
    difference = np.quantile(mine, quantiles, 0) - np.quantile(theirs, quantiles, 0)
    assert np.abs(difference).max() < 3  # of a range of 90
    assert np.abs(np.corrcoef(mine.T) - np.corrcoef(theirs.T)).max() < 0.08
    for values in (mine, theirs):
        assert (values == 120).all(1).mean() == pytest.approx(0.25, abs=0.03)  # neither lit nor with gains


@BOTH
@pytest.mark.parametrize("n_channels", [1, 3, 4, 6])
def test_each_channel_has_its_own_gain(apply, n_channels: int):
    images = np.full((400, 4, 4, n_channels), 100, np.uint8)
    found = apply(only(gain=0.3, p=1.0), images, 5)
    assert found.shape == images.shape
    values = found[:, 0, 0]
    assert np.abs(found - values[:, None, None]).max() < 1e-3  # the same all over a channel
    assert 69 <= values.min() < 75 and 125 < values.max() <= 131
    assert n_channels == 1 or np.abs(np.corrcoef(values.T) - np.eye(n_channels)).max() < 0.25


@pytest.mark.parametrize("name", [*AUGMENTATIONS, "all"])
def test_a_seed_draws_the_same_and_a_part_is_that_of_the_whole(name: str):
    augment = Augment(extends="microscopy", crop=0.4) if name == "all" else Augment(extends=name)
    images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 4), np.uint8)
    for apply in (on_device, on_cpu):
        first = apply(augment, images, 1)
        assert np.array_equal(first, apply(augment, images, 1))
        assert np.array_equal(first, images) == (name == "none") == augment.nothing
        assert name == "none" or not np.array_equal(first, apply(augment, images, 2))
    batched = BatchAugmentation(augment, 4)
    draws, prepare = batched.draw(24, 1), Preprocess((0.0,) * 4, (1 / 255,) * 4, 16, batched)
    assert isinstance(draws, AugmentParams) != (name == "none")
    if draws:
        part = prepare(torch.from_numpy(images[9:17]), draws[9:17]).permute(0, 2, 3, 1)
        assert np.allclose(part, on_device(augment, images, 1)[9:17], atol=1e-3)


@pytest.mark.parametrize("statistics", [(0.4, 0.2), ()], ids=["fixed", "of each image"])
def test_one_pass_of_a_gpu_is_what_separate_steps_are(statistics: tuple[float, ...]):
    images = np.random.default_rng(0).integers(0, 256, (64, 24, 24, 4), np.uint8)
    augment = BatchAugmentation(Augment(extends="microscopy", crop=0.4, shift=0.1, gain=0.2), 4)
    mean, std = (statistics[:1] * 4, statistics[1:] * 4)
    steps, at_once = (Preprocess(mean, std, 24, augment) for _ in range(2))
    at_once.at_once = ("cpu",)
    draws = augment.draw(64, 1)
    assert draws and draws.moved.all() and set(draws.symmetry) == set(range(8))
    moved = np.arange(64) % 3 > 0  # others are turned only
    for drawn in (draws, replace(draws, moved=moved)):
        a, b = (prepare(torch.from_numpy(images), drawn) for prepare in (steps, at_once))
        assert a.shape == b.shape and a.stride() == b.stride()
        assert torch.allclose(a, b, atol=2e-3)


@pytest.mark.parametrize("size", [7, 64])
def test_images_are_sampled_where_torchs_affine_grid_samples_them(size: int):
    moves = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 2, 3)).astype(np.float32))
    wanted = functional.affine_grid(moves, (20, 3, size, size), align_corners=False)
    torch.testing.assert_close(module.sampling_grid(moves, size).permute(0, 2, 3, 1), wanted)


@pytest.mark.parametrize("n_channels", [1, 2, 3, 4, 5, 13])
def test_images_are_turned_and_moved_by_opencv_as_by_torch_to_the_last_bit(n_channels: int):
    images = np.random.default_rng(0).integers(0, 256, (80, 33, 33, n_channels), np.uint8)
    augment, x = BatchAugmentation(Augment(extends="satellite"), n_channels), torch.from_numpy(images)
    draws = augment.draw(80, 1)
    assert draws and set(draws.symmetry) == set(range(8)) and 20 < draws.moved.sum() < 60
    assert torch.equal(turn_images(x, draws), augment.apply_symmetry(x, draws))
    found, wanted, rows = x.float(), x.float(), torch.from_numpy(np.flatnonzero(draws.moved))
    moved = module.sample(wanted[rows].permute(0, 3, 1, 2), torch.from_numpy(draws.moves[draws.moved]))
    wanted[rows] = moved.permute(0, 2, 3, 1)
    move_images(found, draws)
    assert torch.equal(found, wanted) and not torch.equal(found, x.float())


# --- in recipes


def recipe_of(folder: Path, text: str, *sets: str):
    (folder / "mine.toml").write_text(text)
    return load_recipe("mine.toml", sets)


def test_a_set_is_data_and_a_table_differs_from_one(here: Path):
    assert recipe_of(here, 'competition = "planet"').augment == Augment(extends="satellite")
    table = '[augment]\nextends = "microscopy"\ncrop = 0.5\ngain = 0.3'
    recipe = recipe_of(here, f'extends = "demo"\n{table}')
    assert recipe.augment == Augment(extends="microscopy", crop=0.5, gain=0.3)
    assert (recipe.augment.turn, recipe.augment.symmetry) == (45.0, "d4")
    assert recipe_of(here, toml_text(recipe)) == recipe


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_name_stays_a_name_in_stamps(here: Path, name: str):
    named = recipe_of(here, f'extends = "demo"\naugment = "{name}"')
    assert named.model_dump(mode="json")["augment"] == name
    assert Augment.model_validate(AUGMENTATIONS[name] | {"extends": name}) == named.augment
    more = recipe_of(here, f'extends = "demo"\naugment = "{name}"', "augment.crop=0.5")
    assert more.model_dump(mode="json")["augment"] == {"extends": name, "crop": 0.5}


def test_a_table_joins_what_a_recipe_extends(here: Path):
    (here / "base.toml").write_text('extends = "demo"\naugment = "dihedral"\n')
    wanted = Augment(extends="dihedral", crop=0.6)
    assert recipe_of(here, 'extends = "base.toml"\n[augment]\ncrop = 0.6').augment == wanted
    assert recipe_of(here, 'extends = "base.toml"', "augment.crop=0.6").augment == wanted
    both = recipe_of(here, 'extends = "base.toml"', "augment.crop=0.6", "augment.extends=none").augment
    assert both == Augment(extends="none", crop=0.6)
    assert recipe_of(here, 'extends = "base.toml"', "augment.crop=0.6", "augment=none").augment.nothing
    unsaid = recipe_of(here, 'competition = "planet"', "augment.light=0").augment
    assert unsaid == Augment(extends="satellite", light=0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("augment=satelite", "'augment': unknown augmentation 'satelite'; did you mean 'satellite'?"),
        ("augment=fog", "there are none, dihedral, satellite, microscopy"),
        ("augment=3", "'augment': input should be"),
        ("augment.extends=fog", "unknown augmentation 'fog'"),
        ("augment.crp=0.5", "unknown key 'augment.crp'; did you mean 'crop'?"),
        ("augment.crop=0", "'augment.crop': input should be greater than 0, found 0"),
        ("augment.crop=1.5", "'augment.crop': input should be less than or equal to 1"),
        ("augment.symmetry=d8", "'augment.symmetry'"),
        ("augment.turn=360", "'augment.turn': input should be less than or equal to 180"),
        ("augment.gain=-0.1", "'augment.gain'"),
        ("augment.light.much=1", "'augment.light'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(here: Path, override: str, message: str):
    with pytest.raises(CompError) as error:
        recipe_of(here, 'extends = "demo"', override)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


# --- test-time views


@pytest.mark.parametrize(("size", "kept"), [(32, 28), (50, 44), (224, 196)])
def test_a_crop_view_is_seven_eighths_enlarged(size: int, kept: int):
    x = torch.rand(2, 3, size, size).contiguous(memory_format=torch.channels_last)
    rest = size - kept
    places = {"tl": (0, 0), "tr": (0, rest), "bl": (rest, 0), "br": (rest, rest), "center": (rest // 2,) * 2}
    for name, (top, left) in places.items():
        part = x[:, :, top : top + kept, left : left + kept]
        wanted = functional.interpolate(part, (size, size), mode="bilinear", align_corners=False)
        assert torch.equal(VIEWS[f"crop_{name}"](x), wanted)


def test_crops_go_with_other_views():
    assert view_names(["crops"])[0] == "identity" and len(view_names(["crops"])) == 6
    assert view_names(["d4", "crops"]) == tuple(VIEWS) and len(VIEWS) == 13
    assert view_names(["crop_tl", "flips", "crop_tl"])[0] == "crop_tl"
    with pytest.raises(CompError, match=r"unknown view 'crop'; there are d4, flips, crops, identity"):
        view_names(["crop"])

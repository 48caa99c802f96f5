"""`comp look` shows what training feeds, before anything is trained or resized."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import comp
from comp.cli.main import main
from comp.compute.distributed import ProcessGroup
from comp.config.loading import load_recipe
from comp.config.recipe import Recipe
from comp.deadline import NEVER
from comp.plots.look import caption_of, new_sheet
from comp.training.batch_checks import check_lines, label_rows, warnings
from comp.training.first_batches import CPU, FirstBatches, _to_pixels, read_first_batches
from comp.training.prepare import build_caches_of
from comp.training.step import Feed
from comp.training.trainer import Trainer
from comp.training.training_data import TrainingData
from tests.conftest import TINY
from tests.test_pictures import check_texts

CELLS = """
extends = "hpa-drawn"
n_folds = 2
views = ["flips"]
[competition]
drawn = { kind = "cells", n_train = 60, n_test = 50, in_yellow = [] }
[[phases]]
size = 32
epochs = 1
batch_size = 16
"""


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("downloaded")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("COMP_DATA", "COMP_RUNS", "COMP_WEIGHTS"):
            patch.delenv(name, raising=False)
        (folder / "tiny.toml").write_text(TINY)
        (folder / "cells.toml").write_text(CELLS)
        assert main(["download", "tiny.toml"]) == main(["download", "cells.toml"]) == 0
    return folder


@pytest.fixture
def copy(downloaded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(downloaded, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fed_in_training(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Return the images and the rows that the network of fold 0 gets in each epoch's first step, by part."""
    training = TrainingData.read(recipe, [0])
    caches = build_caches_of(training, [0], NEVER, test=False)
    trainer = Trainer(training.fold_inputs(0, caches, training.stamp(0)), CPU, 0, ProcessGroup())
    found: list[list[tuple[torch.Tensor, torch.Tensor]]] = []
    feed = Feed.__call__

    def recorded(self: Feed, *arguments: Any) -> Any:
        fed = feed(self, *arguments)
        found[-1].append(fed)
        return fed

    monkeypatch.setattr(Feed, "__call__", recorded)
    for _ in recipe.phases:
        found.append([])
        trainer.epoch(lambda **_: None, math.inf)
    n_parts = [phase.accumulate for phase in recipe.phases]
    first = [epoch[:n] for epoch, n in zip(found, n_parts)]
    return [tuple(torch.cat(part) for part in zip(*parts)) for parts in first]


def same(a: FirstBatches, b: FirstBatches) -> bool:
    pairs = [(x, y) for p, q in zip(a.batches, b.batches) for x, y in zip(p.shown, q.shown, strict=True)]
    return np.array_equal(a.views.pixels, b.views.pixels) and all(
        x.id == y.id and np.array_equal(x.pixels, y.pixels) for x, y in pairs
    )


@pytest.mark.parametrize(
    "settings",
    [
        ["augment=satellite", "mixup=0.4", "normalize=dataset", "phases.1.accumulate=2"],
        ["augment=microscopy", "augment_on=cpu", "cutmix=1.0", "oversample=0.2", "cache=largest"],
        ["normalize=image", "augment=none"],
    ],
)
def test_what_is_shown_is_what_training_feeds(
    settings: list[str], copy: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = load_recipe("tiny.toml", settings)
    bare = read_first_batches(recipe, 0)
    made = {path.name for path in copy.rglob("*")}
    assert not {"cache", "folds", "fold0"} & made  # nothing is resized, split or trained
    assert main(["folds", "tiny.toml"]) == 0
    fed = fed_in_training(recipe, monkeypatch)
    monkeypatch.undo()
    monkeypatch.chdir(copy)
    cached = read_first_batches(recipe, 0)
    assert same(bare, cached)
    spec = replace_spec(recipe)
    for batch, (x, rows) in zip(cached.batches, fed, strict=True):
        pixels = np.stack([image.pixels for image in batch.shown])
        assert np.array_equal(pixels, _to_pixels(x, spec))
        mixed = [
            sum(part.share * part.targets.astype(float) for part in image.parts) for image in batch.shown
        ]
        assert np.allclose(mixed, rows.numpy(), atol=1e-6)
        assert {image.kind for image in batch.shown} == {next(iter(kinds_of(settings)), "")}
        assert np.allclose(batch.mean, x.mean((0, 2, 3)), atol=1e-5)
        assert np.allclose(batch.std, x.std((0, 2, 3), correction=0), atol=1e-5)


def kinds_of(settings: list[str]) -> list[str]:
    return [key for text in settings if (key := text.partition("=")[0]) in ("mixup", "cutmix")]


def replace_spec(recipe: Recipe) -> Any:
    """Return the network's spec as training makes it."""
    from comp.training.model_state import make_spec

    training = TrainingData.read(recipe, [0])
    return make_spec(training.fold_inputs(0, build_caches_of(training, [0], NEVER, test=False), {}))


def test_the_command_prints_checks_that_fit_80_columns_and_writes_a_sheet_per_phase(
    copy: Path, capsys: pytest.CaptureFixture[str], fails: Callable[..., str]
):
    assert main(["look", "tiny.toml", "--set", "mixup=0.4"]) == 0
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if not line.startswith("look:")]
    assert max(map(len, lines)) <= 80
    assert "32 × 32 px" in out and "red: mean, deviation" in out and "mixup, own share" in out
    sizes = [Image.open(f"runs/tiny/look-{phase}.png").size for phase in (0, 1)]
    assert sizes[0][0] == sizes[1][0] > 1000 and sizes[1][1] > sizes[0][1] + 100  # the last one has the views
    assert "numbers from 0 to 1" in fails("look", "tiny.toml", "--folds", "7")
    shutil.rmtree("data")
    assert "run `comp download` first" in fails("look", "tiny.toml")


def test_the_library_returns_the_sheet_of_a_phase(copy: Path):
    run = comp.Run(load_recipe("tiny.toml", ["mixup=0.4"]))
    texts = check_texts(run.look())
    assert any(text.startswith("test-time views of train_") for text in texts) and "antitranspose" in texts
    assert any(text.startswith("0.") and "\n" in text for text in texts)  # shares of a mixed image
    first = check_texts(run.look(0))
    assert not any("test-time" in text for text in first) and "tiny, phase 0" in first[0]
    with pytest.raises(comp.CompError, match="phase is 2"):
        run.look(2)
    with pytest.raises(comp.CompError, match="fold is 9"):
        run.look(fold=9)


def test_joined_channels_are_shown_one_by_one(copy: Path):
    seen = read_first_batches(load_recipe("cells.toml"), 0)
    assert seen.batches[0].shown[0].pixels.shape == (32, 32, 4) and seen.views.pixels.shape == (4, 32, 32, 4)
    sheet = new_sheet(seen, seen.batches[0])
    texts = check_texts(sheet)
    assert {"yellow: flip_h", "channel by channel"} <= set(texts)
    assert any(text.endswith("\nyellow") for text in texts)
    assert len(sheet.axes) == 16 + 8 + 4 * 5
    assert np.abs(seen.batches[0].mean).max() < 0.5  # normalised by its own images
    of_each = read_first_batches(load_recipe("cells.toml", ["normalize=image", "augment=none"]), 0)
    assert np.allclose(of_each.batches[0].std, 1, atol=0.01)


def test_what_is_odd_is_said_and_what_is_fine_is_not(copy: Path):
    seen = read_first_batches(load_recipe("tiny.toml", ["normalize=dataset"]), 0)
    batch = seen.batches[0]
    assert warnings(seen, batch) == []
    odd = replace(batch, mean=np.array([0.0, -1.5, 0.0]))
    assert warnings(seen, odd) == [
        f"mean and deviation are far from 0 and 1: green -1.50, {batch.std[1]:.2f}"
    ]
    assert warnings(seen, replace(batch, n_blank=3)) == [
        "3 of 16 images are blank: all pixels have one value"
    ]
    assert warnings(seen, replace(batch, black=0.8)) == ["80% of the pixels are black"]
    small = replace(batch, files=[(9, 12)] * 16)
    assert warnings(seen, small) == ["16 of 16 files are smaller than 16 px, and are enlarged"]
    none = replace(batch, targets=np.zeros_like(batch.targets))
    assert "no image of the batch has" in warnings(seen, none)[0] and "primary" in warnings(seen, none)[0]
    counts = dict(zip(seen.classes, (batch.targets > 0.5).sum(0).tolist()))
    assert {name: int(n) for name, _, n, _ in label_rows(seen)} == counts
    assert f"primary {counts['primary']}" in check_lines(seen, batch)[-1]


def test_blank_and_black_images_are_found_in_the_files(copy: Path):
    for path in (copy / "data/tiny").rglob("train_*.jpg"):
        Image.new("RGB", (32, 32)).save(path)
    seen = read_first_batches(load_recipe("tiny.toml"), 0)
    assert (seen.batches[0].black, seen.batches[0].n_blank) == (1.0, 16)
    assert any("16 of 16 images are blank" in line for line in warnings(seen, seen.batches[0]))


def test_captions_are_grades_numbers_and_shares(copy: Path):
    seen = read_first_batches(load_recipe("tiny.toml"), 0)
    image = seen.batches[0].shown[0]
    soft = np.zeros(len(seen.classes), np.float32)
    soft[:2] = 1.0, 0.25
    of = replace(image, parts=(replace(image.parts[0], targets=soft),))
    assert caption_of(of, seen) == f"{seen.classes[0]}, {seen.classes[1]} 0.25"
    assert caption_of(replace(image, parts=(replace(image.parts[0], targets=soft * 0),)), seen) == "no label"

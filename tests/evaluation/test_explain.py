"""Where heat maps say that labels lie, and what `comp explain` says of single images."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from torch.nn import functional

from comp.artifacts.paths import oof_path
from comp.artifacts.predictions import load
from comp.batches.preprocessing import Preprocess
from comp.cli.main import main
from comp.config.competition import Images
from comp.config.loading import load_competition, load_recipe
from comp.evaluation.explanation import names_of
from comp.models import network as models
from comp.models.gradcam import as_grid, heat_maps, target_layer
from comp.models.network import ModelSpec
from comp.plots import explanation as explanation_plot

CPU = torch.device("cpu")
SIDE, BLOB = 64, 12  # pixels
SWIN = {"img_size": SIDE, "window_size": 4, "embed_dim": 24, "depths": (1, 2, 2), "num_heads": (1, 2, 4)}


def make_spec(backbone: str, size: int) -> ModelSpec:
    return ModelSpec(backbone, ("red", "green", "blue"), 3, size, (0.4,) * 3, (0.2,) * 3)


def blobs(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (n, SIDE, SIDE, 3), the colours (n, 3) 0/1 of which they hold a bright square, and the centres
    (n, 3, 2) of these."""
    rng = np.random.default_rng(seed)
    images = rng.integers(60, 120, (n, SIDE, SIDE, 3)).astype(np.uint8)
    there, corners = rng.random((n, 3)) < 0.5, rng.integers(0, SIDE - BLOB, (n, 3, 2))
    for i, c in np.argwhere(there):
        y, x = corners[i, c]
        images[i, y : y + BLOB, x : x + BLOB, c] = 255
    return images, there.astype(np.float32), corners + BLOB / 2


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- heat maps


@pytest.mark.parametrize(
    ("backbone", "settings", "rate", "least"),
    [
        ("test_resnet", {}, 3e-3, 0.9),
        ("test_convnext", {}, 3e-3, 0.7),
        ("swin_tiny_patch4_window7_224", SWIN, 2e-3, 0.5),  # channels last
        ("test_vit", {"img_size": SIDE}, 2e-3, 0.6),  # class token
        ("test_vit2", {"img_size": SIDE}, 2e-3, 0.9),  # mean of the tokens, registers before them
    ],
)
def test_maps_are_highest_where_the_label_is(backbone: str, settings: dict, rate: float, least: float):
    torch.manual_seed(0)
    model, spec = timm.create_model(backbone, num_classes=3, **settings), make_spec(backbone, SIDE)
    prepare, optimizer = Preprocess(spec.mean, spec.std, SIDE), torch.optim.AdamW(model.parameters(), rate)
    for step in range(60):
        images, there, _ = blobs(16, step)
        logits = model(prepare(torch.from_numpy(images)))
        optimizer.zero_grad()
        functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(there)).backward()
        optimizer.step()
    images, there, centres = blobs(64, 9999)
    maps = heat_maps(model, spec, images, [np.flatnonzero(row).tolist() for row in there], CPU)
    hits, chance = [], []
    for of_image, row, at in zip(maps, there, centres):
        cell = SIDE / of_image.shape[1]
        middles = (np.stack(np.indices(of_image.shape[1:]), -1) + 0.5) * cell
        for cells, c in zip(of_image, np.flatnonzero(row)):
            touching = np.abs(middles - at[c]).max(-1) <= (cell + BLOB) / 2
            hits.append(touching.flat[cells.argmax()])
            chance.append(touching.mean())
    assert of_image.shape[1] == of_image.shape[2] >= 4
    assert np.mean(hits) > max(least, 2.5 * np.mean(chance))


def test_of_global_pooling_and_a_linear_head_they_are_class_activation_maps():
    """Zhou et al. 2016: the features of the last layer, weighed as the head weighs their means."""
    torch.manual_seed(0)
    spec = make_spec("test_resnet", 160)
    model, images = models.create(spec, pretrained=False), noise(5, 160)
    maps = heat_maps(model, spec, images, [[0, 1, 2]] * 5, CPU)
    with torch.no_grad():
        features = model.forward_features(Preprocess(spec.mean, spec.std, 160)(torch.from_numpy(images)))
    classic = torch.einsum("kc,bchw->bkhw", model.get_classifier().weight.detach(), features).relu()
    classic /= classic.amax((2, 3), keepdim=True).clamp(min=1e-9)
    assert classic.any()
    np.testing.assert_allclose(np.stack(maps), classic.numpy(), atol=1e-4)


def test_a_list_of_classes_each_and_no_traces():
    spec = make_spec("test_resnet", 64)
    model, images = models.create(spec, pretrained=False), noise(40, 64)  # more than are worked on at once
    with torch.no_grad():
        model.get_classifier().weight[:] = 1.0  # of features that are never below 0
        model.get_classifier().weight[1] = -1.0  # nothing speaks for this class
    listed = [[k % 3] * (k % 4) for k in range(40)]
    with torch.inference_mode():
        maps = heat_maps(model, spec, images, listed, CPU)
    for k in (0, 6, 7, 39):
        assert maps[k].shape == (k % 4, 4, 4) and maps[k].dtype == np.float32
        (alone,) = heat_maps(model, spec, images[k : k + 1], listed[k : k + 1], CPU)
        np.testing.assert_allclose(maps[k], alone, atol=1e-4)
    for of_image, classes in zip(maps, listed):
        assert of_image.min(initial=0) >= 0 and of_image.max(initial=0) <= 1
        if classes:
            assert of_image.any() == (classes[0] != 1)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert heat_maps(model, spec, images[:0], [], CPU) == []


@pytest.mark.parametrize(
    ("backbone", "size", "side"),
    [
        *(
            ("test_resnet", 160, 5),
            ("test_resnet", 64, 4),
            ("test_resnet", 32, 4),
            ("test_efficientnet", 96, 6),
        ),
        *(("test_vit", 160, 10), ("test_vit3", 160, 10), ("vit_tiny_r_s16_p8_224", 224, 7)),
        *(("cait_xxs24_224", 224, 14), ("mobilevit_xxs", 256, 8), ("mixer_s32_224", 224, 7)),
    ],
)
def test_any_network_has_a_layer_that_tells(backbone: str, size: int, side: int):
    model, x = timm.create_model(backbone, num_classes=3).eval(), torch.rand(1, 3, size, size)
    found: list[torch.Tensor] = []
    layer = target_layer(model, x, backbone)
    layer.register_forward_hook(lambda _module, _inputs, output: found.append(output))
    with torch.no_grad():
        model(x)
    grid = as_grid(model, found[-1])
    assert grid is not None
    assert grid.shape[1:3] == (side, side)


def classes() -> tuple[str, ...]:
    return tuple(json.loads(Path("runs/tiny/decision.json").read_text())["thresholds"])


def noise(n: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3)).astype(np.uint8)


# --- comp explain


@pytest.fixture
def copy(submitted: Path, here: Path) -> Path:
    """A working directory in which the tiny competition was run to its end; its files are in files/."""
    shutil.copytree(submitted, here, dirs_exist_ok=True, symlinks=True)
    return here


@pytest.fixture
def explained(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[list[str], pd.DataFrame]]:
    """Run `comp explain …` for one image; give the first line about it and the last one, and the table
    between."""

    def run(*arguments: str) -> tuple[list[str], pd.DataFrame]:
        capsys.readouterr()
        assert main(["explain", *arguments]) == 0
        asked, first, header, *rows, last = capsys.readouterr().out.strip().splitlines()
        assert asked.startswith(f"explain: {arguments[1]}, by ")
        table = pd.DataFrame([row.split() for row in rows])
        names = header.replace("above it", "above_it").split()
        return [first, last], table.set_axis(names[: table.shape[1]], axis=1).set_index("label")

    return run


def test_a_training_image_is_explained_by_the_network_that_held_it_out(copy: Path, explained):
    labels = pd.read_csv("files/train.csv", index_col="image_name")["tags"]
    for fold in (0, 1):
        oof = load(oof_path("tiny", fold), classes())
        name, probs = oof.ids[0], dict(zip(oof.classes, oof.probs[0]))
        Path("elsewhere").mkdir(exist_ok=True)
        image = shutil.copy(f"files/train-jpg/{name}.jpg", "elsewhere")
        (first, last), table = explained("tiny.toml", image)
        assert first.startswith(f"{name}: a training image") and f"fold {fold}" in first
        assert last == f"explain: runs/tiny/explain-{name}.png"
        assert {c for c, true in table["true"].items() if true == "yes"} == set(labels[name].split())
        for c, prob in table["probability"].items():
            assert float(prob) == pytest.approx(probs[c], abs=2e-3)


def test_other_images_are_explained_by_all_networks_without_training_data(copy: Path, explained):
    decided = pd.read_csv(next(Path("submissions").glob("tiny-*.csv")), index_col="image_name")["tags"]
    test = load(Path("runs/tiny/test.npz"), classes())
    Image.open(f"files/train-jpg/{test.ids[0].replace('test', 'train')}.jpg").save("train_1.jpg")
    # a name alone is enough
    assert explained("tiny.toml", "train_1.jpg")[0][0].startswith(
        "train_1: mean of 2 networks"
    )  # a name alone
    shutil.copy("train_1.jpg", "files/train-jpg/unlabelled.jpg")
    assert explained("tiny.toml", "files/train-jpg/unlabelled.jpg")[0][0].startswith("unlabelled: mean of 2")
    shutil.rmtree("data")
    shutil.rmtree("folds")
    for k in (0, 7):
        (first, _), table = explained("tiny.toml", f"files/test-jpg/{test.ids[k]}.jpg")
        assert first.startswith(f"{test.ids[k]}: mean of 2 networks")
        assert "true" not in table
        predicted = table.index[table["predicted"] == "yes"]
        assert set(predicted) == set(decided[test.ids[k]].split())
        for c, prob in table["probability"].items():
            assert float(prob) == pytest.approx(test.probs[k, classes().index(c)], abs=2e-3)
    (Path("runs/tiny/fold1/model.safetensors")).unlink()
    assert explained("tiny.toml", "train_1.jpg")[0][0].startswith("train_1: one network")


def test_the_picture_has_a_row_an_image_and_replaces_nothing_silently(copy: Path, fails):
    names = [f"files/train-jpg/train_{k}.jpg" for k in (1, 2)]
    Image.fromarray(noise(1, 50)[0]).resize((90, 50)).convert("CMYK").save("wide.jpg")
    assert main(["explain", "tiny.toml", *names, "wide.jpg", "--to", "three.png"]) == 0
    assert main(["explain", "tiny.toml", *names, "--to", "two.png"]) == 0
    three, two = (Image.open(name).size for name in ("three.png", "two.png"))
    assert three[0] == two[0] and three[1] - two[1] > 300
    assert "three.png is there; --force replaces it" in fails(
        "explain", "tiny.toml", "wide.jpg", "--to", "three.png"
    )
    assert main(["explain", "tiny.toml", "wide.jpg", "--to", "three.png", "--force"]) == 0
    assert "three.png is an input" in fails(
        "explain", "tiny.toml", "three.png", "--to", "three.png", "--force"
    )
    assert "ends in .png" in fails("explain", "tiny.toml", "wide.jpg", "--to", "three.jpg")


def test_no_text_of_the_picture_lies_over_another_or_over_a_panel(
    copy: Path, monkeypatch: pytest.MonkeyPatch
):
    figures: list = []
    monkeypatch.setattr(explanation_plot, "save", lambda figure, *_, **__: figures.append(figure))
    assert main(["explain", "tiny.toml", "files/train-jpg/train_1.jpg"]) == 0
    figure = figures[0]
    figure.draw_without_rendering()
    texts = [text.get_window_extent() for text in figure.texts]
    legend = figure.axes[0].get_legend().get_window_extent()
    panels = [axes.get_window_extent() for axes in figure.axes[1:]]
    for i, box in enumerate(texts):
        assert not any(box.overlaps(other) for other in [*texts[:i], legend, *panels])


def test_any_name_and_any_shape(copy: Path, explained):
    for name, shape in (("cost $x^$ z", (1, 3000, 3)), ("tall", (3000, 1, 3)), ("grey", (9, 20))):
        Image.fromarray(np.zeros(shape, np.uint8)).save(f"{name}.png")
        assert explained("tiny.toml", f"{name}.png", "--to", "picture.png", "--force")[0][0].startswith(name)


def test_what_cannot_be_explained_is_one_line(copy: Path, fails):
    Path("text.jpg").write_text("no image")
    assert "text.jpg can't be read as an image" in fails("explain", "tiny.toml", "text.jpg")
    assert "absent.jpg: no such file" in fails("explain", "tiny.toml", "absent.jpg")
    assert "files: a folder" in fails("explain", "tiny.toml", "files")
    image = "files/train-jpg/train_1.jpg"
    assert "51 images" in fails("explain", "tiny.toml", *[image] * 51)
    other = ["--set", "backbone=test_vit"]
    assert 'was trained with backbone = "own.py:Net"' in fails("explain", "tiny.toml", image, *other)
    folds = pd.read_csv("folds/tiny-k2-s42.csv", index_col="id")["fold"]
    wrong = ["--folds", str(1 - folds["train_1"])]
    assert f"a training image of fold {folds['train_1']}" in fails("explain", "tiny.toml", image, *wrong)
    folds.replace({0: 1, 1: 0}).to_csv("folds/tiny-k2-s42.csv")
    assert "was made with other folds" in fails("explain", "tiny.toml", image)
    Path("runs/tiny/decision.json").unlink()
    assert "runs/tiny/decision.json" in fails("explain", "tiny.toml", image)
    members = ["--set", 'members=[{backbone="test_resnet"},{backbone="test_vit"}]']
    assert "is a blend of tiny-test_resnet, tiny-test_vit" in fails("explain", "tiny.toml", image, *members)


def test_labels_of_which_one_holds_are_compared_and_not_held_against_thresholds(copy: Path, capsys):
    weather = ("clear", "cloudy", "haze", "partly_cloudy")
    settings = [
        *("--set", f"competition.labels.exclusive=[{json.dumps(weather)}]"),
        *("--set", "rule=global+exclusive"),
    ]
    assert main(["decide", "tiny.toml", *settings, "--force"]) == 0
    capsys.readouterr()
    assert main(["explain", "tiny.toml", "files/test-jpg/test_1.jpg", *settings]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[3:-1]]
    assert {len(row) for row in rows if row[0] in weather} == {3}
    assert {len(row) for row in rows if row[0] not in weather} == {5}
    assert sum(row[0] in weather and row[1] == "yes" for row in rows) == 1


CELLS = """
backbone = "test_resnet"
pretrained = false
n_folds = 2
views = "identity"
rule = "0.5"
channels = ["green", "red"]

[competition]
name = "cells"
drawn = { kind = "cells", n_train = 60, n_test = 50, size = 32 }
submission = { sample = "sample.csv" }
metric = { beta = 1, average = "macro" }

[competition.labels]
csv = "labels.csv"
id = "name"
column = "where"
separator = "|"
classes = ["Nucleoplasm", "Plasma membrane", "Cytosol"]

[competition.images]
train = "a/{id}-{channel}.png"
test = "b/{id}-{channel}.png"
channels = ["red", "green", "blue", "yellow"]

[[phases]]
size = 32
epochs = 1
batch_size = 16
"""


def test_one_channel_finds_the_others(here: Path, fails, capsys):
    Path("cells.toml").write_text(CELLS)
    for stage in ("download", "folds", "train", "predict", "blend", "decide"):
        assert main([stage, "cells.toml"]) == 0
    oof = load(Path("runs/cells/oof.npz"), ("Nucleoplasm", "Plasma membrane", "Cytosol"))
    capsys.readouterr()
    for channel in ("red", "blue"):  # blue is not learned from
        image = next(Path("data").rglob(f"a/{oof.ids[0]}-{channel}.png"))
        assert main(["explain", "cells.toml", str(image)]) == 0
        out = capsys.readouterr().out
        assert out.splitlines()[1].startswith(f"{oof.ids[0]}: a training image")
        for name, prob in zip(oof.classes, oof.probs[0]):
            (line,) = (line for line in out.splitlines() if line.startswith(name))
            assert float(line.split()[-3]) == pytest.approx(prob, abs=2e-3)
    red = next(Path("data").rglob("b/*-red.png"))
    assert main(["explain", "cells.toml", str(red)]) == 0
    about = capsys.readouterr().out.splitlines()[1]
    assert about.startswith(f"{red.stem.removesuffix('-red')}: mean of 2 networks")
    red.with_name(red.name.replace("red", "green")).unlink()
    assert "-green.png: no such file" in fails("explain", "cells.toml", str(red))
    shutil.copy(red, "other.png")
    assert "a/{id}-{channel}.png" in fails("explain", "cells.toml", "other.png")


@pytest.mark.parametrize(
    ("template", "path", "found"),
    [
        ("a/{id}.jpg", "/x/a/7.jpg", [("/x/a", "7"), ("/x", "a/7"), ("/", "x/a/7")]),
        ("a/{channel}/{id}.png", "/x/red/7.png", [("/x", "7")]),
        ("{id}/{id}_{channel}.png", "/x/7/7_blue.png", [("/x", "7")]),
        ("{id}/{id}_{channel}.png", "/x/7/8_blue.png", []),
        ("{id}_{channel}.png", "/x_red/a_b_yellow.png", [("/x_red", "a_b"), ("/", "x_red/a_b")]),
    ],
)
def test_ids_are_read_from_paths(template: str, path: str, found: list[tuple[str, str]]):
    channels = ("red", "green", "blue", "yellow") if "{channel}" in template else ()
    images = Images(train=template, test="t/{id}" + "{channel}" * bool(channels) + ".tif", channels=channels)
    competition = load_competition("planet").model_copy(update={"images": images})
    recipe = load_recipe("planet").model_copy(update={"competition": competition})
    assert [(str(folder), name) for folder, _, name in names_of(Path(path), recipe)] == found

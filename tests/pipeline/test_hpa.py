"""The Human Protein Atlas: its real tables, four channels or three, how they are normalised, drawn cells in
its place, and what class weights and oversampling find."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from sklearn.metrics import average_precision_score, fbeta_score

from comp.artifacts import paths
from comp.artifacts.predictions import Predictions, load, save
from comp.artifacts.stamps import digest
from comp.batches.augmentation import BatchAugmentation
from comp.batches.preprocessing import MIN_STD, Preprocess
from comp.batches.sampling import epoch_steps, oversampling_repeats
from comp.batches.tta import SYMMETRIES
from comp.cli import dispatch
from comp.cli.main import main
from comp.config.augment import Augment
from comp.config.loading import load_competition, load_recipe
from comp.config.recipe import Recipe
from comp.data.manifest import read_training
from comp.data.synthetic.cells import LABELS
from comp.errors import CompError, NoImages
from comp.models import network as models
from tests.conftest import read_by, run_all

ROOT = Path(__file__).parents[2]

CELLS = """
backbone = "test_resnet"
pretrained = false
n_folds = 2
ema_decay = 0.9
augment = "dihedral"
views = "identity"

[competition]
name = "cells"
drawn = { kind = "cells", n_train = 600, n_test = 50, size = 32, in_yellow = ["Plasma membrane"] }
submission = { sample = "sample.csv", solution = "solution.csv" }
metric = { beta = 1, average = "macro" }

[competition.labels]
csv = "labels.csv"
id = "name"
column = "where"
separator = "|"
classes = [
  "Nucleoplasm", "Plasma membrane", "Cytosol", "Microtubules", "Actin filaments", "Focal adhesion sites",
  "Mitotic spindle", "Aggresome",
]

[competition.images]
train = "a/{id}-{channel}.png"
test = "b/{id}-{channel}.png"
channels = ["red", "green", "blue", "yellow"]

[[phases]]
size = 32
epochs = 9
lr = 5e-3
batch_size = 16
"""


# --- the real tables


def test_the_real_tables_from_folds_to_a_submission(shared: Path, here: Path):
    """Planted probabilities take the place of a network's, for 31,072 labelled and 11,702 test ids."""
    for split in ("train", "test"):
        (here / "files" / split).mkdir(parents=True)
        (here / "files" / split / "x_red.png").touch()
    for table in ("train.csv.zip", "sample_submission.csv.zip"):
        (here / "files" / table).symlink_to(shared / "hpa" / table)
    for stage in ("download", "folds"):
        assert main([stage, *read_by(stage, ["hpa", "--from", "files"])]) == 0
    data, labels, fold_of = read_training(recipe := load_recipe("hpa"))
    counts = labels.targets.sum(0, dtype=int)
    assert labels.targets.shape == (31_072, 28)
    assert (counts.min(), counts.max()) == (11, 12_885)
    per_fold = np.array([labels.targets[fold_of == fold].sum(0) for fold in range(5)])
    assert np.abs(per_fold - counts / 5).max() <= 0.2 * counts.max() and per_fold.min() >= 2
    rng, test_ids = np.random.default_rng(0), data.sample_ids(recipe.competition)
    truth = rng.random((len(test_ids), 28)) < 0.05
    truth[np.arange(len(truth)), rng.integers(0, 28, len(truth))] = True

    def noisy(targets: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-rng.normal(4.0 * targets - 3, 1.0)))

    stamp = {"fold_of": digest(labels.ids, fold_of)}
    save(paths.oof_path("hpa"), Predictions(labels.ids, labels.classes, noisy(labels.targets)), stamp)
    save(paths.test_path("hpa"), Predictions(test_ids, labels.classes, noisy(truth)), stamp)
    f2 = ["--set", "competition.metric.beta=2"]
    assert main(["decide", "hpa", "--rule", "per-class", *f2]) == 0
    decision = json.loads((here / "runs/hpa/decision.json").read_text())
    thresholds = np.array([decision["thresholds"][name] for name in labels.classes])
    oof, seen = (load(path, labels.classes).probs for path in (paths.oof_path("hpa"), paths.test_path("hpa")))

    def decided(probs: np.ndarray) -> np.ndarray:
        above, odds = probs > thresholds, np.log(probs / (1 - probs)) - np.log(thresholds / (1 - thresholds))
        above[np.arange(len(above)), odds.argmax(1)] |= ~above.any(1)  # an image has one label at least
        return above

    expected = fbeta_score(labels.targets, decided(oof), beta=2, average="macro")
    assert decision["scores"]["in_sample"] == pytest.approx(expected, abs=1e-6)
    assert main(["submit", "hpa", *f2]) == 0
    (path,) = (here / "submissions").glob("hpa-*.csv")
    table = pd.read_csv(path)
    assert list(table) == ["Id", "Predicted"] and table["Id"].tolist() == test_ids.tolist()
    assert [set(map(int, text.split())) for text in table["Predicted"].astype(str)] == [
        set(np.flatnonzero(row).tolist()) for row in decided(seen)
    ]


# --- channels and how they are normalised


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("hpa", "channels=['red','infrared']", "'infrared'; they have red, green, blue, yellow"),
        ("hpa", "channels=['red','red']", "twice in red, red"),
        ("planet", "channels=['red']", "RGB files"),
        ("hpa", "normalize=imagenet", "3 channels, not 4"),
    ],
)
def test_channels_that_are_not_there_are_refused(name: str, change: str, message: str):
    with pytest.raises(CompError, match=message):
        load_recipe(name, [change])


def test_a_recipe_takes_all_channels_or_some_in_its_own_order():
    assert load_recipe("hpa").channels == ("red", "green", "blue", "yellow")
    assert load_recipe("hpa", ["channels=['yellow','red']"]).n_channels == 2
    assert (load_recipe("planet").channels, load_recipe("planet").n_channels) == ((), 3)


def test_each_image_by_its_own_mean_and_deviation():
    rng = np.random.default_rng(0)
    batch = rng.integers(20, 90, (6, 16, 16, 2)).astype(np.uint8)
    batch[3, ..., 1] = 7  # an empty channel
    x = Preprocess((), (), 16)(torch.from_numpy(batch)).numpy()
    grey = batch.transpose(0, 3, 1, 2).astype(float)
    mean, std = (getattr(grey, name)((2, 3), keepdims=True) for name in ("mean", "std"))
    assert x == pytest.approx((grey - mean) / np.maximum(std, MIN_STD * 255), abs=1e-4)
    assert not x[3, 1].any()
    brighter = Preprocess((), (), 16)(torch.from_numpy(batch * 2 + 10)).numpy()
    assert np.delete(brighter, 3, 0) == pytest.approx(np.delete(x, 3, 0), abs=1e-4)


def test_an_augmented_image_is_normalised_as_it_is_in_inference():
    batch = torch.from_numpy(np.random.default_rng(0).integers(0, 99, (8, 16, 16, 4)).astype(np.uint8))
    augment = BatchAugmentation(Augment(extends="dihedral"), 4)
    draws = augment.draw(8, 1)
    assert draws is not None
    plain, turned = Preprocess((), (), 16)(batch), Preprocess((), (), 16, augment)(batch, draws)
    for i, symmetry in enumerate(draws.symmetry):
        view = list(SYMMETRIES.values())[symmetry]
        assert torch.allclose(turned[i : i + 1], view(plain[i : i + 1]), atol=1e-5)


def test_imagenet_weights_see_a_fourth_channel_as_more_of_the_first(shared: Path):
    """timm repeats red, green, blue, red and takes 3/4 of each, so an RGB picture that is 4/3 as bright, with
    nothing in the fourth channel, is what it was to a network of three."""
    path = shared / "weights" / "tf_efficientnet_lite0.safetensors"

    def network(n_channels: int) -> torch.nn.Module:
        of = (0.5,) * n_channels
        spec = models.ModelSpec("tf_efficientnet_lite0", ("a",), n_channels, 64, of, of)
        return models.create(spec, pretrained=True, weights=str(path)).eval()

    three, four = network(3), network(4)
    known, first = load_file(path), "conv_stem.weight"
    assert np.allclose(four.state_dict()[first], 0.75 * known[first][:, [0, 1, 2, 0]])
    body = {name for name in four.state_dict() if not name.startswith(("classifier.", first))}
    assert all(np.array_equal(four.state_dict()[name], known[name]) for name in body)
    rgb = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        seen = four.forward_features(torch.cat([rgb * 4 / 3, torch.zeros(2, 1, 64, 64)], 1))  # type: ignore[operator]
        assert torch.allclose(seen, three.forward_features(rgb), atol=1e-3)  # type: ignore[operator]


# --- drawn cells


def test_drawn_cells_have_the_form_of_the_atlas_and_run_where_classes_are_absent(here: Path):
    hpa, drawn = load_competition("hpa"), load_competition("hpa-drawn")
    assert drawn.labels == hpa.labels and drawn.images == hpa.images and drawn.metric == hpa.metric
    assert tuple(LABELS) == hpa.labels.classes
    small = "{ kind = 'cells', n_train = 60, n_test = 50, size = 32 }"
    few = "['Nucleoplasm','Cytosol','Lysosomes','Rods & rings']"
    sets = [
        f"competition.drawn={small}",
        f"competition.labels.classes={few}",
        "phases=[{size=32,epochs=1}]",
        "n_folds=2",
        "views=identity",
    ]
    run_all("hpa-drawn", "--folds", "0", *(part for change in sets for part in ("--set", change)))
    _, labels, _ = read_training(load_recipe("hpa-drawn", sets))
    assert 0 < labels.targets.any(0).sum() < 4
    folder = here / "data/hpa-drawn/drawn"
    with Image.open(folder / "train/train_0_yellow.png") as image:
        assert (image.mode, image.size) == ("L", (32, 32))
    (row,) = pd.read_csv(here / "submissions/ledger.csv").to_dict("records")
    assert 0 <= row["private"] <= 1


def test_hpa_without_images_and_account_is_drawn_cells_and_other_failures_stop(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def calls(command: str, lacks: str, error: CompError) -> tuple[int, list[str]]:
        notes: list[str] = []

        def command_of(name: str) -> SimpleNamespace:
            def run(recipe: Recipe, **options: Any) -> None:
                for stage in options.get("stages", {}).values():
                    stage()
                if name != "run":
                    notes.append(f"{name} {recipe.name}")
                if notes[-1] == f"download {lacks}":
                    raise error

            return SimpleNamespace(run=run)

        monkeypatch.setattr(dispatch, "_command", command_of)
        code = main(["run", *command.split()])
        assert ("recipe hpa-drawn" in capsys.readouterr().out) == ("download hpa-drawn" in notes)
        return code, notes

    code, made = calls("hpa", "hpa", NoImages("none"))
    assert (code, made[:2], made[-1]) == (0, ["download hpa", "download hpa-drawn"], "report hpa-drawn")
    assert calls("hpa", "hpa", CompError("full")) == (1, ["download hpa"])
    assert calls("hpa --send", "hpa", NoImages("none")) == (4, ["download hpa"])
    assert calls("planet", "planet", NoImages("none")) == (4, ["download planet"])
    assert not Path("runs").exists() or {path.name for path in Path("runs").iterdir()} == {"hpa-drawn"}


def test_run_sh_hands_all_arguments_to_comp_run(tmp_path: Path):
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    parts = b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    (venv / "installed").write_bytes(subprocess.run(["cksum"], input=parts, capture_output=True).stdout)
    (venv / "bin/comp").write_text('#!/bin/sh\necho "$@"\nexit 4\n')
    (venv / "bin/comp").chmod(0o755)
    for given, passed in (("", "run demo"), ("--as x", "run demo --as x"), ("hpa --send", "run hpa --send")):
        answer = subprocess.run(
            [str(ROOT / "run.sh"), *given.split()],
            env={**os.environ, "COMP_VENV": str(venv)},
            capture_output=True,
            text=True,
        )
        assert (answer.returncode, answer.stdout) == (4, f"{passed}\n")


# --- what is worth it


Held = tuple[np.ndarray, np.ndarray]  # targets and probabilities (N, C) of fold 0


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Held]]:
    """What a network trained on drawn cells says of those that it did not see, by what is set for it."""
    folder = tmp_path_factory.mktemp("cells")
    known: dict[tuple[str, ...], Held] = {}

    def trained(*sets: str) -> Held:
        if sets not in known:
            name = f"run{len(known)}"
            changes = [part for change in (f"name={name}", *sets) for part in ("--set", change)]
            for stage in ("train", "predict"):
                assert main([stage, *read_by(stage, ["cells.toml", "--folds", "0", *changes])]) == 0
            _, labels, fold_of = read_training(load_recipe("cells.toml"))
            found = load(paths.oof_path(name, 0), labels.classes)
            known[sets] = labels.targets[fold_of == 0], found.probs
        return known[sets]

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "cells.toml").write_text(CELLS)
        for stage in ("download", "folds"):
            assert main([stage, *read_by(stage, ["cells.toml"])]) == 0
        yield trained


def test_four_channels_find_what_is_only_in_the_fourth_and_three_do_not(cells: Callable[..., Held]):
    def precision(held: Held) -> float:  # of "Plasma membrane", which shows in yellow alone
        return float(average_precision_score(held[0][:, 1], held[1][:, 1]))

    four, three = cells(), cells("channels=['red','green','blue']")
    assert precision(four) > 0.9
    assert precision(three) < 0.35 and four[0][:, 1].mean() < 0.2  # what chance would give


def test_rare_labels_are_found_with_weights_and_not_without(cells: Callable[..., Held]):
    """In as many steps: 4 epochs that show images with rare labels again, against 9."""
    _, labels, fold_of = read_training(load_recipe("cells.toml"))
    rows, targets = np.flatnonzero(fold_of != 0), labels.targets[fold_of != 0]
    rare = labels.targets.mean(0) < 0.05
    n_steps = [
        4 * len(epoch_steps(rows, 16, (0,), oversampling_repeats(targets, 1.0))),
        9 * len(epoch_steps(rows, 16, (0,))),
    ]
    assert n_steps[0] <= n_steps[1] and rare.sum() == 5
    with_weights = cells("class_weights=inverse", "oversample=1.0", "phases.0.epochs=4")

    def recall(held: Held) -> float:  # of labels that are likelier than not, over all rare ones
        truth, probs = held
        return float((probs > 0.5)[:, rare][truth[:, rare] == 1].mean())

    assert recall(with_weights) > 0.35 and recall(cells()) < 0.15

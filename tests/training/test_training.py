"""The parts of training and prediction; and a kill in the middle of an epoch changes nothing."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from comp.batches.augmentation import training_transform
from comp.batches.loader import CachedDataset, DeviceLoader
from comp.batches.preprocessing import Preprocess
from comp.batches.sampling import epoch_steps
from comp.batches.tta import SYMMETRIES
from comp.batches.view_names import view_names
from comp.cli.main import main
from comp.config.augment import Augment
from comp.config.loading import load_recipe
from comp.data.image_files import resize
from comp.errors import CompError
from comp.models import network as models
from comp.training.schedule import lr_factor
from tests.conftest import read_by


def test_one_cycle_rises_to_1_and_falls_to_nothing():
    rates = [lr_factor("one-cycle", step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 25)
    assert max(rates) == rates[25] == 1.0
    assert rates[-1] == pytest.approx(1e-4)
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)


def test_restarts_are_each_twice_as_long():
    rates = [lr_factor("cosine-restarts", step, 70, cycles=3) for step in range(70)]
    assert [step for step in range(70) if rates[step] == 1.0] == [0, 10, 30]
    assert rates[9] < 0.05
    assert rates[69] < 0.01


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine-restarts", "constant"])
@pytest.mark.parametrize("n_steps", [1, 2, 3, 7])
def test_short_schedules_stay_within_their_bounds(schedule: str, n_steps: int):
    assert all(0 < lr_factor(schedule, step, n_steps) <= 1 for step in range(n_steps))


def test_the_views_are_the_8_symmetries_of_the_square():
    corner = torch.arange(9.0).view(1, 1, 3, 3)
    assert len({tuple(view(corner).flatten().tolist()) for view in SYMMETRIES.values()}) == 8
    for view in SYMMETRIES.values():
        assert sorted(view(corner)[0, 0, (0, 0, 2, 2), (0, 2, 0, 2)].tolist()) == [0, 2, 6, 8]
    assert view_names(["d4"]) == tuple(SYMMETRIES)
    with pytest.raises(CompError, match="unknown view 'flip'"):
        view_names(["flip"])


@pytest.mark.parametrize("name", ["dihedral", "satellite"])
def test_an_augmented_batch_depends_on_its_seed_alone(name: str):
    batch = np.random.default_rng(0).integers(0, 255, (8, 16, 16, 4), np.uint8)
    first, second = (training_transform(Augment(extends=name)) for _ in range(2))
    first(batch, 3)
    assert np.array_equal(first(batch, 5), second(batch, 5))
    assert not np.array_equal(first(batch, 5), first(batch, 6))
    assert not np.array_equal(*first(np.stack([batch[0]] * 2), 2))  # each image its own draw


def test_the_number_of_loaders_changes_nothing(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 255, (40, 16, 16, 3), np.uint8)
    np.save(tmp_path / "cache.npy", images)
    steps = epoch_steps(np.arange(40), 8, (1, 2, 3))
    dataset = CachedDataset([tmp_path / "cache.npy"], np.eye(40), Augment(extends="satellite"))
    alone, many = ([x for x, _ in DeviceLoader(dataset, torch.device("cpu"), n)(steps)] for n in (0, 2))
    assert all(torch.equal(a, b) for a, b in zip(alone, many, strict=True))


def test_an_epoch_shows_every_row_once_in_a_new_order():
    first, second = (epoch_steps(np.arange(40), 8, (1, epoch)) for epoch in (0, 1))
    assert sorted(np.concatenate([rows for _, rows in first])) == list(range(40))
    assert [rows.tolist() for _, rows in first] != [rows.tolist() for _, rows in second]


def test_images_are_enlarged_on_the_device_and_normalised():
    prepare = Preprocess((0.5, 0.25), (0.5, 0.5), 32)
    batch = torch.full((2, 16, 16, 2), 255, dtype=torch.uint8)
    x = prepare(batch)
    assert x.shape == (2, 2, 32, 32)
    assert torch.allclose(x[:, 0], torch.ones(1)) and torch.allclose(x[:, 1], torch.full((1,), 1.5))


@pytest.mark.parametrize("size", [16, 24])
def test_images_are_reduced_on_the_device_as_a_cache_of_that_size_has_them(size: int):
    rng = np.random.default_rng(0)
    images = np.stack([resize(rng.integers(0, 256, (8, 8, 4), np.uint8), 48) for _ in range(3)])
    reduced = Preprocess((0.0,) * 4, (1 / 255,) * 4, size)(torch.from_numpy(images)).numpy()
    cached = np.stack([resize(image, size) for image in images]).transpose(0, 3, 1, 2)
    assert np.abs(reduced - cached).max() <= 1  # of 255 levels


def test_the_largest_size_alone_serves_all_phases(here: Path):
    for stage in ("download", "folds", "train"):
        assert main([stage, *read_by(stage, ["tiny.toml", "--folds", "0", "--set", "cache=largest"])]) == 0
    assert [path.name.split("-")[1] for path in (here / "data/tiny/cache").glob("train-*.npy")] == ["32"]
    assert main(["train", "tiny.toml", "--folds", "0"]) == 1  # another model


def spec(n_channels: int = 3, backbone: str = "test_resnet") -> models.ModelSpec:
    return models.ModelSpec(backbone, ("a", "b"), n_channels, 32, (0.5,) * n_channels, (0.2,) * n_channels)


def test_a_saved_model_rebuilds_itself(tmp_path: Path):
    model = models.create(spec(4), pretrained=False).eval()
    models.save(tmp_path / "m.safetensors", model, spec(4), {"of": 1})
    again, found = models.load(tmp_path / "m.safetensors")
    x = torch.randn(2, 4, 32, 32)
    assert found == spec(4)
    assert torch.equal(model(x), again.eval()(x))


def test_a_model_file_cut_short_is_named(tmp_path: Path):
    path = tmp_path / "m.safetensors"
    models.save(path, models.create(spec(), pretrained=False), spec(), {})
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CompError, match=r"m\.safetensors"):
        models.load(path)


def test_weights_come_from_a_file_or_a_folder_and_fit_other_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = models.create(spec(), pretrained=False)
    weights = {k: v.numpy() for k, v in source.state_dict().items()}
    save_file(weights, tmp_path / "test_resnet.safetensors")
    body = {k: v for k, v in source.state_dict().items() if k.startswith("layer4")}
    monkeypatch.setenv("COMP_WEIGHTS", str(tmp_path))
    for place in (str(tmp_path / "test_resnet.safetensors"), str(tmp_path), None):
        model = models.create(spec(4), pretrained=True, weights=place)
        assert all(torch.equal(model.state_dict()[k], v) for k, v in body.items())
    with pytest.raises(CompError, match="no weights for resnet18"):
        models.create(spec(backbone="resnet18"), pretrained=True, weights=str(tmp_path))
    (tmp_path / "x.pth").write_bytes(b"pickle")
    with pytest.raises(CompError, match=r"\.safetensors files"):
        models.create(spec(), pretrained=True, weights=str(tmp_path / "x.pth"))


def test_a_backbone_that_does_not_take_the_size_is_refused():
    with pytest.raises(CompError, match="vit_tiny_patch16_224 .* images of 64 px"):
        models.check("vit_tiny_patch16_224", [64], 3, pretrained=False, weights=None)


def test_an_unknown_backbone_is_refused():
    with pytest.raises(CompError, match="timm has no model 'resnet34x'; it has"):
        models.create(spec(backbone="resnet34x"), pretrained=False)


def test_imagenet_weights_of_a_real_file(shared: Path):
    path = shared / "weights" / "tf_efficientnet_lite0.safetensors"
    model = models.create(spec(backbone="tf_efficientnet_lite0"), pretrained=True, weights=str(path))
    name = "blocks.6.0.conv_pwl.weight"
    assert np.array_equal(model.state_dict()[name].numpy(), load_file(path)[name])
    assert models.pretrained_statistics("tf_efficientnet_lite0") == ((0.5,) * 3, (0.5,) * 3)


# --- whole trainings


TRAIN = ["train", "tiny.toml", "--folds", "0", "--set", "phases.1.epochs=2"]


def prepared(folder: Path) -> None:
    assert main(["download", "tiny.toml"]) == 0
    assert main(["folds", "tiny.toml"]) == 0


def test_a_run_killed_in_the_middle_of_an_epoch_ends_with_the_same_weights(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    prepared(here)
    slow = [
        "--set",
        "competition.drawn.n_train=400",
        "--set",
        "phases=[{size = 16, epochs = 2, batch_size = 16}, {size = 32, epochs = 4, batch_size = 16}]",
        "--set",
        "swa_epochs=3",
        "--set",
        "augment='satellite'",
    ]
    for stage in ("download", "folds"):
        assert main([stage, *read_by(stage, ["tiny.toml", *slow, "--force"])]) == 0
    train = ["train", "tiny.toml", "--folds", "0", *slow, "--set", "drop_rate=0.2"]
    monkeypatch.setenv("COMP_RUNS", "whole")
    assert main(train) == 0
    monkeypatch.setenv("COMP_RUNS", "killed")
    log = here / "killed" / "tiny" / "fold0" / "log.jsonl"
    process = subprocess.Popen([sys.executable, "-m", "comp", *train], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) >= 4) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)  # into the next epoch
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not log.with_name("model.safetensors").exists()
    capsys.readouterr()
    assert main(train) == 0
    assert "resuming after epoch" in capsys.readouterr().out
    whole, killed = (
        load_file(here / name / "tiny" / "fold0" / "model.safetensors") for name in ("whole", "killed")
    )
    assert whole.keys() == killed.keys()
    assert all(np.array_equal(whole[key], killed[key]) for key in whole)
    rows = [
        [json.loads(line) for line in (here / name / "tiny" / "fold0" / "log.jsonl").open()]
        for name in ("whole", "killed")
    ]
    assert [row["valid_loss"] for row in rows[0]] == [row["valid_loss"] for row in rows[1]]
    assert [row["worst"] for row in rows[0]] == [row["worst"] for row in rows[1]] and rows[0][0]["worst"]
    assert [row["epoch"] for row in rows[1]] == [1, 2, 3, 4, 5, 6]
    assert rows[0][-1]["before_mean"]["valid_loss"] != rows[0][-1]["valid_loss"]


def test_a_loss_that_is_not_finite_stops_the_run(here: Path, fails):
    prepared(here)
    assert "the loss is not finite (epoch" in fails(
        *TRAIN, "--set", "phases.0.lr=1e30", "--set", "clip_norm=1e30"
    )
    assert not (here / "runs" / "tiny" / "fold0" / "model.safetensors").exists()


def test_head_only_epochs_leave_the_body_as_it_was(here: Path):
    prepared(here)
    recipe = ["tiny.toml", "--folds", "0", "--set", "phases.0.head_epochs=1", "--set", "ema_decay=0"]
    assert main(["train", *recipe, "--set", "phases=[{size = 32, epochs = 1, head_epochs = 1}]"]) == 0
    model, found = models.load(here / "runs" / "tiny" / "fold0" / "model.safetensors")
    torch.manual_seed(load_recipe("tiny.toml").seed * 1000)
    fresh = models.create(found, pretrained=False)
    same = {k: torch.equal(v, fresh.state_dict()[k]) for k, v in model.state_dict().items()}
    assert [k for k, equal in same.items() if not equal] == ["fc.weight", "fc.bias"]


def test_two_processes_do_not_train_the_same_fold(here: Path, fails, monkeypatch: pytest.MonkeyPatch):
    import fcntl

    monkeypatch.setattr("comp.artifacts.files.LOCK_TIMEOUT", 0.3)
    prepared(here)
    lock = here / "runs" / "tiny" / "fold0" / ".lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another process is training fold 0 of tiny" in fails(*TRAIN)


def test_a_damaged_checkpoint_is_named(here: Path, fails):
    prepared(here)
    path = here / "runs" / "tiny" / "fold0" / "last.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK cut short")
    assert "last.pt is damaged; remove it" in fails(*TRAIN)

"""Faster and smaller ways of training give the same results as the plain one; `comp bench speed`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from timm.utils import ModelEmaV3

from comp.artifacts.files import read_json
from comp.artifacts.paths import bare_step_path
from comp.artifacts.schemas import BareStep
from comp.batches.augmentation import AugmentParams, BatchAugmentation
from comp.batches.loader import Batch, CachedDataset, DeviceLoader
from comp.batches.mixup import MixupCutmix
from comp.batches.preprocessing import Preprocess
from comp.batches.sampling import epoch_steps
from comp.batches.tta import SYMMETRIES
from comp.benchmarks import speed as bench_speed
from comp.benchmarks import training_speed
from comp.benchmarks.bare_step import covered
from comp.cli.main import main
from comp.config.augment import Augment
from comp.data.labels import Labels
from comp.models import network as models
from comp.models.inference import predict_views
from comp.training.trainer import Trainer
from comp.training.training_data import FoldInputs
from tests.conftest import TINY, comp

PLAIN = ["tiny.toml", "--folds", "0", "--set", "backbone=test_convnext", "--set", "phases.0.size=32"]
EXACT = [
    *PLAIN,
    "--set",
    "precision=fp32",
    "--set",
    "augment='satellite'",
]  # layer norms: no batch statistics


def images_of(n: int, size: int = 16, channels: int = 3) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (n, size, size, channels), np.uint8))


def nothing(n: int) -> dict[str, np.ndarray]:
    return {
        "symmetry": np.zeros(n, int),
        "moved": np.zeros(n, bool),
        "moves": np.tile(np.eye(2, 3, dtype=np.float32), (n, 1, 1)),
        "contrast": np.ones((n, 1), np.float32),
        "brightness": np.zeros((n, 1), np.float32),
    }


def prepared(images: torch.Tensor, **changes: np.ndarray) -> torch.Tensor:
    """Return the preprocessed images, with values 0 … 255."""
    draws = AugmentParams(**{**nothing(len(images)), **changes})
    channels = images.shape[-1]
    prepare = Preprocess(
        (0.0,) * channels,
        (1 / 255,) * channels,
        images.shape[1],
        BatchAugmentation(Augment(extends="satellite")),
    )
    return prepare(images, draws).permute(0, 2, 3, 1)


def test_each_symmetry_is_the_view_of_its_number():
    images = images_of(8, channels=4)
    found = prepared(images, symmetry=np.arange(8))
    for k, view in enumerate(SYMMETRIES.values()):
        expected = view(images[k : k + 1].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)[0]
        assert torch.allclose(found[k], expected.float(), atol=1e-3)


def test_light_is_that_of_albumentations():
    images = images_of(2) // 2 + 60  # nothing is clipped
    contrast, brightness = np.array([1.1, 0.93], np.float32), np.array([0.05, -0.08], np.float32)
    found = prepared(images, contrast=contrast, brightness=brightness)
    for k in range(2):
        transform = A.RandomBrightnessContrast(
            contrast_limit=(contrast[k] - 1,) * 2, brightness_limit=(brightness[k],) * 2, p=1
        )
        expected = transform(image=images[k].numpy())["image"].astype(float)
        assert np.abs(found[k].numpy() - expected).max() < 1.01  # it rounds to whole numbers


def test_moves_are_those_of_albumentations():
    y, x = np.mgrid[0:32, 0:32]
    smooth = (np.stack([x + y, 2 * x, 62 - 2 * y], -1) * 3 + 20).astype(np.uint8)
    images = torch.from_numpy(np.stack([smooth] * 4))
    turn, zoom, shift = np.radians([0, 12, 0, -9]), [1.0, 1.0, 1.1, 0.95], [(4, 0), (0, 0), (0, 0), (-2, 3)]
    moves = np.zeros((4, 2, 3), np.float32)
    for k in range(4):
        rotation = np.array([[np.cos(turn[k]), -np.sin(turn[k])], [np.sin(turn[k]), np.cos(turn[k])]])
        moves[k, :, :2] = rotation / zoom[k]
        moves[k, :, 2] = -(rotation / zoom[k]) @ (np.array(shift[k]) / 16)
    found = prepared(images, moved=np.ones(4, bool), moves=moves)
    for k in range(4):
        transform = A.Affine(
            scale=zoom[k], rotate=(float(np.degrees(turn[k])),) * 2, border_mode=4, p=1,
            translate_px={"x": (shift[k][0],) * 2, "y": (shift[k][1],) * 2},
        )  # fmt: skip
        other = A.Affine(
            scale=zoom[k], rotate=(float(-np.degrees(turn[k])),) * 2, border_mode=4, p=1,
            translate_px={"x": (shift[k][0],) * 2, "y": (shift[k][1],) * 2},
        )  # fmt: skip
        inner = slice(9, 23)
        errors = [
            np.abs(found[k].numpy() - t(image=smooth)["image"].astype(float))[inner, inner].mean()
            for t in (transform, other)  # the library defines the direction
        ]
        assert min(errors) < 2.5, (k, errors)


def test_augmentation_depends_on_the_seed_alone_and_covers_its_range():
    batched = BatchAugmentation(Augment(extends="satellite"))
    first, again, other = batched.draw(4000, 1), batched.draw(4000, 1), batched.draw(4000, 2)
    assert first and again and other
    assert all(
        np.array_equal(getattr(first, k), getattr(again, k)) for k in AugmentParams.__dataclass_fields__
    )
    assert not np.array_equal(first.moves, other.moves)
    assert np.abs(np.bincount(first.symmetry, minlength=8) - 500).max() < 100
    assert 0.45 < first.moved.mean() < 0.55 and 0.45 < (first.contrast != 1).mean() < 0.55
    zoom = 1 / np.sqrt(np.linalg.det(first.moves[:, :, :2]))
    assert 0.9 <= zoom.min() < 0.91 and 1.09 < zoom.max() <= 1.1001
    assert np.abs(first.moves[:, :, 2]).max() <= 0.12
    part = first[10:20]
    assert np.array_equal(part.brightness, first.brightness[10:20])
    assert BatchAugmentation(Augment(extends="none")).draw(10, 0) is None


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_targets_are_mixed_by_the_same_share_as_the_pixels(mixup: float, cutmix: float):
    mixed = MixupCutmix(mixup, cutmix)
    x = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 40, 40)
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    shares = []
    for seed in range(60):
        found, soft = mixed(x, targets, seed)
        again, _ = mixed(x, targets, seed)
        assert torch.equal(found, again)
        mine = float(found[1].mean())  # the share of the second picture that is its own
        assert soft[1].tolist() == pytest.approx([1 - mine, mine, 1.0], abs=1e-4)
        assert float(found[0].mean()) == pytest.approx(float(soft[0, 1]), abs=1e-4)
        kinds = set(found[1].unique().tolist())
        assert not cutmix or mixup or kinds <= {0.0, 1.0}
        shares.append(mine)
    assert np.std(shares) > 0.1
    assert MixupCutmix(0, 0)(x, targets, 1) == (x, targets)


def test_a_cache_on_the_device_gives_the_batches_that_reading_gives(tmp_path: Path):
    np.save(tmp_path / "cache.npy", images_of(40).numpy())
    steps = epoch_steps(np.arange(40), 8, (1, 2, 3))
    dataset = CachedDataset([tmp_path / "cache.npy"], np.eye(40))
    read, kept = (
        list(DeviceLoader(dataset, torch.device("cpu"), 0, resident=resident)(steps))
        for resident in (False, True)
    )
    for (a, b), (c, d) in zip(read, kept, strict=True):
        assert torch.equal(a, c) and torch.equal(b, d)


def trained(name: str, *arguments: str) -> dict[str, np.ndarray]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMP_RUNS", name)
        assert main(["train", *arguments]) == 0
    return weights_of(name)


def trained_by_two_ranks(runs: dict[str, list[str]]) -> list[dict[str, np.ndarray]]:
    """Train several runs one after the other in the processes of one torchrun."""
    script = (
        "import json, os, sys\n"
        "from comp.cli.main import main\n"
        "for os.environ['COMP_RUNS'], arguments in json.loads(sys.argv[1]).items():\n"
        "    assert main(['train', *arguments]) == 0\n"
    )
    Path("runs.py").write_text(script)
    launcher = ["torch.distributed.run", "--nproc-per-node", "2", "runs.py", json.dumps(runs)]
    answer = subprocess.run([sys.executable, "-m", *launcher], capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.count("fold 0  epoch") == len(runs)  # only one rank prints
    return [weights_of(name) for name in runs]


def weights_of(name: str) -> dict[str, np.ndarray]:
    return load_file(Path(name) / "tiny" / "fold0" / "model.safetensors")


def history_of(name: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (Path(name) / "tiny" / "fold0" / "log.jsonl").open()]


@pytest.fixture
def ready(here: Path) -> Path:
    for stage in ("download", "folds"):
        assert main([stage, "tiny.toml"]) == 0
    return here


def test_micro_batches_ranks_and_checkpointing_give_the_same_weights(ready: Path):
    plain = trained("plain", *EXACT)
    parts = ["--set", "phases.0.accumulate=4", "--set", "phases.1.accumulate=3"]
    # with a learning rate of 0, only batch norms change: two ranks equal one rank with two micro-batches
    still = ["tiny.toml", "--folds", "0", "--set", "swa_epochs=1", "--set", "precision=fp32", "--set"]
    phases = "phases=[{size = 32, epochs = 1, batch_size = 16, lr = 1e-30, accumulate = %d}]"
    ranks, normed = trained_by_two_ranks({"ranks": [*EXACT, *parts], "normed": [*still, phases % 1]})
    others = {
        "parts": trained("parts", *EXACT, *parts),
        "recomputed": trained("recomputed", *EXACT, "--set", "gradient_checkpointing=true"),
        "two ranks in parts": ranks,
    }
    for name, weights in others.items():
        assert max(np.abs(weights[key] - plain[key]).max() for key in plain) < 2e-6, name
    for key in ("loss", "valid_loss", "mAP", "fbeta"):  # each rank computes a half of the held-out images
        one, two = ([row[key] for row in history_of(name)] for name in ("plain", "ranks"))
        assert two == pytest.approx(one, rel=1e-5), key
    alone = trained("alone", *still, phases % 2)
    assert alone["bn1.running_mean"].any()
    floats = [key for key in alone if alone[key].dtype == np.float32]
    assert all(np.allclose(alone[key], normed[key], rtol=1e-4, atol=1e-6) for key in floats)


def trainer_of(folder: Path, monkeypatch: pytest.MonkeyPatch, n: int = 96, **changes) -> Trainer:
    from comp.config.loading import load_recipe

    monkeypatch.chdir(folder)
    changes["competition.labels.exclusive"] = []
    recipe = load_recipe("demo", [f"{key}={value}" for key, value in changes.items()])
    size = recipe.phases[0].size
    np.save(folder / "cache.npy", images_of(n, size).numpy())
    rng = np.random.default_rng(0)
    labels = Labels(np.arange(n).astype(str), ("a", "b", "c"), (rng.random((n, 3)) < 0.4).astype(np.uint8))
    inputs = FoldInputs(recipe, 0, labels, np.arange(n) % 3, {size: (folder / "cache.npy",)}, {})
    return Trainer(inputs, torch.device("cpu"), 0)


def test_batches_prepared_in_a_row_are_those_prepared_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    phases = "[{size = 32, epochs = 1, batch_size = 12}]"
    trainer = trainer_of(tmp_path, monkeypatch, phases=phases, augment="satellite", mixup=0.4)
    phase = trainer.recipe.phases[0]
    feed = trainer.train_step(phase, trainer.state.model).feed
    steps = trainer.batches.steps(phase, 0)
    alone = list(zip(trainer.batches.training(phase, steps), feed.draw(steps)))
    assert len(alone) == 5
    for n_in_row in (1, 2, 3, 5, 9):
        monkeypatch.setattr("comp.training.step.PREPARED", n_in_row * 12 * 32 * 32 * 3 * 4)  # bytes
        read: list[Batch] = []
        batches = (read.append(batch) or batch for batch in trainer.batches.training(phase, steps))
        for i, ((images, rows), drawn) in enumerate(feed.batches(batches, steps)):
            assert len(read) == min(5, (i // n_in_row + 1) * n_in_row)
            assert images.is_floating_point() == (n_in_row > 1)
            (raw, _), (draws, seed, n) = alone[i]
            assert (drawn.seed, drawn.n_images) == (seed, n)
            for mine, wanted in zip(feed(images, rows, drawn.augment, seed), feed(raw, rows, draws, seed)):
                assert torch.equal(mine, wanted)
        assert i == 4


def test_the_averaged_weights_are_those_of_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trainer = trainer_of(tmp_path, monkeypatch, ema_decay=0.9)
    state = trainer.state
    reference = ModelEmaV3(state.model, decay=0.9, use_warmup=True)
    update = state.update

    def both() -> None:
        update()
        reference.update(state.model, state.n_steps_done)

    monkeypatch.setattr(state, "update", both)
    trainer.epoch(lambda **_: None, float("inf"))
    mine, wanted = state.averages.averaged.state_dict(), reference.module.state_dict()
    assert state.n_steps_done == 2 and all(torch.equal(mine[key], wanted[key]) for key in wanted)


def test_out_of_memory_makes_the_micro_batches_smaller(ready: Path):
    script = (
        "import resource, sys, torch; torch.set_num_threads(1); torch.randn(9, 9) @ torch.randn(9, 9)\n"
        "from comp.training import trainer\n"
        "epoch = trainer.Trainer.epoch\n"
        "def limited(self, *rest):\n"
        "    used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (used + 1000 * 2**20,) * 2)\n"
        "    return epoch(self, *rest)\n"
        "trainer.Trainer.epoch = limited\n"
        "from comp.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    (ready / "limited.py").write_text(script)
    arguments = ["train", "tiny.toml", "--folds", "0", "--set", "precision=fp32", "--set", "ema_decay=0"]
    big = ["--set", "phases=[{size = 512, epochs = 1, batch_size = 40}]"]
    answer = subprocess.run(
        [sys.executable, "limited.py", *arguments, *big], cwd=ready, capture_output=True, text=True,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "out of memory: from now on batches of 40 run as 2 micro-batches" in answer.stdout
    rows = [json.loads(line) for line in (ready / "runs/tiny/fold0/log.jsonl").open()]
    assert np.isfinite(rows[0]["loss"])


def test_memory_does_not_grow_over_epochs(ready: Path):
    train = ["--folds", "0", "--set", "phases=[{size = 32, epochs = 24, batch_size = 16}]"]
    comp("train", "tiny.toml", *train, cwd=ready)
    memory = [json.loads(line)["memory"] for line in (ready / "runs/tiny/fold0/log.jsonl").open()]
    assert memory[-1] < memory[7] * 1.02 + 4 * 2**20


def test_views_in_one_batch_are_the_mean_of_the_views():
    model = models.create(
        models.ModelSpec("test_resnet", ("a", "b"), 3, 32, (0.5,) * 3, (0.2,) * 3), pretrained=False
    ).eval()
    x = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        found = predict_views(model, x, list(SYMMETRIES.values()))
        wanted = sum(model(view(x)).sigmoid() for view in SYMMETRIES.values()) / 8
    assert torch.allclose(found, wanted, atol=1e-5)


def test_a_compiled_network_trains_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import torch._dynamo

    losses = []
    for compiled in ("false", "reduce-overhead"):  # the latter is "true" on a CPU
        (tmp_path / compiled).mkdir()
        trainer = trainer_of(tmp_path / compiled, monkeypatch, compile=compiled, precision="fp32")
        with torch._dynamo.config.patch(suppress_errors=False):
            trainer.epoch(lambda **_: None, float("inf"))
        losses.append(trainer.history[-1]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_training_without_cuda_graphs_says_so(ready: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(ready)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: None)
    short = ["--set", "phases=[{size=16,epochs=1,batch_size=16}]", "--as", "graphs"]
    assert main(["train", "tiny.toml", "--folds", "0", "--set", "compile=reduce-overhead", *short]) == 0
    line = 'fold 0  a CPU has no CUDA graphs: compile = "reduce-overhead" works as compile = true'
    assert line in capsys.readouterr().out.splitlines()
    assert "one GPU" in models.lacks_graphs("reduce-overhead", torch.device("cuda:0"), 2)
    assert not models.lacks_graphs("reduce-overhead", torch.device("cuda:0"))
    assert not models.lacks_graphs(True, torch.device("cpu"))


def test_too_many_micro_batches_are_refused(ready: Path, fails):
    assert "accumulate = 9" in fails("train", "tiny.toml", "--set", "phases.0.accumulate=9")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options that make `comp bench speed` short."""
    for module, name, value in (
        (training_speed, "N_ROUNDS", 1),
        (training_speed, "BLOCK_SECONDS", 0.1),
        (training_speed, "ROUND_SECONDS", 0.1),
        (bench_speed, "N_SYNTHETIC", 4),
        (bench_speed, "N_IMAGES", 40),
    ):
        monkeypatch.setattr(module, name, value)
    return [
        f"--set={x}" for x in ("backbone=test_resnet", "phases=[{size = 32, epochs = 1, batch_size = 8}]")
    ]


@pytest.mark.parametrize("recipe", ["planet32", "hpa", "one.toml", "groups.toml"])
def test_bench_speed_runs_for_every_competition(here: Path, short: list[str], recipe: str):
    """Exclusive groups, one label per image, four channels; classes listed or not."""
    tags = 'column = "tags" }'
    one, groups = 'column = "tags", single = true }', 'column = "tags", exclusive = [["clear", "haze"]] }'
    (here / "one.toml").write_text(TINY.replace(tags, one))
    (here / "groups.toml").write_text('loss = "groups"\n' + TINY.replace(tags, groups))
    assert main(["bench", "speed", recipe, *short]) == 0


def test_bench_speed_names_the_bottleneck(here: Path, short: list[str], capsys):
    assert main(["bench", "speed", "tiny.toml", *short]) == 0
    printed = capsys.readouterr().out
    for what in ("decoded on 1 core", "batches read from the cache", "bare training step", "whole training"):
        assert what in printed
    assert "training reaches" in printed and "prediction, 8 views" in printed
    kept = read_json(bare_step_path("tiny"), BareStep)
    assert [rate[:2] for rate in kept["rates"]] == [[32, 8]] and kept["backbone"] == "test_resnet"


def test_a_gpu_that_idles_for_nothing_waits_for_launches():
    paths = {"loader: batches read from the cache": 9000.0, "augmentation on the device": 5000.0}
    assert training_speed.name_bottleneck(0.95, 1000, paths, None) == "the network itself"
    assert training_speed.name_bottleneck(0.95, 1000, paths, 0.97) == "the network itself"
    assert training_speed.name_bottleneck(0.85, 1000, paths, 0.3) == "the CPU's launches"
    slow = paths | {"loader: batches read from the cache": 1100.0}
    assert training_speed.name_bottleneck(0.85, 1000, slow, 0.3) == "loader"


def test_kernels_that_overlap_count_once():
    assert covered([(5, 9), (0, 2), (1, 3), (6, 7)]) == 7
    assert covered([]) == 0

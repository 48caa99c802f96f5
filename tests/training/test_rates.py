"""Learning rates by step and by layer, the range test, and SWA."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.optim import param_groups_layer_decay
from torch.optim.swa_utils import AveragedModel, update_bn

from comp.cli.main import main
from comp.commands.find_lr import show
from comp.config.loading import load_recipe
from comp.errors import CompError
from comp.models import network as models
from comp.training.lr_finder import fit_curve, has_diverged, range_test
from comp.training.optimizer import set_rates
from comp.training.schedule import lr_factor
from tests.benchmarks.test_speed import trainer_of
from tests.conftest import read_by


def quiet(**_: object) -> None:
    pass


# --- by step


@pytest.mark.parametrize("schedule", ["constant", "cosine-restarts", "one-cycle"])
def test_a_warm_up_rises_to_1_over_its_share_of_the_steps(schedule: str):
    rates = [lr_factor(schedule, step, 100, warm_up=0.1) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 25)
    assert rates[5] == pytest.approx((1 / 25 + 1) / 2)  # half-way up a cosine
    assert rates[:11] == sorted(set(rates[:11]))
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    if schedule == "constant":
        assert set(rates[10:]) == {1.0}


def test_restarts_begin_where_the_warm_up_ends():
    warm = [lr_factor("cosine-restarts", step, 80, cycles=3, warm_up=0.121) for step in range(80)]
    assert warm[10:] == [lr_factor("cosine-restarts", step, 70, cycles=3) for step in range(70)]


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine-restarts", "constant"])
@pytest.mark.parametrize("n_steps", [1, 2, 3, 7])
@pytest.mark.parametrize("warm_up", [0.01, 0.5, 0.99])
def test_short_warm_ups_stay_within_their_bounds(schedule: str, n_steps: int, warm_up: float):
    assert all(0 < lr_factor(schedule, step, n_steps, warm_up=warm_up) <= 1 for step in range(n_steps))


# --- by layer


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_efficientnet"])
def test_rates_fall_from_layer_to_layer_as_timm_cuts_them(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    phases = "[{size = 32, epochs = 2, lr = 1e-2, body_lr = 1e-3, head_epochs = 1}]"
    trainer = trainer_of(tmp_path, monkeypatch, backbone=backbone, layer_decay=0.5, phases=phases)
    phase = trainer.recipe.phases[0]
    set_rates(trainer.state.optimizer, phase, 0.1, False)
    groups = list(zip(trainer.state.groups, trainer.state.optimizer.param_groups, strict=True))
    found = {id(p): settings["lr"] for group, settings in groups for p in group.parameters}
    assert sum(len(group.parameters) for group, _ in groups) == len(found)
    assert found.keys() == {id(p) for p in trainer.state.parameters}
    scales = {
        id(p): group["lr_scale"]
        for group in param_groups_layer_decay(trainer.state.model, layer_decay=0.5)
        for p in group["params"]
    }
    in_head = {id(p) for p in trainer.state.model.get_classifier().parameters()}  # type: ignore[operator]
    for p in trainer.state.parameters:
        assert found[id(p)] == pytest.approx(1e-3 if id(p) in in_head else 1e-4 * scales[id(p)])
    rates = sorted({found[id(p)] for p in trainer.state.parameters if id(p) not in in_head})
    assert len(rates) >= 5 and np.allclose(np.diff(np.log2(rates)), 1)
    set_rates(trainer.state.optimizer, phase, 1.0, True)
    assert {group["lr"] for group in trainer.state.optimizer.param_groups if not group["head"]} == {0.0}


def test_without_layer_decay_all_layers_of_the_body_are_in_two_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trainer = trainer_of(tmp_path, monkeypatch)
    groups = [(g["head"], g["weight_decay"], g["scale"]) for g in trainer.state.optimizer.param_groups]
    assert groups == [(False, 0.0, 1.0), (False, 0.02, 1.0), (True, 0.0, 1.0), (True, 0.02, 1.0)]


def test_a_network_whose_layers_timm_does_not_know_is_refused():
    with pytest.raises(CompError, match="the layers of pit_ti_224; set layer_decay = 1.0"):
        models.check("pit_ti_224", [224], 3, pretrained=False, weights=None, layers=True)


# --- SWA


def test_the_mean_of_the_last_weights_is_that_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    phases = "[{size = 32, epochs = 3, lr = 1e-2, batch_size = 16, schedule = 'constant'}]"
    trainer = trainer_of(
        tmp_path, monkeypatch, phases=phases, swa_epochs=2, ema_decay=0.5, augment="satellite", mixup=0.4,
        precision="fp32",
    )  # fmt: skip
    reference = AveragedModel(trainer.state.averages.averaged)
    add = trainer.state.averages.add_epoch

    def both(epoch: int, n_epochs: int) -> None:
        add(epoch, n_epochs)
        if epoch > 1:
            reference.update_parameters(trainer.state.averages.averaged)

    monkeypatch.setattr(trainer.state.averages, "add_epoch", both)
    lines: list[str] = []

    def report(line: str = "", **_: object) -> None:
        lines.extend([line] if line else [])

    while trainer.n_epochs_done < 3:
        lines.append(trainer.epoch(report, math.inf))
    phase = trainer.recipe.phases[0]
    steps = trainer.batches.steps(phase, 3)
    assert {row for _, rows in steps for row in rows} <= set(trainer.inputs.train_rows.tolist())
    assert len(steps) == len(trainer.inputs.train_rows) // 16
    train_step = trainer.train_step(phase, reference)
    shown = []
    for (images, targets), step in zip(trainer.batches.training(phase, steps), steps):
        draws, seed, _ = next(train_step.feed.draw([step]))
        shown.append(train_step.feed(images, targets, draws, seed)[0])
    update_bn(shown, reference)
    mine, wanted = trainer.state.averages.averaged.state_dict(), reference.module.state_dict()
    for key in wanted:
        if wanted[key].is_floating_point():
            assert torch.allclose(mine[key], wanted[key], rtol=1e-4, atol=1e-6), key
    assert [line.split()[0] for line in lines] == ["1/3", "2/3", "3/3", "mean"]
    assert [row["epoch"] for row in trainer.history] == [1, 2, 3]
    scores = trainer.validate(phase, train_step, math.inf)
    row = trainer.history[-1]
    assert {key: row[key] for key in scores} == scores  # of the saved network
    assert scores["valid_loss"] != row["before_mean"]["valid_loss"]


def test_the_mean_stays_within_the_last_phase(here: Path, fails):
    line = fails("train", "tiny.toml", "--set", "swa_epochs=2")
    assert "swa_epochs = 2 is more than the last phase's epochs = 1" in line


# --- the range test


def test_the_steepest_fall_of_a_known_curve_is_found():
    rates = np.geomspace(1e-6, 1, 150)
    x = np.log10(rates)
    curve = (
        0.7 - 0.4 / (1 + np.exp(-4 * (x + 3))) + 0.3 * np.maximum(0, x + 1.5) ** 2
    )  # falls fastest at 1e-3
    noise = np.random.default_rng(0).normal(0, 0.02, len(x))
    for losses in (curve, curve + noise):
        fitted = fit_curve(rates, losses)
        assert abs(x[fitted.steepest] + 3) < 0.15
        assert abs(x[fitted.lowest] - x[curve.argmin()]) < 0.4
        assert np.abs(fitted.smooth - curve).max() < 0.05
    line = fit_curve(rates, 1 - x)  # a straight line stays one, to its ends
    assert np.allclose(line.smooth, 1 - x) and line.lowest == len(x) - 1
    with pytest.raises(CompError, match="the loss does not fall at any learning rate from"):
        fit_curve(rates, x)


def test_a_loss_is_lost_at_4_times_its_lowest():
    assert not has_diverged([1.0] * 20)
    assert not has_diverged([1.0] * 20 + [3.0] * 50)
    assert not has_diverged([1.0] * 20 + [9.0])  # one batch
    assert has_diverged([1.0] * 20 + [9.0] * 20)
    assert has_diverged([1.0, math.nan]) and has_diverged([math.inf]) and not has_diverged([])


def test_the_range_test_takes_the_batches_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    phases = "[{size = 32, epochs = 2, lr = 1e-30, batch_size = 16, accumulate = 2}]"
    settings = {"phases": phases, "augment": "satellite", "mixup": 0.4, "label_smoothing": 0.1}
    trainer = trainer_of(tmp_path, monkeypatch, **settings)
    losses = list(range_test(trainer, [1e-30] * 6, quiet))
    again = trainer_of(tmp_path, monkeypatch, **settings)
    for _ in range(2):
        again.epoch(quiet, math.inf)
    means = [row["loss"] for row in again.history]  # of 4 steps each
    assert np.mean(losses[:4]) == pytest.approx(means[0], rel=1e-6)
    assert len(losses) == 6 and np.mean(losses[4:]) != pytest.approx(means[0], rel=1e-3)


def test_find_lr_suggests_a_rate_at_which_the_loss_falls_and_leaves_the_run_alone(
    here: Path, fails, capsys: pytest.CaptureFixture[str]
):
    body = ["--set", "phases.1.body_lr=1.5e-3"]
    for stage in ("download", "folds", "train"):
        assert main([stage, *read_by(stage, ["tiny.toml", "--folds", "0", *body])]) == 0
    folder = here / "runs" / "tiny"

    def of_the_run() -> dict[str, str]:
        files = [path for path in folder.rglob("*") if path.is_file() and path.name[:8] != "find-lr-"]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = of_the_run()
    command = ["find-lr", "tiny.toml", "--phase", "1", "--steps", "60", *body]
    capsys.readouterr()
    assert main(command) == 0
    assert before and of_the_run() == before
    content = json.loads((folder / "find-lr-1.json").read_text())
    rates, smooth = content["rates"], content["smooth"]
    k = rates.index(content["suggested"])
    assert 1e-6 < content["suggested"] < content["lowest"] <= 1
    assert smooth[k - 1] > smooth[k] > smooth[k + 1]
    assert np.argmin(smooth) == rates.index(content["lowest"])
    assert (folder / "find-lr-1.png").read_bytes().startswith(b"\x89PNG")
    lr = content["suggested"]
    printed = capsys.readouterr().out
    assert f"--set phases.1.lr={lr:.1e} --set phases.1.body_lr={float(f'{lr:.1e}') / 2:.1e}" in printed
    assert main([*command, "--set", "phases.0.epochs=4"]) == 0  # the range test does not read it
    assert "tiny done already" in capsys.readouterr().out
    other = fails("find-lr", "tiny.toml", "--phase", "1", *body)
    assert (
        "find-lr-1.json was made with steps = 60, not 150; --as NAME keeps both, --force replaces it" in other
    )
    show(load_recipe("tiny.toml"), content | {"suggested": rates[0]}, Path("curve.png"))
    printed = capsys.readouterr().out
    assert "in the recipe  3.0e-03" in printed and "that is an end of --rates" in printed
    assert "lowest / 10" in printed and "nan" not in printed
    assert "the recipe has phases 0 to 1" in fails("find-lr", "tiny.toml", "--phase", "2")
    assert "--rates 1,0.1: expected LOW,HIGH" in fails("find-lr", "tiny.toml", "--rates", "1,0.1")

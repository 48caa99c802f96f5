"""Training on a GPU ends where training on a CPU ends, and no step waits for the GPU."""

import collections
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from comp.batches.augmentation import BatchAugmentation
from comp.batches.preprocessing import Preprocess
from comp.compute.devices import Device
from comp.compute.distributed import ProcessGroup
from comp.config.augment import Augment
from comp.errors import Diverged
from comp.training import trainer as training
from comp.training.step import LossMonitor
from comp.training.trainer import Trainer
from tests.gpu.conftest import CPU, N_IMAGES, Seen, difference, run_epochs, watch_steps
from tests.pretend_cuda import H100, T4, PretendCuda

New = Callable[..., Trainer]
EVERYTHING = {
    "augment": "satellite",
    "mixup": 0.2,
    "cutmix": 1.0,
    "swa_epochs": 1,
    "class_weights": "inverse",
}
LOSSES = ("bce", "focal", "asymmetric", "bce+fbeta", "focal+lovasz", "groups")


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
def test_a_run_in_fp32_ends_with_the_weights_of_a_cpu(gpu: Any, new_trainer: New, resident: bool):
    there = new_trainer(gpu.device, resident, precision="fp32", **EVERYTHING)
    for part in (there.state.model, there.state.averages.averaged):
        assert all(tensor.device == gpu.device for tensor in part.state_dict().values())
    run_epochs(there, 2)
    here = new_trainer(CPU, precision="fp32", **EVERYTHING)
    run_epochs(here, 2)
    assert (
        difference(there.state.averages.averaged.state_dict(), here.state.averages.averaged.state_dict())
        < 2e-3
    )
    for key in ("loss", "valid_loss", "mAP"):
        assert there.history[-1][key] == pytest.approx(here.history[-1][key], rel=2e-3)


@pytest.mark.parametrize(
    ("capability", "dtype"), [(T4, torch.float16), (H100, torch.bfloat16)], ids=["T4", "H100"]
)
def test_half_precision_is_chosen_by_the_gpu_and_ends_near_fp32(
    gpu: Any, new_trainer: New, capability, dtype
):
    gpu.capability = capability
    there, here = new_trainer(gpu.device, True), new_trainer(CPU, precision="fp32")
    seen: set[Any] = set()

    def look(layer: Any, inputs: Any, output: torch.Tensor) -> None:
        seen.add((output.dtype, inputs[0].is_contiguous(memory_format=torch.channels_last)))

    there.state.model.conv1[0].register_forward_hook(look)
    run_epochs(there)
    run_epochs(here)
    assert seen == {(dtype, True)}
    assert there.state.scaler.is_enabled() == (dtype == torch.float16)
    assert {p.dtype for p in there.state.parameters} == {torch.float32}
    assert there.history[-1]["loss"] == pytest.approx(here.history[-1]["loss"], rel=0.02)
    assert difference(there.state.model.state_dict(), here.state.model.state_dict()) < 0.02


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_images_weights_and_gradients_stay_channels_last(
    gpu: Any, new_trainer: New, seen_by_convolutions: list[Seen], precision: str
):
    trainer = new_trainer(gpu.device, False, precision=precision, **EVERYTHING)
    kernels = [p for p in trainer.state.parameters if p.ndim == 4]
    forms: list[bool] = []

    def look(*_: Any) -> None:
        parts = [part for p in kernels for part in (p, p.grad) if part is not None]
        forms.extend(part.is_contiguous(memory_format=torch.channels_last) for part in parts)

    trainer.state.optimizer.register_step_pre_hook(look)
    run_epochs(trainer, 2)
    assert len(forms) == 4 * 2 * len(kernels) > 50 and all(forms)  # in 4 steps
    assert len(seen_by_convolutions) > 100 and all(seen.channels_last for seen in seen_by_convolutions)


def test_a_phase_trains_with_one_size_of_batches_so_that_cudnn_times_its_algorithms_once(
    gpu: Any, new_trainer: New, seen_by_convolutions: list[Seen]
):
    trainer = new_trainer(gpu.device, False, precision="fp32", ema_decay=0)
    Device("cuda:0", 2).activate()
    run_epochs(trainer, 2)
    assert torch.backends.cudnn.benchmark
    shapes = {seen.shape for seen in seen_by_convolutions if seen.training and seen.shape[1] == 3}
    assert shapes == {(16, 3, 32, 32), (16, 3, 40, 40)}


def test_a_batch_is_prepared_in_few_operations(gpu: Any):
    augment = BatchAugmentation(Augment(extends="satellite"))
    prepare = Preprocess((0.5,) * 3, (0.2,) * 3, 32, augment).to(gpu.device)
    images = torch.randint(0, 256, (64, 32, 32, 3), dtype=torch.uint8).to(gpu.device)
    draws, computed = augment.draw(64, 1), list[str]()
    gpu.before = lambda operator, _: computed.append(str(operator))
    prepare(images, draws)
    gpu.before = None
    views = ("view", "slice", "select", "permute", "alias", "unsqueeze", "pin", "expand", "lift", "detach")
    computed = [name for name in computed if not any(word in name for word in views)]
    assert computed.count("aten.grid_sampler_2d.default") == 1 and len(computed) < 30, computed


def test_fp32_is_tf32_where_the_gpu_has_it(gpu: Any):
    Device("cuda:0", 2).activate()
    assert torch.backends.cuda.matmul.allow_tf32
    assert gpu.real or torch.backends.cudnn.allow_tf32  # the fixture turns a real GPU's off afterwards


def test_a_step_of_the_optimizer_is_one_fused_operation_for_each_group(gpu: Any, new_trainer: New):
    trainer, operators = new_trainer(gpu.device, True, precision="fp16"), collections.Counter[str]()
    run_epochs(trainer)
    gpu.before = lambda operator, _: operators.update([str(operator)])
    trainer.state.update()
    gpu.before = None
    groups = {name: n for name, n in operators.items() if "adam" in name}
    assert groups == {"aten._fused_adamw_.default": len(trainer.state.optimizer.param_groups)}
    assert not any("addcdiv" in name or "sqrt" in name for name in operators)


def test_the_optimizer_sees_clipped_gradients_without_the_scale(gpu: Any, new_trainer: New):
    norms = {}
    for device, precision in ((gpu.device, "fp16"), (CPU, "fp32")):
        trainer, seen = new_trainer(device, True, precision=precision, clip_norm=0.05), []

        def look(optimizer: Any, *_: Any, seen: list[float] = seen) -> None:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
            scale = getattr(optimizer, "grad_scale", None)  # by which a fused step divides, unless it is done
            norm = float(torch.nn.utils.get_total_norm(gradients))
            seen.append(norm if scale is None else norm / float(scale))

        trainer.state.optimizer.register_step_pre_hook(look)
        run_epochs(trainer)
        norms[precision] = seen
    assert norms["fp32"] == pytest.approx([0.05] * 2, rel=1e-3)
    assert norms["fp16"] == pytest.approx([0.05] * 2, rel=1e-3)


def test_a_step_with_infinite_gradients_is_skipped(gpu: Any, new_trainer: New):
    trainer = new_trainer(gpu.device, True, precision="fp16")
    run_epochs(trainer)
    state, scale = trainer.state, trainer.state.scaler.get_scale()
    before = {name: p.detach().clone() for name, p in state.model.named_parameters()}
    for p in state.parameters:
        p.grad = torch.full_like(p, math.inf)
    state.update()
    assert difference(before, dict(state.model.named_parameters())) == 0
    assert state.scaler.get_scale() == scale / 2
    assert not any(p.grad.any() for p in state.parameters if p.grad is not None)


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
def test_no_step_waits_for_the_gpu(
    gpu: Any, new_trainer: New, monkeypatch: pytest.MonkeyPatch, resident: bool
):
    monkeypatch.setattr(training, "STEPS_PER_LOSS_CHECK", 1)
    four_steps = "[{size=32,epochs=1,batch_size=8,lr=1e-3}]"  # batches are copied one step ahead
    watch_steps(gpu, new_trainer(gpu.device, resident, **{**EVERYTHING, "phases": four_steps}))
    assert not gpu.waits, gpu.waits


@pytest.mark.parametrize("loss", LOSSES)
def test_no_loss_waits_for_the_gpu(gpu: Any, new_trainer: New, loss: str):
    groups = {"competition.labels.exclusive": '[["a","b"]]', "competition.labels.classes": '["a","b","c"]'}
    short = "[{size=32,epochs=1,batch_size=16,lr=1e-3}]"
    settings = {"phases": short, "loss": loss, "class_weights": "inverse", "label_smoothing": 0.1, **groups}
    trainer = new_trainer(gpu.device, True, precision="fp32", **settings)
    watch_steps(gpu, trainer)
    assert not gpu.waits, gpu.waits
    here = new_trainer(CPU, precision="fp32", **settings)
    run_epochs(here)
    assert trainer.history[-1]["loss"] == pytest.approx(here.history[-1]["loss"], rel=1e-3)


def test_the_loss_is_looked_at_without_waiting(gpu: Any):
    monitor = LossMonitor(gpu.device)
    gpu.watching = True
    seen = []
    for value in (1.0, 2.0, 4.0):
        monitor.add(torch.full((), value, device=gpu.device))
        seen.append(monitor.look())
        if gpu.real:  # a second is enough for the copy
            torch.cuda._sleep(1_000_000)
    gpu.watching = False
    assert seen[0] == 0 and set(seen) <= {0.0, 1.0, 3.0}  # sums of earlier looks, or none yet
    assert not gpu.waits


def test_a_loss_that_is_not_finite_stops_the_epoch(gpu: Any, new_trainer: New):
    trainer = new_trainer(gpu.device, True, precision="bf16", clip_norm=1e30)
    for p in trainer.state.parameters:
        p.data.fill_(math.nan)
    with pytest.raises(Diverged, match="the loss is not finite"):
        run_epochs(trainer)


def test_a_run_goes_on_from_its_checkpoint(gpu: Any, new_trainer: New):
    phases = "[{size=32,epochs=2,batch_size=16,lr=1e-3}]"
    settings = {"precision": "fp16", "swa_epochs": 2, "augment": "satellite", "phases": phases}
    whole = new_trainer(gpu.device, True, **settings)
    run_epochs(whole)
    whole.state.scaler.update(512.0)
    whole.save()
    again = new_trainer(gpu.device, True, **settings)
    assert again.resume()
    assert again.state.scaler.get_scale() == 512
    assert all(tensor.device == gpu.device for tensor in again.state.averages.swa.values())
    run_epochs(whole)
    run_epochs(again)
    close = 1e-3 if gpu.real else 0  # a real GPU adds gradients up in any order
    assert difference(again.state.model.state_dict(), whole.state.model.state_dict()) <= close
    assert (
        difference(again.state.averages.averaged.state_dict(), whole.state.averages.averaged.state_dict())
        <= close
    )


def test_epochs_of_the_head_alone_leave_the_body_as_it_was(gpu: Any, new_trainer: New):
    trainer = new_trainer(
        gpu.device,
        False,
        phases="[{size=32,epochs=2,batch_size=16,lr=1e-3,head_epochs=1}]",
        normalize="image",
    )
    state = trainer.state
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    for expected in ({"fc.weight", "fc.bias"}, set(before)):
        run_epochs(trainer)
        changed = {
            name for name, tensor in state.model.state_dict().items() if not torch.equal(tensor, before[name])
        }
        assert changed == expected


def test_a_rank_takes_its_own_gpu_and_few_images_synchronise_batch_norms(
    pretended: PretendCuda, monkeypatch: pytest.MonkeyPatch
):
    pretended.n_gpus = 2
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    ranks = ProcessGroup.from_torchrun()
    assert ranks.device().name == "cuda:1"
    for n_images, synchronised in ((15, True), (16, False)):
        norm = ranks.prepare(torch.nn.Sequential(torch.nn.BatchNorm2d(3)), pretended.device, n_images)[0]
        assert isinstance(norm, torch.nn.SyncBatchNorm) == synchronised


SINGLE = {"competition.labels.single": "true", "competition.labels.classes": '["a","b","c"]'}
OTHER_ANSWERS = {
    "emd": {**SINGLE, "competition.metric": "{name='quadratic_kappa'}"},
    "groups+emd": {**SINGLE, "competition.metric": "{name='log_loss'}", "balanced": "true"},
    "arcface": {**SINGLE, "competition.metric": "{name='map_at_k'}"},
    "mse": {"competition.metric": "{name='rmse'}", "mixup": 0.2},
    "huber": {"competition.metric": "{name='mae'}", "y_range": "[-9,300]", "cutmix": 1.0},
    "bce+fbeta": {"competition.metric": "{name='roc_auc'}", "class_weights": "inverse"},
}


@pytest.mark.parametrize("loss", OTHER_ANSWERS)
def test_no_step_with_unknown_targets_weights_and_features_waits_for_the_gpu(
    gpu: Any, new_trainer: New, loss: str
):
    settings = {"phases": "[{size=32,epochs=1,batch_size=16,lr=1e-3}]", "precision": "fp32", "loss": loss}
    rng = np.random.default_rng(1)
    targets = rng.normal(50, 20, (N_IMAGES, 3)).astype(np.float32)
    if loss not in ("mse", "huber"):
        single = "competition.labels.single" in OTHER_ANSWERS[loss]
        targets = (
            np.eye(3, dtype=np.float32)[rng.integers(0, 3, N_IMAGES)] if single else np.rint(targets % 1)
        )
    targets[::5] = np.nan
    weights = rng.random(N_IMAGES).astype(np.float32)
    features = rng.normal(size=(N_IMAGES, 2)).astype(np.float32)
    features[::7] = np.nan

    def trainer_on(device: torch.device) -> Trainer:
        trainer = new_trainer(device, device.type == "cuda", **settings, **OTHER_ANSWERS[loss])
        inputs = trainer.inputs
        labels = replace(
            inputs.labels, targets=targets, weights=weights, features=features.astype(np.float32)
        )
        trainer = Trainer(replace(inputs, labels=labels), device, 0)
        trainer.batches.resident = device.type == "cuda"
        return trainer

    there, here = trainer_on(gpu.device), trainer_on(CPU)
    watch_steps(gpu, there)
    assert not gpu.waits, gpu.waits
    run_epochs(here)
    for key in ("loss", "valid_loss"):
        assert there.history[-1][key] == pytest.approx(here.history[-1][key], rel=5e-3)

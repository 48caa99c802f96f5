"""train: one network a fold, through the recipe's phases.

Reads images, labels and folds; writes runs/<recipe>/fold<k>/: log.jsonl and last.pt after each epoch,
model.safetensors last.
"""

import io
import json
import math
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from timm.utils import ModelEmaV3
from torch import nn

from comp import model as models
from comp.artifacts import (
    cache_dir,
    checkpoint_path,
    is_done,
    log_path,
    model_path,
    plain,
    replacing,
    started_path,
    training_files,
    write_json,
    write_text,
)
from comp.batches import CacheBatches, epoch_steps, in_order, load_batches
from comp.budget import check_time, deadline_in
from comp.cluster import run_on_ray
from comp.config import Phase, Recipe
from comp.console import clock, say
from comp.errors import CompError
from comp.images import cached
from comp.labels import Labels
from comp.losses import bce
from comp.manifest import read_training
from comp.metrics import fbeta
from comp.parallel import Device, Report, devices, run_jobs
from comp.schedule import rate
from comp.stamps import train_stamp
from comp.thresholds import global_threshold
from comp.weights import weights_file


def run(recipe: Recipe, *, folds: list[int], force: bool, budget: float | None, on: str) -> None:
    deadline = deadline_in(budget)
    competition = recipe.competition
    data, labels, fold_of = read_training(recipe)
    stamps = {fold: train_stamp(recipe, labels, fold_of, data.stamp, fold) for fold in folds}
    todo = [fold for fold in folds if not is_done(model_path(recipe.name, fold), stamps[fold], force=force)]
    for fold in todo:  # what is half trained isn't replaced silently either
        is_done(started_path(recipe.name, fold), stamps[fold], force=force)
    if finished := sorted(set(folds) - set(todo)):
        say(f"train: {recipe.name} fold {', '.join(map(str, finished))} done already")
    if not todo:
        return
    if recipe.pretrained:
        say(f"train: looking for the weights of {recipe.backbone}")
    channels, sizes = competition.images.channels, sorted({phase.size for phase in recipe.phases})
    n_channels = competition.images.n_channels
    models.check(recipe.backbone, sizes, n_channels, pretrained=recipe.pretrained, weights=recipe.weights)
    train_images = data.images("train", labels.ids, channels)
    test_images = data.images("test", data.sample_ids(competition), channels)
    needed = {"train": (train_images, sizes), "test": (test_images, [recipe.phases[-1].size])}
    caches = cached(needed, cache_dir(competition.name), data.stamp, deadline)["train"]
    say(
        f"train: {recipe.name}, {recipe.backbone}, folds {', '.join(map(str, todo))}, "
        f"{len(labels.ids):,} images"
    )
    jobs = {f"fold {fold}": (recipe, fold, labels, fold_of, caches, stamps[fold], force) for fold in todo}
    if on == "ray":
        files = {f"fold {fold}": training_files(recipe.name, fold) for fold in todo}
        run_on_ray(
            train_fold, jobs, files, n_jobs=len(folds), deadline=deadline, environment=_weights(recipe)
        )
    else:
        run_jobs(train_fold, jobs, devices(len(folds)), deadline)


def _weights(recipe: Recipe) -> dict[str, Path]:
    """The weights for other machines, which may have neither these files nor internet."""
    if not recipe.pretrained:
        return {}
    path = weights_file(recipe.backbone, recipe.weights)
    if path is None:
        path = cache_dir(recipe.competition.name) / f"{recipe.backbone}.safetensors"
        if not path.exists():
            with replacing(path) as temporary:
                temporary.write_bytes(models.pretrained_weights(recipe.backbone))
    return {"COMP_WEIGHTS_COPY": path}


def train_fold(
    recipe: Recipe,
    fold: int,
    labels: Labels,
    fold_of: np.ndarray,
    caches: dict[int, Path],
    stamp: dict[str, Any],
    force: bool,
    *,
    device: Device,
    report: Report,
    deadline: float,
) -> None:
    """Train one fold to its model file, from its last checkpoint if there is one with the same stamp. Raises
    TimeIsUp where the next epoch would not end before the deadline."""
    with training_files(recipe.name, fold).locked():
        if is_done(model_path(recipe.name, fold), stamp, force=force):
            report(line="was finished by another process")
            return
        place = device.activate()
        trainer = Trainer(recipe, fold, labels, fold_of, caches, stamp, place, device.n_loaders)
        model_path(recipe.name, fold).unlink(missing_ok=True)
        write_json(
            started_path(recipe.name, fold), {"recipe": recipe.model_dump(mode="json"), "stamp": stamp}
        )
        if trainer.resume():
            report(line=f"goes on after epoch {trainer.n_epochs_done} of {trainer.n_epochs}")
        else:
            report(line=HEADER)
        while trainer.n_epochs_done < trainer.n_epochs:
            check_time(deadline, trainer.progress(), needed=trainer.expected_seconds())
            report(line=trainer.epoch(report, deadline))
            trainer.save()
            report(saved=True)
        trainer.write_log()
        models.save(model_path(recipe.name, fold), trainer.averaged, trainer.spec, stamp)
        checkpoint_path(recipe.name, fold).unlink(missing_ok=True)


HEADER = "epoch   px      lr   loss  valid    mAP    F-beta  images/s   time"


class Trainer:
    """The state of one fold's training: what `last.pt` holds, and how it moves by an epoch."""

    def __init__(
        self,
        recipe: Recipe,
        fold: int,
        labels: Labels,
        fold_of: np.ndarray,
        caches: dict[int, Path],
        stamp: dict[str, Any],
        device: torch.device,
        n_loaders: int,
    ):
        self.recipe, self.fold, self.stamp = recipe, fold, plain(stamp)
        self.device, self.n_loaders = device, n_loaders
        self.targets, self.caches = labels.targets, caches
        self.train_rows, self.valid_rows = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        self.n_epochs = sum(phase.epochs for phase in recipe.phases)
        self.history: list[dict[str, Any]] = []
        n_channels = recipe.competition.images.n_channels
        mean, std = models.pretrained_statistics(recipe.backbone) if n_channels == 3 else self._statistics()
        size = recipe.phases[-1].size
        self.spec = models.ModelSpec(
            recipe.backbone, labels.classes, n_channels, size, mean, std, recipe.drop_rate
        )
        torch.manual_seed(recipe.seed * 1000 + fold)
        self.model: nn.Module = models.create(self.spec, pretrained=recipe.pretrained, weights=recipe.weights)
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        dtypes = [
            models.precision_of(recipe.precision, device, self.model, phase.size) for phase in recipe.phases
        ]
        self.scaler = torch.amp.GradScaler(device.type, enabled=torch.float16 in dtypes)
        self.optimizer = torch.optim.AdamW(self._groups(), lr=1e-3, fused=True)
        self.ema = (
            ModelEmaV3(self.model, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
        )
        self.n_steps_done = 0

    @property
    def averaged(self) -> nn.Module:
        return self.ema.module if self.ema else self.model

    @property
    def n_epochs_done(self) -> int:
        return len(self.history)

    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation a channel of this fold's training images (of 2,000 at most), scaled to 0 … 1."""
        images = np.load(self.caches[min(self.caches)], mmap_mode="r", allow_pickle=False)
        rows = self.train_rows[:: max(1, len(self.train_rows) // 2000)]
        values = images[rows].reshape(-1, images.shape[-1]) / 255.0
        return tuple(values.mean(0).tolist()), tuple(np.maximum(values.std(0), 1e-3).tolist())

    def _groups(self) -> list[dict[str, Any]]:
        """Parameters by body and head, with and without weight decay (none on biases and norms)."""
        heads: Any = self.model.get_classifier()  # type: ignore[operator]
        heads = heads if isinstance(heads, list | tuple) else [heads]
        in_head = {id(p) for head in heads for p in head.parameters()}
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for parameter in self.model.parameters():
            groups.setdefault((id(parameter) in in_head, parameter.ndim > 1), []).append(parameter)
        return [
            {"params": parameters, "head": head, "weight_decay": self.recipe.weight_decay if decay else 0.0}
            for (head, decay), parameters in sorted(groups.items(), key=lambda item: item[0])
        ]

    def _phase(self) -> tuple[int, Phase, int]:
        """(number, phase, epoch within it) of the next epoch."""
        epoch = self.n_epochs_done
        for number, phase in enumerate(self.recipe.phases):
            if epoch < phase.epochs:
                return number, phase, epoch
            epoch -= phase.epochs
        raise IndexError("all epochs are done")

    def progress(self) -> str:
        return f"{self.n_epochs_done} of {self.n_epochs} epochs"

    def expected_seconds(self) -> float:
        """The next epoch's time: that of the one before, scaled by pixels; 0 where there is none."""
        if not self.history:
            return 0.0
        last = self.history[-1]
        return last["seconds"] * (self._phase()[1].size / last["size"]) ** 2

    def epoch(self, report: Report, deadline: float) -> str:
        """Train and validate for one epoch; give its line for the log. Raises TimeIsUp at the deadline: the
        epoch is then to be done again from its start."""
        started = time.monotonic()
        number, phase, epoch = self._phase()
        steps = epoch_steps(
            self.train_rows, phase.batch_size, (self.recipe.seed, self.fold, self.n_epochs_done)
        )
        torch.manual_seed(hash((self.recipe.seed, self.fold, self.n_epochs_done)) % 2**31)  # dropout
        dataset = CacheBatches(self.caches[phase.size], self.targets, self.recipe.augment)
        prepare = models.Input(self.spec.mean, self.spec.std, phase.size).to(self.device)
        dtype = models.precision_of(self.recipe.precision, self.device, self.model, phase.size)
        head_only = epoch < phase.head_epochs
        self._freeze(head_only)
        total_loss = torch.zeros((), device=self.device)
        for i, (images, targets) in enumerate(load_batches(dataset, steps, self.device, self.n_loaders)):
            check_time(deadline, self.progress())
            lr = self._set_rates(phase, epoch * len(steps) + i, phase.epochs * len(steps), head_only)
            with models.autocast(self.device, dtype):
                logits = self.model(prepare(images))
            loss = bce(logits, targets)
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            self.n_steps_done += 1
            if self.ema:
                self.ema.update(self.model, self.n_steps_done)
            total_loss += loss.detach()
            if i % 50 == 49 or i + 1 == len(steps):
                self._check(
                    total_loss, f"epoch {self.n_epochs_done + 1}, step {i + 1} of {len(steps)}, lr {lr:.1e}"
                )
                report(done=self.n_epochs_done * len(steps) + i + 1, total=self.n_epochs * len(steps))
        seconds = time.monotonic() - started
        loss_mean = float(total_loss) / len(steps)
        row = {
            "epoch": self.n_epochs_done + 1,
            "phase": number,
            "size": phase.size,
            "lr": lr,
            "loss": loss_mean,
            **self._validate(phase, prepare, dtype, deadline),
            "images_per_second": sum(len(rows) for _, rows in steps) / seconds,
            "seconds": time.monotonic() - started,
        }
        self.history.append(row)
        return (
            f"{row['epoch']:>2}/{self.n_epochs:<2} {row['size']:>5} {lr:>7.1e} {loss_mean:>6.4f} "
            f"{row['valid_loss']:>6.4f} {row['mAP']:>6.4f}  {row['fbeta']:>8.4f} "
            f"{row['images_per_second']:>9,.0f}  {clock(row['seconds']):>5}"
        )

    def _freeze(self, head_only: bool) -> None:
        """Train all of it, or the head alone: then the body's statistics stand still too."""
        self.model.train(not head_only)
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.requires_grad_(group["head"] or not head_only)

    def _set_rates(self, phase: Phase, step: int, n_steps: int, head_only: bool) -> float:
        share = rate(phase.schedule, step, n_steps, phase.cycles)
        for group in self.optimizer.param_groups:
            body = 0.0 if head_only else phase.body_lr or phase.lr
            group["lr"] = share * (phase.lr if group["head"] else body)
        return share * phase.lr

    def _check(self, total_loss: torch.Tensor, where: str) -> None:
        if not math.isfinite(float(total_loss)):
            raise CompError(
                f"the loss is not finite ({where}); "
                'lower lr, or set precision = "fp32". Epochs before it are kept'
            )

    @torch.inference_mode()
    def _validate(
        self, phase: Phase, prepare: nn.Module, dtype: torch.dtype, deadline: float
    ) -> dict[str, float]:
        """Held-out scores of the averaged weights, without test-time views. F-beta is at one threshold fitted
        on these rows: to watch, never to choose by."""
        model = self.averaged.eval()
        dataset = CacheBatches(self.caches[phase.size], self.targets, "none")
        steps = in_order(self.valid_rows, self.recipe.predict_batch_size)
        logits = []
        for images, _ in load_batches(dataset, steps, self.device, self.n_loaders):
            check_time(deadline, self.progress())
            with models.autocast(self.device, dtype):
                logits.append(model(prepare(images)).float().cpu())
        targets = self.targets[self.valid_rows]
        all_logits = torch.cat(logits)
        valid_loss = float(bce(all_logits, torch.from_numpy(targets)))
        probs = all_logits.sigmoid().numpy()
        if not np.isfinite(probs).all():
            raise CompError(
                'the network gives numbers that are not finite; lower lr, or set precision = "fp32"'
            )
        present = targets.any(0)
        metric = self.recipe.competition.metric
        settings: dict[str, Any] = {"beta": metric.beta, "average": metric.average}
        chosen = probs > global_threshold(probs, targets, **settings)
        return {
            "valid_loss": valid_loss,
            "mAP": float(average_precision_score(targets[:, present], probs[:, present], average="macro")),
            "fbeta": fbeta(targets, chosen, **settings),
        }

    # --- what a kill leaves behind

    def save(self) -> None:
        """last.pt, and log.jsonl made again from it: the two never disagree."""
        state = {
            "stamp": json.dumps(self.stamp),
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": json.dumps(self.history),
            "n_steps_done": self.n_steps_done,
        }
        with replacing(checkpoint_path(self.recipe.name, self.fold)) as temporary:
            buffer = io.BytesIO()  # torch's own writer does not say that a disk is full
            torch.save(state, buffer)
            temporary.write_bytes(buffer.getbuffer())
        self.write_log()

    def write_log(self) -> None:
        write_text(
            log_path(self.recipe.name, self.fold), "".join(json.dumps(row) + "\n" for row in self.history)
        )

    def resume(self) -> bool:
        path = checkpoint_path(self.recipe.name, self.fold)
        if not path.exists():
            return False
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            if json.loads(state["stamp"]) != self.stamp:
                return False
        except (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
            raise CompError(f"{path} is damaged; remove it to train this fold from its start") from error
        self.model.load_state_dict(state["model"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.history = json.loads(state["history"])
        self.n_steps_done = state["n_steps_done"]
        return True

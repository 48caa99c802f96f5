"""One fold's training: its state, how it moves by an epoch, and what a kill leaves of it."""

import contextlib
import io
import json
import math
import pickle
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from timm.utils import ModelEmaV3
from torch import nn

from comp import model as models
from comp.artifacts import checkpoint_path, log_path, plain, replacing, write_text
from comp.augment import Batched, Draws, Mixed
from comp.batches import CacheBatches, Loader, epoch_steps, in_order, open_caches, repeats_of
from comp.budget import check_time
from comp.config import Phase, Recipe
from comp.console import clock
from comp.errors import CompError
from comp.folds import UNUSED
from comp.labels import Labels
from comp.losses import Loss, bce, class_weights, loss_of
from comp.metrics import fbeta
from comp.parallel import Report, is_out_of_memory, memory_in_use
from comp.ranks import Ranks
from comp.schedule import rate
from comp.thresholds import global_threshold

HEADER = "epoch   px      lr   loss  valid    mAP    F-beta  images/s   time"
LOOKS = 50  # steps between two looks at the loss


class Trainer:
    """The state of one fold's training: what `last.pt` holds, and how it moves by an epoch."""

    def __init__(
        self,
        recipe: Recipe,
        fold: int,
        labels: Labels,
        fold_of: np.ndarray,
        caches: dict[int, tuple[Path, ...]],
        stamp: dict[str, Any],
        device: torch.device,
        n_loaders: int,
        ranks: Ranks = Ranks(),  # noqa: B008  (frozen)
    ):
        self.recipe, self.fold, self.stamp = recipe, fold, plain(stamp)
        self.device, self.n_loaders, self.ranks = device, n_loaders, ranks
        self.targets, self.caches = labels.targets, caches
        self.train_rows = np.flatnonzero((fold_of != fold) & (fold_of != UNUSED))
        self.valid_rows = np.flatnonzero(fold_of == fold)
        self.n_epochs = sum(phase.epochs for phase in recipe.phases)
        self.history: list[dict[str, Any]] = []
        n_channels = recipe.competition.images.n_channels
        mean, std = models.pretrained_statistics(recipe.backbone) if n_channels == 3 else self._statistics()
        last = recipe.phases[-1]
        self.groups = groups_of(recipe, labels.classes)
        in_softmax = self.groups if "groups" in (last.loss or recipe.loss).split("+") else ()
        self.spec = models.ModelSpec(
            recipe.backbone, labels.classes, n_channels, last.size, mean, std, recipe.drop_rate, in_softmax
        )
        seen = labels.targets[self.train_rows]
        self.repeats = repeats_of(seen, recipe.oversample)
        self.mixed = Mixed(recipe.mixup, recipe.cutmix)
        self.weights = class_weights(recipe.class_weights, torch.from_numpy(seen.sum(0, dtype=np.int64)))
        torch.manual_seed(recipe.seed * 1000 + fold)
        model = models.create(self.spec, pretrained=recipe.pretrained, weights=recipe.weights)
        if recipe.gradient_checkpointing:
            models.checkpoint_gradients(model, recipe.backbone)
        self.model = ranks.prepared(
            model, device, min(p.batch_size // p.accumulate for p in recipe.phases) // ranks.size
        )
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        dtypes = [
            models.precision_of(recipe.precision, device, self.model, phase.size) for phase in recipe.phases
        ]
        self.scaler = torch.amp.GradScaler(device.type, enabled=torch.float16 in dtypes)
        self.optimizer = torch.optim.AdamW(self._groups(), lr=1e-3, fused=True)
        self.ema = (
            ModelEmaV3(self.model, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
        )
        # the tensors of both in lists: asking for them at each step takes longer than averaging them
        pairs = list(zip(self.averaged.state_dict().values(), self.model.state_dict().values()))
        self.means = [mean for mean, _ in pairs if mean.is_floating_point()]
        self.newest = [newest for _, newest in pairs if newest.is_floating_point()]
        self.counters = [pair for pair in pairs if not pair[0].is_floating_point()]
        self.parameters = list(self.model.parameters())
        if recipe.compile:
            torch._dynamo.config.recompile_limit = (
                64  # sizes, parts, the head alone: more than 8 would run slow
            )
            self.model.compile(dynamic=False)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self.n_steps_done = 0
        self.n_more_parts = 1  # by how much batches are cut further than asked for, since memory ran out
        self.resident: bool | None = None  # whether the device keeps the images; None: where they fit
        self.fitting = models.Parts()  # of validation
        self.loader: tuple[int, Loader] | None = None  # with the size of its phase
        self.net: tuple[bool, nn.Module] | None = None  # what runs the model, and whether for the head alone

    @property
    def averaged(self) -> nn.Module:
        return self.ema.module if self.ema else self.model

    @property
    def n_epochs_done(self) -> int:
        return len(self.history)

    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation a channel of this fold's training images (of 2,000 at most), scaled to 0 … 1."""
        images = open_caches(self.caches[min(self.caches)])
        rows = self.train_rows[:: -(-len(self.train_rows) // 2000)]
        counts = np.zeros((images.shape[-1], 256))  # of each value in each channel
        for first in range(0, len(rows), 64):
            some = images[rows[first : first + 64]]
            for channel in range(len(counts)):
                counts[channel] += np.bincount(some[..., channel].ravel(), minlength=256)
        shares, values = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
        mean = shares @ values
        std = np.sqrt(np.maximum(shares @ values**2 - mean**2, 1e-6))
        return tuple(mean.tolist()), tuple(std.tolist())

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

    def phase(self) -> tuple[int, Phase, int]:
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
        return last["seconds"] * (self.phase()[1].size / last["size"]) ** 2

    # --- an epoch

    def epoch(self, report: Report, deadline: float) -> str:
        """Train and validate for one epoch; give its line for the log. Raises TimeIsUp at the deadline: the
        epoch is then to be done again from its start."""
        started = time.monotonic()
        number, phase, epoch = self.phase()
        seeds = (self.recipe.seed, self.fold, self.n_epochs_done)
        steps = epoch_steps(self.train_rows, phase.batch_size, seeds, self.repeats)
        torch.manual_seed(hash((*seeds, self.ranks.rank)) % 2**31)  # dropout
        batched = self.recipe.augment_on == "device"
        augment = Batched(self.recipe.augment, self.spec.n_channels) if batched else None
        prepare = models.Input(self.spec.mean, self.spec.std, phase.size, augment).to(self.device)
        dtype = models.precision_of(self.recipe.precision, self.device, self.model, phase.size)
        head_only = epoch < phase.head_epochs
        way = Way(self._running(head_only), prepare, self.mixed, self._criterion(phase), self.scaler, dtype)
        watch = LossWatch(self.device)
        lr = 0.0
        for i, (images, targets) in enumerate(self._loader(phase)([self._shared(step) for step in steps])):
            check_time(deadline, self.progress())
            seed, rows = steps[i]
            draws = augment.draw(len(rows), seed) if augment else None
            share = self.ranks.share(len(rows))
            lr = self._set_rates(phase, epoch * len(steps) + i, phase.epochs * len(steps), head_only)
            part = draws[share] if draws else None
            loss = self._backward(way, images, targets, part, len(rows), seed + self.ranks.rank, report)
            self._step()
            watch.add(loss)
            if i % LOOKS == LOOKS - 1:
                self._check(watch.look(), f"epoch {self.n_epochs_done + 1}, step {i + 1}, lr {lr:.1e}")
            if i % 10 == 9:
                report(done=self.n_epochs_done * len(steps) + i + 1, total=self.n_epochs * len(steps))
        loss_mean = float(self.ranks.summed(watch.total)) / self.ranks.size / len(steps)
        self._check(loss_mean, f"epoch {self.n_epochs_done + 1}, lr {lr:.1e}")
        seconds = time.monotonic() - started
        row: dict[str, Any] = {
            "epoch": self.n_epochs_done + 1,
            "phase": number,
            "size": phase.size,
            "lr": lr,
            "loss": loss_mean,
            **self._validate(phase, prepare, dtype, deadline),
            "images_per_second": sum(len(rows) for _, rows in steps) / seconds,
            "seconds": time.monotonic() - started,
            "memory": memory_in_use(self.device),
        }
        self.history.append(row)
        report(done=self.n_epochs_done * len(steps), total=self.n_epochs * len(steps))
        valid, mean_ap, f = (
            "-" if row[key] is None else f"{row[key]:.4f}" for key in ("valid_loss", "mAP", "fbeta")
        )
        return (
            f"{row['epoch']:>2}/{self.n_epochs:<2} {row['size']:>5} {lr:>7.1e} {loss_mean:>6.4f} "
            f"{valid:>6} {mean_ap:>6}  {f:>8} "
            f"{row['images_per_second']:>9,.0f}  {clock(row['seconds']):>5}"
        )

    def _criterion(self, phase: Phase) -> Loss:
        return loss_of(
            phase.loss or self.recipe.loss,
            beta=self.recipe.competition.metric.beta,
            groups=self.groups,
            weights=None if self.weights is None else self.weights.to(self.device),
            smoothing=self.recipe.label_smoothing,
        )

    def _loader(self, phase: Phase) -> Loader:
        if self.loader is None or self.loader[0] != phase.size:
            self.loader = None  # its memory first
            on_cpu = self.recipe.augment_on == "cpu" and not self.recipe.augment.nothing
            augment = self.recipe.augment if on_cpu else None
            dataset = CacheBatches(self.caches[phase.size], self.targets, augment)
            self.loader = phase.size, Loader(dataset, self.device, self.n_loaders, resident=self.resident)
        return self.loader[1]

    def _shared(self, step: tuple[int, np.ndarray]) -> tuple[int, np.ndarray]:
        """This rank's part of a step."""
        seed, rows = step
        return seed + self.ranks.rank, rows[self.ranks.share(len(rows))]

    def _running(self, head_only: bool) -> nn.Module:
        """What runs the model: all of it is trained, or the head alone; then the body's statistics stand
        still too."""
        self.model.train(not head_only)
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.requires_grad_(group["head"] or not head_only)
        if self.net is None or self.net[0] != head_only:
            self.net = head_only, self.ranks.parallel(self.model, self.device)
        return self.net[1]

    def _backward(
        self,
        way: "Way",
        images: torch.Tensor,
        targets: torch.Tensor,
        draws: Draws | None,
        n_all: int,
        seed: int,
        report: Report,
    ) -> torch.Tensor:
        """Gradients of the mean loss over the n_all images of all ranks, of which these are ours: part by
        part, in smaller parts where memory runs out. Gives the loss, as a share of all ranks' sum."""
        n = len(images)
        while True:
            n_parts = self.phase()[1].accumulate * self.n_more_parts
            cuts = [n * k // n_parts for k in range(n_parts + 1)]
            total = torch.zeros((), device=self.device)
            try:
                for k, part in enumerate(map(slice, cuts[:-1], cuts[1:])):
                    quiet = self.ranks.size > 1 and k + 1 < n_parts
                    share = (part.stop - part.start) * self.ranks.size / n_all
                    with way.net.no_sync() if quiet else contextlib.nullcontext():  # type: ignore[operator]
                        total += way.backward(
                            images[part], targets[part], draws[part] if draws else None, share, seed + k
                        )
                return total
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.ranks.size > 1 or n < 4 * n_parts:
                    raise
                self.optimizer.zero_grad(set_to_none=True)
                self.n_more_parts *= 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            report(line=f"memory is full: batches of {n} are worked on in {2 * n_parts} parts from here on")

    def _step(self) -> None:
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.n_steps_done += 1
        if self.ema:
            with torch.no_grad():
                torch._foreach_lerp_(self.means, self.newest, 1 - self.ema.get_decay(self.n_steps_done))

    def _set_rates(self, phase: Phase, step: int, n_steps: int, head_only: bool) -> float:
        share = rate(phase.schedule, step, n_steps, phase.cycles)
        for group in self.optimizer.param_groups:
            body = 0.0 if head_only else phase.body_lr or phase.lr
            group["lr"] = share * (phase.lr if group["head"] else body)
        return share * phase.lr

    def _check(self, loss: float, where: str) -> None:
        if not math.isfinite(loss):
            raise CompError(
                f"the loss is not finite ({where}); "
                'lower lr, or set precision = "fp32". Epochs before it are kept'
            )

    @torch.inference_mode()
    def _validate(
        self, phase: Phase, prepare: nn.Module, dtype: torch.dtype, deadline: float
    ) -> dict[str, float | None]:
        """Held-out scores of the averaged weights, without test-time views; None where nothing is held out.
        F-beta is at one threshold fitted on these rows: to watch, never to choose by."""
        for mean, newest in self.counters if self.ema else ():
            mean.copy_(newest)
        if not len(self.valid_rows):
            return dict.fromkeys(("valid_loss", "mAP", "fbeta"))
        model = self.averaged.eval()
        loader = self._loader(phase)
        if loader.dataset.augment:
            dataset = CacheBatches(self.caches[phase.size], self.targets)
            loader = Loader(dataset, self.device, self.n_loaders, resident=False)
        mine = self.valid_rows[self.ranks.share(len(self.valid_rows))]
        parts = [torch.zeros(0, len(self.spec.classes), device=self.device)]
        with models.autocast(self.device, dtype):
            for images, _ in loader(in_order(mine, self.recipe.predict_batch_size)):
                check_time(deadline, self.progress())
                parts.append(self.fitting(lambda part: model(prepare(part)).float(), images))
        logits = torch.from_numpy(self.ranks.gathered(torch.cat(parts).cpu().numpy()))
        targets = self.targets[self.valid_rows]
        probabilities = models.probabilities(logits, self.spec.groups)
        odds = torch.logit(probabilities, eps=1e-6) if self.spec.groups else logits
        valid_loss = float(bce(odds, torch.from_numpy(targets)))
        probs = probabilities.numpy()
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
            "n_more_parts": self.n_more_parts,
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
        self.n_steps_done, self.n_more_parts = state["n_steps_done"], state["n_more_parts"]
        return True


def groups_of(recipe: Recipe, classes: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """The columns of labels that exclude each other."""
    return tuple(
        tuple(classes.index(name) for name in group) for group in recipe.competition.labels.exclusive
    )


@dataclass(frozen=True)
class Way:
    """From images to gradients, the same for all steps of an epoch."""

    net: nn.Module
    prepare: models.Input
    mixed: Mixed
    criterion: Loss
    scaler: torch.amp.GradScaler
    dtype: torch.dtype

    def backward(
        self,
        images: torch.Tensor,
        targets: torch.Tensor,
        draws: Draws | None,
        share: float,
        seed: int,
    ) -> torch.Tensor:
        """The loss times `share`, whose gradients are added. A function, so that nothing of it is left in
        memory when memory runs out."""
        x, targets = self.mixed(self.prepare(images, draws), targets, seed)
        with models.autocast(x.device, self.dtype):
            logits = self.net(x)
        loss = self.criterion(logits, targets) * share
        self.scaler.scale(loss).backward()
        return loss.detach()


class LossWatch:
    """The sum of losses on the device. What a GPU has summed up is looked at one look later, so that nobody
    waits for it."""

    def __init__(self, device: torch.device):
        self.total = torch.zeros((), device=device)
        self.event = torch.cuda.Event() if device.type == "cuda" else None
        self.copy = torch.zeros((), pin_memory=True) if self.event else self.total
        self.copied = False

    def add(self, loss: torch.Tensor) -> None:
        self.total += loss

    def look(self) -> float:
        """The sum, or that of the look before; 0 where it is still on its way."""
        if self.event is None:
            return float(self.total)
        found = float(self.copy) if self.copied and self.event.query() else 0.0
        self.copy.copy_(self.total, non_blocking=True)
        self.event.record()
        self.copied = True
        return found

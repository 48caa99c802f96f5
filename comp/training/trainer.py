"""Training of one fold: the loop over epochs and its checkpoint."""

import contextlib
import io
import itertools
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from comp.artifacts.files import parse_json, replacing, write_text
from comp.artifacts.paths import checkpoint_path, log_path
from comp.artifacts.schemas import Epoch
from comp.artifacts.stamps import plain
from comp.batches.augmentation import Batched, Draws
from comp.batches.loader import Batch, CacheBatches, Loader, open_caches
from comp.batches.mixup import Mixed
from comp.batches.preprocessing import Input
from comp.batches.sampling import Step, epoch_steps, in_order, repeats_of
from comp.compute.devices import Parts, is_out_of_memory, memory_in_use
from comp.compute.distributed import Ranks
from comp.compute.jobs import Report
from comp.config.recipe import Phase, Recipe
from comp.console import clock
from comp.data.folds import UNUSED
from comp.data.labels import Labels, groups_of
from comp.deadline import check_time
from comp.decisions.metrics import fbeta, most_probable
from comp.decisions.thresholds import global_threshold
from comp.errors import CompError, Diverged
from comp.models import network as models
from comp.models.inference import probabilities
from comp.models.precision import autocast, precision_of
from comp.training.losses import Loss, bce, class_weights, loss_of
from comp.training.schedule import rate
from comp.training.step import LossWatch, Way, cut
from comp.training.validation import scores_text

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
        mean, std = self._statistics()
        last = recipe.phases[-1]
        self.groups = groups_of(recipe.competition.labels, labels.classes)
        self.single = recipe.competition.labels.single
        in_softmax = self.groups if "groups" in (last.loss or recipe.loss).split("+") else ()
        self.spec = models.ModelSpec(
            recipe.backbone,
            labels.classes,
            recipe.n_channels,
            last.size,
            mean,
            std,
            recipe.drop_rate,
            in_softmax,
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
        dtypes = [precision_of(recipe.precision, device, self.model, phase.size) for phase in recipe.phases]
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
        self.fitting = Parts()  # of validation
        self.swa: dict[str, torch.Tensor] = {}  # the mean of the averaged weights after the last epochs
        self.loader: tuple[int, Loader] | None = None  # with the size of its phase
        self.net: tuple[bool, nn.Module] | None = None  # what runs the model, and whether for the head alone

    @property
    def averaged(self) -> nn.Module:
        return self.ema.module if self.ema else self.model

    @property
    def n_epochs_done(self) -> int:
        return len(self.history)

    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation a channel, scaled to 0 … 1, as `normalize` asks for: of this fold's training
        images (of 2,000 at most), of the backbone's, or none where each image has its own."""
        kind = self.recipe.normalize
        if kind == "image":
            return (), ()
        if kind == "imagenet" or (kind == "auto" and not self.recipe.channels):
            return models.pretrained_statistics(self.recipe.backbone)
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
        """Parameters by body and head, with and without weight decay (none on biases and norms), and with
        layer_decay by layers, each with its share of the body's rate (Howard and Ruder 2018)."""
        heads: Any = self.model.get_classifier()  # type: ignore[operator]
        heads = heads if isinstance(heads, list | tuple) else [heads]
        in_head = {id(p) for head in heads for p in head.parameters()}
        layer_decay = self.recipe.layer_decay
        depths = models.depths(self.model, self.recipe.backbone) if layer_decay < 1 else {}
        groups: dict[tuple[bool, bool, int], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            head = id(parameter) in in_head
            key = head, parameter.ndim > 1, 0 if head else depths.get(name, 0)
            groups.setdefault(key, []).append(parameter)
        return [
            {
                "params": parameters,
                "head": head,
                "scale": layer_decay**depth,
                "weight_decay": self.recipe.weight_decay if decay else 0.0,
            }
            for (head, decay, depth), parameters in sorted(groups.items(), key=lambda item: item[0])
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

    def header(self) -> str:
        score = "accuracy" if self.single else "F-beta"
        return f"epoch   px      lr   loss  valid    mAP  {score:>8}  images/s   time"

    def expected_seconds(self) -> float:
        """The next epoch's time: that of the one before, scaled by pixels, and half as much again where the
        mean of the weights follows it; 0 where there is none."""
        if not self.history:
            return 0.0
        last = self.history[-1]
        ends = self.recipe.swa_epochs and self.n_epochs_done + 1 == self.n_epochs
        return (1.5 if ends else 1.0) * last["seconds"] * (self.phase()[1].size / last["size"]) ** 2

    # --- an epoch

    def epoch(self, report: Report, deadline: float) -> str:
        """Train and validate for one epoch; give its line for the log. Raises TimeIsUp at the deadline: the
        epoch is then to be done again from its start."""
        started = time.monotonic()
        number, phase, epoch = self.phase()
        steps = self._steps(phase, self.n_epochs_done)
        head_only = epoch < phase.head_epochs
        way = self._way(phase, self._running(head_only))
        watch = LossWatch(self.device)
        lr = 0.0
        for i, (batch, step) in enumerate(zip(self._batches(phase, steps), steps)):
            check_time(deadline, self.progress())
            at, n_steps = epoch * len(steps) + i, phase.epochs * len(steps)
            share = rate(phase.schedule, at, n_steps, phase.cycles, phase.warm_up)
            lr = self._set_rates(phase, share, head_only)
            watch.add(self._backward(way, step, *batch, report))
            self._step()
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
            **self._validate(phase, way, deadline),
            "images_per_second": sum(len(rows) for _, rows in steps) / seconds,
            "seconds": time.monotonic() - started,
            "memory": memory_in_use(self.device),
        }
        line = (
            f"{row['epoch']:>2}/{self.n_epochs:<2} {row['size']:>5} {lr:>7.1e} {loss_mean:>6.4f} "
            f"{scores_text(row)} {row['images_per_second']:>9,.0f}  {clock(row['seconds']):>5}"
        )
        self._add_to_mean(row["epoch"])
        if self.swa and row["epoch"] == self.n_epochs:
            report(line=line)
            scores = self._take_mean(phase, deadline)
            row |= {"before_mean": {key: row[key] for key in scores}, **scores}
            seconds = time.monotonic() - started - row["seconds"]
            line = f"{'mean':>5} {phase.size:>5} {'':>14} {scores_text(row)} {'':>9}  {clock(seconds):>5}"
        self.history.append(row)
        report(done=self.n_epochs_done * len(steps), total=self.n_epochs * len(steps))
        return line

    def range_test(self, rates: Sequence[float], report: Report) -> Iterator[float]:
        """The loss of a step at each of the head's rates, one after the other, on the next phase's batches
        (Smith 2017). The body keeps its ratio. Weights change in memory alone."""
        phase = self.phase()[1]
        head_only = phase.head_epochs == phase.epochs
        way = self._way(phase, self._running(head_only))
        n_done = 0
        for epoch in itertools.count():
            steps = self._steps(phase, epoch)[: len(rates) - n_done]
            if not steps:
                return
            for batch, step, lr in zip(self._batches(phase, steps), steps, rates[n_done:]):
                self._set_rates(phase, lr / phase.lr, head_only)
                yield float(self._backward(way, step, *batch, report))
                self._step()
            n_done += len(steps)

    def _add_to_mean(self, epoch: int) -> None:
        """Of the last epochs, count the averaged weights into their mean."""
        k = epoch - (self.n_epochs - self.recipe.swa_epochs)
        for name, newest in self.averaged.state_dict().items() if k > 0 else ():
            if k == 1 or not newest.is_floating_point():
                self.swa[name] = newest.clone()
            else:
                self.swa[name].lerp_(newest, 1 / k)

    @torch.no_grad()
    def _take_mean(self, phase: Phase, deadline: float) -> dict[str, float | None]:
        """Put the mean of the last epochs' weights in place of the averaged ones, with the batch norms'
        statistics of one more pass over the training images (Izmailov et al. 2018). Gives its held-out
        scores."""
        model = self.averaged
        model.load_state_dict(self.swa)
        model._compiled_call_impl = None  # it would be compiled again at each step of the pass
        way = self._way(phase, model.eval())
        norms = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
        norms = [norm for norm in norms if norm.running_mean is not None]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        steps = self._steps(phase, self.n_epochs) if norms else []
        for (images, targets), step in zip(self._batches(phase, steps), steps):
            check_time(deadline, self.progress())
            draws, seed = self._draws(way, step)
            for k, part in enumerate(cut(len(images), phase.accumulate * self.n_more_parts)):
                way.forward(images[part], targets[part], draws[part] if draws else None, seed + k)
        for norm in norms:
            for statistic in (norm.running_mean, norm.running_var):
                assert statistic is not None
                self.ranks.summed(statistic).div_(self.ranks.size)
        return self._validate(phase, way, deadline)

    def _steps(self, phase: Phase, epoch: int) -> list[Step]:
        """The steps of an epoch of the run; its dropout is drawn from now on."""
        seeds = (self.recipe.seed, self.fold, epoch)
        torch.manual_seed(hash((*seeds, self.ranks.rank)) % 2**31)
        return epoch_steps(self.train_rows, phase.batch_size, seeds, self.repeats)

    def _way(self, phase: Phase, net: nn.Module) -> "Way":
        batched = self.recipe.augment_on == "device"
        augment = Batched(self.recipe.augment, self.spec.n_channels) if batched else None
        prepare = Input(self.spec.mean, self.spec.std, phase.size, augment).to(self.device)
        dtype = precision_of(self.recipe.precision, self.device, self.model, phase.size)
        return Way(net, prepare, self.mixed, self._criterion(phase), self.scaler, dtype)

    def _batches(self, phase: Phase, steps: Sequence[Step]) -> Iterator[Batch]:
        """This rank's part of each step."""
        parts = [(seed + self.ranks.rank, rows[self.ranks.share(len(rows))]) for seed, rows in steps]
        return self._loader(phase)(parts)

    def _draws(self, way: "Way", step: Step) -> tuple[Draws | None, int]:
        """How this rank's part of a step is augmented on the device, and its seed for all else."""
        seed, rows = step
        draws = way.prepare.augment.draw(len(rows), seed) if way.prepare.augment else None
        return draws[self.ranks.share(len(rows))] if draws else None, seed + self.ranks.rank

    def _criterion(self, phase: Phase) -> Loss:
        return loss_of(
            phase.loss or self.recipe.loss,
            beta=self.recipe.competition.metric.settings["beta"],
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
        step: Step,
        images: torch.Tensor,
        targets: torch.Tensor,
        report: Report,
    ) -> torch.Tensor:
        """Gradients of the mean loss over a step's images, of which these are our rank's: part by part, in
        smaller parts where memory runs out. Gives the loss, as a share of all ranks' sum."""
        draws, seed = self._draws(way, step)
        n = len(images)
        while True:
            n_parts = self.phase()[1].accumulate * self.n_more_parts
            total = torch.zeros((), device=self.device)
            try:
                for k, part in enumerate(cut(n, n_parts)):
                    quiet = self.ranks.size > 1 and k + 1 < n_parts
                    share = (part.stop - part.start) * self.ranks.size / len(step[1])
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

    def _set_rates(self, phase: Phase, share: float, head_only: bool) -> float:
        """Set this share of the phase's highest rates; give the head's."""
        for group in self.optimizer.param_groups:
            body = 0.0 if head_only else phase.body_lr or phase.lr
            group["lr"] = share * (phase.lr if group["head"] else body * group["scale"])
        return share * phase.lr

    def _check(self, loss: float, where: str) -> None:
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss is not finite ({where}); "
                'lower lr, or set precision = "fp32". Epochs before it are kept'
            )

    @torch.inference_mode()
    def _validate(self, phase: Phase, way: "Way", deadline: float) -> dict[str, float | None]:
        """Held-out scores of the averaged weights, without test-time views; None where nothing is held out.
        F-beta is at one threshold fitted on these rows: to watch, never to choose by. Where each image has
        one label it is that of the most probable, which is fitted to nothing."""
        for mean, newest in self.counters if self.ema else ():
            mean.copy_(newest)
        if not len(self.valid_rows):
            return dict.fromkeys(("valid_loss", "mAP", "fbeta", *(["accuracy"] if self.single else [])))
        model = self.averaged.eval()
        loader = self._loader(phase)
        if loader.dataset.augment:
            dataset = CacheBatches(self.caches[phase.size], self.targets)
            loader = Loader(dataset, self.device, self.n_loaders, resident=False)
        mine = self.valid_rows[self.ranks.share(len(self.valid_rows))]
        parts = [torch.zeros(0, len(self.spec.classes), device=self.device)]
        with autocast(self.device, way.dtype):
            for images, _ in loader(in_order(mine, self.recipe.predict_batch_size)):
                check_time(deadline, self.progress())
                parts.append(self.fitting(lambda part: model(way.prepare(part)).float(), images))
        logits = torch.from_numpy(self.ranks.gathered(torch.cat(parts).cpu().numpy()))
        targets = self.targets[self.valid_rows]
        likely = probabilities(logits, self.spec.groups)
        odds = torch.logit(likely, eps=1e-6) if self.spec.groups else logits
        if self.single and self.spec.groups:
            valid_loss = float(loss_of("groups", groups=self.spec.groups)(logits, torch.from_numpy(targets)))
        else:
            valid_loss = float(bce(odds, torch.from_numpy(targets)))
        probs = likely.numpy()
        if not np.isfinite(probs).all():
            raise Diverged(
                'the network gives numbers that are not finite; lower lr, or set precision = "fp32"'
            )
        present = targets.any(0)
        settings = self.recipe.competition.metric.settings
        if self.single:
            chosen = most_probable(probs)
        else:
            chosen = probs > global_threshold(probs, targets, **settings)
        return {
            "valid_loss": valid_loss,
            "mAP": float(average_precision_score(targets[:, present], probs[:, present], average="macro")),
            "fbeta": fbeta(targets, chosen, **settings),
            **({"accuracy": float((chosen == targets).all(1).mean())} if self.single else {}),
        }

    # --- what a kill leaves behind

    def save(self) -> None:
        """last.pt, and log.jsonl made again from it: the two never disagree."""
        state = {
            "stamp": json.dumps(self.stamp),
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "swa": self.swa,
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
        remedy = "remove it to train this fold from its start"
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            if json.loads(state["stamp"]) != self.stamp:
                return False
            self.model.load_state_dict(state["model"])
            if self.ema:
                self.ema.load_state_dict(state["ema"])
            self.swa = dict(state["swa"])
            self.optimizer.load_state_dict(state["optimizer"])
            if state["scaler"] and self.scaler.is_enabled():
                self.scaler.load_state_dict(state["scaler"])
            self.history = parse_json(state["history"], f"{path}, history", list[Epoch], remedy)
            self.n_steps_done, self.n_more_parts = int(state["n_steps_done"]), int(state["n_more_parts"])
            if not (len(self.history) <= self.n_epochs and self.n_steps_done >= 0 < self.n_more_parts):
                raise ValueError(f"{len(self.history)} epochs of {self.n_epochs}")
        except CompError:
            raise
        except Exception as error:  # what a damaged file holds makes torch raise nearly anything
            if isinstance(error, RuntimeError) and is_out_of_memory(error):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CompError(f"{path} is damaged; {remedy} ({reason})") from error
        return True

"""Training one fold: the epoch loop and its checkpoint."""

import json
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from comp.artifacts.paths import checkpoint_path
from comp.artifacts.stamps import to_json
from comp.batches.loader import Batch
from comp.compute.devices import MicroBatches, memory_in_use, split_evenly
from comp.compute.distributed import ProcessGroup
from comp.compute.jobs import Report
from comp.config.recipe import Phase
from comp.data.labels import exclusive_groups
from comp.deadline import check_time
from comp.decisions.metrics import FBeta
from comp.decisions.rules import is_single_label
from comp.errors import Diverged
from comp.training.averaging import reset_batch_norms
from comp.training.checkpoint import (
    damage_as_error,
    load_checkpoint,
    read_history,
    save_checkpoint,
    write_log,
)
from comp.training.epoch_lines import epoch_line, run_progress, swa_line
from comp.training.fold_batches import FoldBatches
from comp.training.losses import class_weights, make_loss
from comp.training.model_state import ModelState
from comp.training.optimizer import set_rates
from comp.training.prepare import answers_of
from comp.training.schedule import next_epoch_seconds, phase_at, rate_shares
from comp.training.step import Drawn, Feed, LossMonitor, TrainStep
from comp.training.training_data import FoldInputs
from comp.training.validation import HeldOutScores, predict_logits
from comp.training.worst_images import worst_images

STEPS_PER_LOSS_CHECK = 50


class Trainer:
    """Train one fold, epoch by epoch. `save` and `resume` write and read last.pt."""

    def __init__(
        self,
        inputs: FoldInputs,
        device: torch.device,
        n_loaders: int,
        ranks: ProcessGroup = ProcessGroup(),  # noqa: B008  (frozen)
    ):
        recipe, labels = inputs.recipe, inputs.labels
        self.inputs, self.recipe, self.stamp = inputs, recipe, to_json(inputs.stamp)
        self.device, self.ranks = device, ranks
        self.batches = FoldBatches(inputs, device, n_loaders, ranks)
        self.state = ModelState(inputs, device, ranks)
        self.n_epochs = sum(phase.epochs for phase in recipe.phases)
        self.history: list[dict[str, Any]] = []
        self.groups = exclusive_groups(recipe.competition.labels, labels.classes)
        self.single = is_single_label(labels.targets, self.groups)
        self.scores = HeldOutScores(recipe.competition, labels.classes, self.single, recipe.code)
        n_images = np.nansum(labels.targets[inputs.train_rows], 0).astype(np.int64)
        self.weights = class_weights(recipe.class_weights, torch.from_numpy(n_images))
        self.micro_batches = MicroBatches(smallest=2 if ranks.size == 1 else math.inf)  # of training
        self.micro_valid = MicroBatches()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    @property
    def n_epochs_done(self) -> int:
        return len(self.history)

    def phase(self) -> tuple[int, Phase, int]:
        """Return the number of the next epoch's phase, the phase, and the epoch within it."""
        return phase_at(self.recipe.phases, self.n_epochs_done)

    def progress(self) -> str:
        return f"{self.n_epochs_done} of {self.n_epochs} epochs"

    def expected_seconds(self) -> float:
        """Return the expected duration of the next epoch; 0 before the first one."""
        ends = bool(self.recipe.swa_epochs) and self.n_epochs_done + 1 == self.n_epochs
        return next_epoch_seconds(self.recipe.phases, self.history, swa_follows=ends)

    def epoch(self, report: Report, deadline: float) -> str:
        """Train and validate one epoch. Return its line for the screen. Raise TimeIsUp at the deadline; the
        epoch then starts again when training resumes."""
        started = time.monotonic()
        number, phase, epoch = self.phase()
        steps = self.batches.steps(phase, self.n_epochs_done)
        head_only = epoch < phase.head_epochs
        train_step = self.train_step(phase, self.state.train_module(head_only))
        monitor = LossMonitor(self.device)
        lr, share_at = 0.0, rate_shares(phase, self.recipe.code)
        batches = train_step.feed.batches(self.batches.training(phase, steps), steps)
        for i, (batch, drawn) in enumerate(batches):
            check_time(deadline, self.progress())
            at, n_steps = epoch * len(steps) + i, phase.epochs * len(steps)
            lr = set_rates(self.state.optimizer, phase, share_at(at, n_steps), head_only)
            monitor.add(self.backward(train_step, drawn, batch, report))
            self.state.update()
            if i % STEPS_PER_LOSS_CHECK == STEPS_PER_LOSS_CHECK - 1:
                check_loss(monitor.look(), f"epoch {self.n_epochs_done + 1}, step {i + 1}, lr {lr:.1e}")
            if i % 10 == 9:
                report(**run_progress(self.inputs, self.n_epochs_done + (i + 1) / len(steps)))
        loss_mean = float(self.ranks.add_up(monitor.total)) / self.ranks.size / len(steps)
        check_loss(loss_mean, f"epoch {self.n_epochs_done + 1}, lr {lr:.1e}")
        seconds = time.monotonic() - started
        row: dict[str, Any] = {
            "epoch": self.n_epochs_done + 1,
            "phase": number,
            "size": phase.size,
            "lr": lr,
            "loss": loss_mean,
            **self.validate(phase, train_step, deadline),
            "images_per_second": sum(len(rows) for _, rows in steps) / seconds,
            "seconds": time.monotonic() - started,
            "memory": memory_in_use(self.device),
        }
        line = epoch_line(row, self.n_epochs, self.scores.columns)
        self.state.averages.add_epoch(row["epoch"], self.n_epochs)
        if self.state.averages.swa and row["epoch"] == self.n_epochs:
            report(line=line)
            scores = self._take_swa(phase, deadline)
            before = {key: row[key] for key in scores if key != "worst"}
            row |= {"before_mean": before, **scores}
            seconds = time.monotonic() - started - row["seconds"]
            line = swa_line(row, seconds, self.scores.columns)
        self.history.append(row)
        report(**run_progress(self.inputs, self.n_epochs_done))
        return line

    def train_step(self, phase: Phase, net: nn.Module) -> TrainStep:
        """Return the forward and backward pass of a phase."""
        spec = self.state.spec
        feed = Feed.of(self.recipe, phase, spec, self.ranks, self.device)
        criterion = make_loss(
            phase.loss or self.recipe.loss,
            beta=FBeta.from_metric(self.recipe.competition.metric).beta,
            groups=self.groups,
            weights=None if self.weights is None else self.weights.to(self.device),
            smoothing=self.recipe.label_smoothing,
            code=self.recipe.code,
            answers=answers_of(self.recipe, self.inputs.labels, spec.numbers),
        )
        dtype, layout = self.state.precision(phase.size), self.batches.layout
        return TrainStep(net, feed, criterion, self.state, dtype, self.ranks, layout)

    def backward(self, train_step: TrainStep, drawn: Drawn, batch: Batch, report: Report) -> torch.Tensor:
        """Add up the gradients of a step, and return its loss. When out of memory, free the images that the
        device holds, then use micro-batches."""
        factor = self.micro_batches.factor

        def retry(n_parts: int) -> None:
            self.state.drop_gradients()
            fewer = f"batches of {len(batch[0])} run as {n_parts} micro-batches"
            freed = "images are read from the cache and no longer kept on the device"
            report(
                line=f"out of memory: from now on {freed if factor == self.micro_batches.factor else fewer}"
            )

        return self.micro_batches.run(
            len(batch[0]),
            lambda parts: train_step.backward_parts(drawn, *batch, parts),
            n_parts=self.phase()[1].accumulate,
            let_go=self.batches.let_go,
            retrying=retry,
        )

    @torch.no_grad()
    def _take_swa(self, phase: Phase, deadline: float) -> dict[str, Any]:
        """Replace the averaged weights by the SWA mean. Recompute the batch norms' statistics in one more
        pass over the training images. Return what `validate` does."""
        model = self.state.averages.take_swa().eval()
        train_step = self.train_step(phase, model)
        norms = reset_batch_norms(model)
        steps = self.batches.steps(phase, self.n_epochs) if norms else []
        batches = train_step.feed.batches(self.batches.training(phase, steps), steps)
        for (images, rows), drawn in batches:
            check_time(deadline, self.progress())
            n_parts = phase.accumulate * self.micro_batches.factor
            train_step.forward_parts(drawn, images, rows, split_evenly(len(images), n_parts))
        for norm in norms:
            for statistic in (norm.running_mean, norm.running_var):
                assert statistic is not None
                self.ranks.add_up(statistic).div_(self.ranks.size)
        return self.validate(phase, train_step, deadline)

    def validate(self, phase: Phase, train_step: TrainStep, deadline: float) -> dict[str, Any]:
        """Return the held-out scores of the averaged weights, without TTA, and the worst images."""
        self.state.averages.copy_counters()
        if not len(self.inputs.valid_rows):
            return self.scores.none()

        def checked() -> Iterator[Batch]:
            for batch in self.batches.held_out(phase):
                check_time(deadline, self.progress())
                yield batch

        model, spec = self.state.averages.averaged.eval(), self.state.spec
        logits = predict_logits(
            model, train_step.feed.prepare, train_step.dtype, checked(), train_step.layout, self.micro_valid,
            self.batches.let_go,
        )  # fmt: skip
        logits = self.ranks.gather(logits.reshape(-1, len(spec.classes)))
        labels, rows = self.inputs.labels, self.inputs.valid_rows
        scores = self.scores.of(logits, labels.targets[rows], spec)
        worst = worst_images(labels.ids[rows], logits, labels.targets[rows], spec, single=self.single)
        return {**scores, "worst": worst}

    # --- checkpoint

    def save(self) -> None:
        """Write last.pt, then all of log.jsonl, so that the two agree."""
        state = {
            "stamp": json.dumps(self.stamp),
            **self.state.state_dict(),
            "history": json.dumps(self.history),
            "n_more_parts": self.micro_batches.factor,
        }
        save_checkpoint(checkpoint_path(self.recipe.name, self.inputs.fold), state)
        self.write_log()

    def write_log(self) -> None:
        write_log(self.recipe.name, self.inputs.fold, self.history)

    def resume(self) -> bool:
        """Load last.pt if it has this stamp. Return whether it did."""
        path = checkpoint_path(self.recipe.name, self.inputs.fold)
        with damage_as_error(path):
            state = load_checkpoint(path, self.stamp, self.device)
            if state is None:
                return False
            self.state.load_state_dict(state)
            self.history = read_history(state, path)
            self.micro_batches.factor = int(state["n_more_parts"])
            if self.n_epochs_done > self.n_epochs or self.micro_batches.factor < 1:
                raise ValueError(f"{self.n_epochs_done} epochs of {self.n_epochs}")
        return True


def check_loss(loss: float, where: str) -> None:
    """Raise Diverged for a loss that is not finite."""
    if not math.isfinite(loss):
        raise Diverged(
            f'the loss is not finite ({where}); lower lr, or set precision = "fp32". Earlier epochs are kept'
        )

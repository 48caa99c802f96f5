"""Forward and backward pass of one batch."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from comp.batches.augmentation import AugmentParams, BatchAugmentation
from comp.batches.loader import Batch
from comp.batches.mixup import MixupCutmix
from comp.batches.preprocessing import Preprocess
from comp.batches.rows import Parts, RowLayout
from comp.batches.sampling import Step
from comp.compute.distributed import ProcessGroup
from comp.config.recipe import Phase, Recipe
from comp.models.network import ModelSpec
from comp.models.precision import autocast
from comp.training.losses import Loss
from comp.training.model_state import ModelState

N_DRAWN = 64  # steps
PREPARED = 32 << 20  # bytes of batches that a CPU prepares in a row


class Drawn(NamedTuple):
    """What is random in a step, apart from dropout."""

    augment: AugmentParams | None  # of this rank's part of the batch
    seed: int  # for mixup and cutmix
    n_images: int  # of all ranks


@dataclass(frozen=True)
class Feed:
    """From the loader's batches to what the network gets: augmented, normalised, mixed."""

    prepare: Preprocess
    mixed: MixupCutmix
    ranks: ProcessGroup

    @classmethod
    def of(
        cls, recipe: Recipe, phase: Phase, spec: ModelSpec, ranks: ProcessGroup, device: torch.device
    ) -> "Feed":
        on_device = recipe.augment_on == "device"
        augment = BatchAugmentation(recipe.augment, spec.n_channels) if on_device else None
        prepare = Preprocess(spec.mean, spec.std, phase.size, augment).to(device)
        return cls(prepare, MixupCutmix(recipe.mixup, recipe.cutmix), ranks)

    def __call__(
        self, images: torch.Tensor, rows: torch.Tensor, draws: AugmentParams | None, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images (B, channels, size, size), and the rows that go with them. Images of floats are
        prepared already."""
        x = images if images.is_floating_point() else self.prepare(images, draws)
        return self.mixed(x, rows, seed)

    def batches(self, batches: Iterable[Batch], steps: Sequence[Step]) -> Iterator[tuple[Batch, Drawn]]:
        """Yield the batch of each step with what is random in it. A CPU prepares small batches in a row, and
        yields their images as floats: between two passes of the network its caches hold neither the code of
        the preparation nor the images."""
        pairs = zip(batches, self.draw(steps))
        for first in pairs:
            n_in_row = self._n_in_row(first[0][0])
            if n_in_row < 2:
                yield first
            else:
                yield from [self._prepared(*pair) for pair in (first, *islice(pairs, n_in_row - 1))]

    def _n_in_row(self, images: torch.Tensor) -> int:
        n_bytes = len(images) * images.shape[-1] * self.prepare.size**2 * torch.float32.itemsize
        return PREPARED // n_bytes if images.device.type == "cpu" else 1

    def _prepared(self, batch: Batch, drawn: Drawn) -> tuple[Batch, Drawn]:
        images, rows = batch
        return (self.prepare(images, drawn.augment), rows), drawn

    def draw(self, steps: Sequence[Step]) -> Iterator[Drawn]:
        """Yield what is random in each step. Many are drawn at once: between two passes of the network each
        takes 0.4 ms of a CPU, in a row 0.06 ms."""
        for first in range(0, len(steps), N_DRAWN):
            yield from [self._draw(*step) for step in steps[first : first + N_DRAWN]]

    def _draw(self, seed: int, rows: np.ndarray) -> Drawn:
        n, augment = len(rows), self.prepare.augment
        params = augment.draw(n, seed) if augment else None
        return Drawn(params[self.ranks.share(n)] if params else None, seed + self.ranks.rank, n)


@dataclass(frozen=True)
class TrainStep:
    """Forward and backward pass; constant within an epoch."""

    net: nn.Module
    feed: Feed
    criterion: Loss
    state: ModelState
    dtype: torch.dtype
    ranks: ProcessGroup
    layout: RowLayout

    def forward_parts(
        self, drawn: Drawn, images: torch.Tensor, rows: torch.Tensor, parts: Sequence[slice]
    ) -> None:
        """Run the network on a batch, part by part, to update its batch norms' statistics."""
        draws, seed, _ = drawn
        for k, part in enumerate(parts):
            self._forward(images[part], rows[part], draws[part] if draws else None, seed + k)

    def backward_parts(
        self, drawn: Drawn, images: torch.Tensor, rows: torch.Tensor, parts: Sequence[slice]
    ) -> torch.Tensor:
        """Add up the gradients of the mean loss over a batch, part by part. `images`, and the `rows` that go
        with them, are this rank's. Return this rank's loss; the mean over ranks is the batch's."""
        with self.state.cast_weights(self.dtype, len(parts)):
            return self._backward_parts(drawn, images, rows, parts)

    def _backward_parts(
        self, drawn: Drawn, images: torch.Tensor, rows: torch.Tensor, parts: Sequence[slice]
    ) -> torch.Tensor:
        """Do what `backward_parts` says, with the network's weights in any type."""
        draws, seed, n_images = drawn
        total = torch.zeros((), device=images.device)
        for k, part in enumerate(parts):
            quiet = self.ranks.size > 1 and k + 1 < len(parts)
            share = (part.stop - part.start) * self.ranks.size / n_images
            with self.net.no_sync() if quiet else contextlib.nullcontext():  # type: ignore[operator]
                total += self._backward(
                    images[part], rows[part], draws[part] if draws else None, share, seed + k
                )
        return total

    def _forward(
        self, images: torch.Tensor, rows: torch.Tensor, draws: AugmentParams | None, seed: int
    ) -> tuple[torch.Tensor, Parts]:
        """Return logits, and what goes with the images after mixup and cutmix."""
        x, rows = self.feed(images, rows, draws, seed)
        parts = self.layout.split(rows)
        with autocast(x.device, self.dtype):
            return self.net(x) if parts[2] is None else self.net(x, parts[2]), parts

    def _backward(
        self,
        images: torch.Tensor,
        rows: torch.Tensor,
        draws: AugmentParams | None,
        share: float,
        seed: int,
    ) -> torch.Tensor:
        """Add the gradients of the loss times `share`. As a function of its own it frees all tensors when it
        runs out of memory."""
        logits, (targets, weights, _) = self._forward(images, rows, draws, seed)
        loss = self.criterion(logits, targets, weights) * share
        self.state.scaler.scale(loss).backward()
        return loss.detach()


class LossMonitor:
    """The sum of losses, on the device. `look` on a GPU returns the sum of the previous look, so the CPU
    never waits for the GPU."""

    def __init__(self, device: torch.device):
        self.total = torch.zeros((), device=device)
        self.event = torch.cuda.Event() if device.type == "cuda" else None
        self.copy = torch.zeros((), pin_memory=True) if self.event else self.total
        self.copied = False

    def add(self, loss: torch.Tensor) -> None:
        self.total += loss

    def look(self) -> float:
        """Return the sum; on a GPU that of the previous look, or 0 if it has not arrived."""
        if self.event is None:
            return float(self.total)
        found = float(self.copy) if self.copied and self.event.query() else 0.0
        self.copy.copy_(self.total, non_blocking=True)
        self.event.record()
        self.copied = True
        return found

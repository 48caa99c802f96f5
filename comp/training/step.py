"""Forward and backward pass of a batch."""

from dataclasses import dataclass

import torch
from torch import nn

from comp.batches.augmentation import Draws
from comp.batches.mixup import Mixed
from comp.batches.preprocessing import Input
from comp.models.precision import autocast
from comp.training.losses import Loss


def cut(n: int, n_parts: int) -> list[slice]:
    """n images in parts, in sizes that differ by one at most."""
    ends = [n * k // n_parts for k in range(n_parts + 1)]
    return list(map(slice, ends[:-1], ends[1:]))


@dataclass(frozen=True)
class Way:
    """From images to gradients, the same for all steps of an epoch."""

    net: nn.Module
    prepare: Input
    mixed: Mixed
    criterion: Loss
    scaler: torch.amp.GradScaler
    dtype: torch.dtype

    def forward(
        self, images: torch.Tensor, targets: torch.Tensor, draws: Draws | None, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, and the targets as mixing leaves them."""
        x, targets = self.mixed(self.prepare(images, draws), targets, seed)
        with autocast(x.device, self.dtype):
            return self.net(x), targets

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
        logits, targets = self.forward(images, targets, draws, seed)
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

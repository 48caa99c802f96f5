"""Averages of the weights: an exponential moving average (EMA) over steps, and the mean over the last epochs
(SWA, Izmailov et al. 2018)."""

from collections.abc import Sequence

import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from comp.training.flat_parameters import FlatGroup, join_all


class WeightAverages:
    """A model's EMA and SWA. Without EMA, `averaged` is the model itself."""

    def __init__(self, model: nn.Module, ema_decay: float, n_swa_epochs: int, groups: Sequence[FlatGroup]):
        self.ema = ModelEmaV3(model, decay=ema_decay, use_warmup=True) if ema_decay else None
        self.averaged: nn.Module = self.ema.module if self.ema else model
        self.n_swa_epochs = n_swa_epochs
        self.swa: dict[str, torch.Tensor] = {}  # mean of `averaged` over the last epochs
        # as lists: collecting the tensors at each step takes longer than averaging them
        pairs = list(zip(self.averaged.buffers(), model.buffers()))
        self.counters = [pair for pair in pairs if not pair[0].is_floating_point()]
        self.means: list[torch.Tensor] = []
        self.newest: list[torch.Tensor] = []
        if self.ema:
            floats = [pair for pair in pairs if pair[0].is_floating_point()]
            self.means += join_all([mean for mean, _ in floats])
            self.newest += join_all([newest for _, newest in floats])
            mean_of = dict(zip(model.parameters(), self.averaged.parameters()))
            for group in groups:
                self.means += [p.data for p in FlatGroup([mean_of[p] for p in group.parameters]).flats]
                self.newest += [p.data for p in group.flats]

    def update(self, n_steps_done: int) -> None:
        """Update the EMA after a step."""
        if self.ema:
            with torch.no_grad():
                torch._foreach_lerp_(self.means, self.newest, 1 - self.ema.get_decay(n_steps_done))

    def copy_counters(self) -> None:
        """Copy the model's integers to the EMA, such as batch norms' number of batches."""
        for mean, newest in self.counters if self.ema else ():
            mean.copy_(newest)

    def add_epoch(self, epoch: int, n_epochs: int) -> None:
        """Add the averaged weights to the SWA mean, if this is one of the last epochs."""
        k = epoch - (n_epochs - self.n_swa_epochs)
        for name, newest in self.averaged.state_dict().items() if k > 0 else ():
            if k == 1 or not newest.is_floating_point():
                self.swa[name] = newest.clone()
            else:
                self.swa[name].lerp_(newest, 1 / k)

    def take_swa(self) -> nn.Module:
        """Load the SWA mean into `averaged`, and return that model."""
        self.averaged.load_state_dict(self.swa)
        self.averaged._compiled_call_impl = None  # torch would compile it again at each step
        return self.averaged


def reset_batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Make the batch norms of a model in eval mode average the statistics of the batches that follow. Return
    these norms. Unlike torch's `update_bn`, dropout stays off."""
    norms = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    norms = [norm for norm in norms if norm.running_mean is not None]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    return norms

"""The batches of one fold's training: their order, and how they reach the device."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from comp.batches.loader import Batch, CachedDataset, DeviceLoader
from comp.batches.rows import RowLayout
from comp.batches.sampling import Step, balanced_rows, epoch_steps, ordered_steps, oversampling_repeats
from comp.compute.distributed import ProcessGroup
from comp.config.recipe import Phase
from comp.training.training_data import FoldInputs


class FoldBatches:
    """Batches of training and held-out images, at each phase's size."""

    def __init__(self, inputs: FoldInputs, device: torch.device, n_loaders: int, ranks: ProcessGroup):
        self.inputs, self.device, self.n_loaders, self.ranks = inputs, device, n_loaders, ranks
        labels, self.train_rows = inputs.labels, inputs.train_rows
        self.layout = RowLayout.of(labels)
        self.beside = self.layout.join(labels, inputs.train_rows)  # (N, columns), what goes with each image
        targets = labels.targets[inputs.train_rows]
        self.repeats = oversampling_repeats(targets, inputs.recipe.oversample)
        if inputs.recipe.balanced:
            order, self.repeats = balanced_rows(targets)
            self.train_rows = self.train_rows[order]
        self.resident: bool | None = None  # whether the device holds all images; None: if they fit
        # of training and of held-out images, with the images' size in pixels
        self.loaders: tuple[int, DeviceLoader, DeviceLoader] | None = None

    def steps(self, phase: Phase, epoch: int) -> list[Step]:
        """Return the steps of an epoch of the run, and seed torch for its dropout."""
        seeds = (self.inputs.recipe.seed, self.inputs.fold, epoch)
        torch.manual_seed(hash((*seeds, self.ranks.rank)) % 2**31)
        return epoch_steps(self.train_rows, phase.batch_size, seeds, self.repeats)

    def training(self, phase: Phase, steps: Sequence[Step]) -> Iterator[Batch]:
        """Yield this rank's part of each batch."""
        parts = [(seed + self.ranks.rank, rows[self.ranks.share(len(rows))]) for seed, rows in steps]
        return self._loaders(phase)[0](parts)

    def held_out(self, phase: Phase, rows: np.ndarray | None = None) -> Iterator[Batch]:
        """Yield this rank's part of the held-out images or of these `rows`, in order and not augmented."""
        rows = self.inputs.valid_rows if rows is None else rows
        mine = rows[self.ranks.share(len(rows))]
        return self._loaders(phase)[1](ordered_steps(mine, self.inputs.recipe.predict_batch_size))

    def let_go(self) -> bool:
        """Free the images that the device holds, here and in later phases. Return whether there were any.
        Several ranks keep them: a rank can't repeat a step on its own."""
        held = self.ranks.size == 1 and self.loaders is not None and self.loaders[1].let_go()
        self.resident = False if held else self.resident
        return held

    def _loaders(self, phase: Phase) -> tuple[DeviceLoader, DeviceLoader]:
        if self.loaders is None or self.loaders[0] != phase.size:
            self.loaders = None  # frees its memory first
            recipe, caches = self.inputs.recipe, self.inputs.caches[phase.size]
            on_cpu = recipe.augment_on == "cpu" and not recipe.augment.nothing
            plain = CachedDataset(caches, self.beside)
            resident = False if on_cpu else self.resident
            held_out = DeviceLoader(plain, self.device, self.n_loaders, resident=resident)
            training = held_out
            if on_cpu:
                augmented = CachedDataset(caches, self.beside, recipe.augment, recipe.code)
                training = DeviceLoader(augmented, self.device, self.n_loaders, resident=False)
            self.loaders = phase.size, training, held_out
        return self.loaders[1:]

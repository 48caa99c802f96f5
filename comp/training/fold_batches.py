"""The batches of one fold's training: their order, and how they reach the device."""

from collections.abc import Iterator, Sequence

import torch

from comp.batches.loader import Batch, CachedDataset, DeviceLoader
from comp.batches.sampling import Step, epoch_steps, ordered_steps, oversampling_repeats
from comp.compute.distributed import ProcessGroup
from comp.config.recipe import Phase
from comp.training.prepare import FoldInputs


class FoldBatches:
    """Batches of training and held-out images, at each phase's size."""

    def __init__(self, inputs: FoldInputs, device: torch.device, n_loaders: int, ranks: ProcessGroup):
        self.inputs, self.device, self.n_loaders, self.ranks = inputs, device, n_loaders, ranks
        self.repeats = oversampling_repeats(
            inputs.labels.targets[inputs.train_rows], inputs.recipe.oversample
        )
        self.resident: bool | None = None  # whether the device holds all images; None: if they fit
        self.loader: tuple[int, DeviceLoader] | None = None  # and its images' size, pixels

    def steps(self, phase: Phase, epoch: int) -> list[Step]:
        """Return the steps of an epoch of the run, and seed torch for its dropout."""
        seeds = (self.inputs.recipe.seed, self.inputs.fold, epoch)
        torch.manual_seed(hash((*seeds, self.ranks.rank)) % 2**31)
        return epoch_steps(self.inputs.train_rows, phase.batch_size, seeds, self.repeats)

    def training(self, phase: Phase, steps: Sequence[Step]) -> Iterator[Batch]:
        """Yield this rank's part of each batch."""
        parts = [(seed + self.ranks.rank, rows[self.ranks.share(len(rows))]) for seed, rows in steps]
        return self._loader(phase)(parts)

    def held_out(self, phase: Phase) -> Iterator[Batch]:
        """Yield this rank's part of the held-out images, in order and not augmented."""
        loader = self._loader(phase)
        if loader.dataset.augment:
            dataset = CachedDataset(self.inputs.caches[phase.size], self.inputs.labels.targets)
            loader = DeviceLoader(dataset, self.device, self.n_loaders, resident=False)
        rows = self.inputs.valid_rows
        mine = rows[self.ranks.share(len(rows))]
        return loader(ordered_steps(mine, self.inputs.recipe.predict_batch_size))

    def _loader(self, phase: Phase) -> DeviceLoader:
        if self.loader is None or self.loader[0] != phase.size:
            self.loader = None  # frees its memory first
            recipe = self.inputs.recipe
            on_cpu = recipe.augment_on == "cpu" and not recipe.augment.nothing
            augment = recipe.augment if on_cpu else None
            dataset = CachedDataset(self.inputs.caches[phase.size], self.inputs.labels.targets, augment)
            self.loader = (
                phase.size,
                DeviceLoader(dataset, self.device, self.n_loaders, resident=self.resident),
            )
        return self.loader[1]

"""The network in training: weights, optimizer and averages, and their state for a checkpoint."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from comp.batches.loader import open_caches
from comp.batches.preprocessing import channel_statistics
from comp.compute.distributed import ProcessGroup
from comp.config.recipe import Recipe
from comp.data.labels import exclusive_groups
from comp.models import network as models
from comp.models.heads import feature_statistics
from comp.models.precision import choose_precision
from comp.training.averaging import WeightAverages
from comp.training.cast_weights import CastWeights
from comp.training.losses import IN_SOFTMAX
from comp.training.optimizer import make_optimizer, take_step
from comp.training.prepare import number_scale
from comp.training.training_data import FoldInputs
from comp.user_code import is_reference


def measures_images(recipe: Recipe) -> bool:
    """Return whether the mean and deviation that normalise images are those of the training images."""
    return recipe.normalize == "dataset" or (recipe.normalize == "auto" and bool(recipe.channels))


def make_spec(inputs: FoldInputs) -> models.ModelSpec:
    """Return the spec of the fold's network, with the mean and deviation that normalise its images."""
    recipe, last = inputs.recipe, inputs.recipe.phases[-1]
    labels, loss = inputs.labels, (last.loss or recipe.loss).split("+")
    groups = exclusive_groups(recipe.competition.labels, labels.classes)
    in_softmax = groups if set(IN_SOFTMAX) & set(loss) else ()
    features: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    if labels.features is not None:
        features = feature_statistics(labels.features[inputs.train_rows])
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    if measures_images(recipe):
        caches = inputs.caches
        mean, std = channel_statistics(open_caches(caches[min(caches)]), inputs.train_rows)
    elif recipe.normalize != "image":
        mean, std = models.pretrained_statistics(recipe.backbone)
    return models.ModelSpec(
        recipe.backbone, labels.classes, recipe.n_channels, last.size, mean, std, recipe.drop_rate,
        in_softmax, number_scale(recipe, labels.targets[inputs.train_rows]),
        recipe.scale if "arcface" in loss else 0.0, *features,
    )  # fmt: skip


class ModelState:
    """The network of a fold, with its optimizer, gradient scaler and averages."""

    def __init__(self, inputs: FoldInputs, device: torch.device, ranks: ProcessGroup):
        recipe = self.recipe = inputs.recipe
        self.device, self.ranks = device, ranks
        self.spec = make_spec(inputs)
        torch.manual_seed(recipe.seed * 1000 + inputs.fold)
        model = models.create(
            self.spec, pretrained=recipe.pretrained, weights=recipe.weights, code=recipe.code
        )
        if recipe.gradient_checkpointing:
            models.checkpoint_gradients(model, recipe.backbone)
        n_at_once = min(p.batch_size // p.accumulate for p in recipe.phases) // ranks.size
        self.model = ranks.prepare(model, device, n_at_once)
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        dtypes = [self.precision(phase.size) for phase in recipe.phases]
        self.scaler = torch.amp.GradScaler(device.type, enabled=torch.float16 in dtypes)
        self.optimizer, self.groups = make_optimizer(self.model, recipe)
        self.averages = WeightAverages(self.model, recipe.ema_decay, recipe.swa_epochs, self.groups)
        self.parameters = list(self.model.parameters())
        models.compile_network(self.model, recipe.compile, device, ranks.size)
        self.n_steps_done = 0
        self.casts: CastWeights | None = None
        self.net: tuple[bool, nn.Module] | None = None  # whether for the head only, and the module to call

    def precision(self, size: int) -> torch.dtype:
        """Return the type to compute in, for images of this size."""
        return choose_precision(self.recipe.precision, self.device, self.model, size)

    def train_module(self, head_only: bool) -> nn.Module:
        """Return the module to call in training. With `head_only` the body is frozen, its batch norms'
        statistics included."""
        self.model.train(not head_only)
        for group, settings in zip(self.groups, self.optimizer.param_groups):
            group.train(settings["head"] or not head_only)
        if self.net is None or self.net[0] != head_only:
            self.net = head_only, self.ranks.wrap(self.model, self.device)
        return self.net[1]

    def cast_weights(self, dtype: torch.dtype, n_parts: int) -> AbstractContextManager:
        """Return a context in which the network computes with weights in `dtype`. Autocast casts them where
        gradients are added up, over micro-batches in this type or over ranks; where the network is compiled;
        and for a network of the user's own, which may use its weights in another way."""
        own = is_reference(self.recipe.backbone)
        if dtype == torch.float32 or n_parts > 1 or self.ranks.size > 1 or self.recipe.compile or own:
            return nullcontext()
        if self.casts is None or self.casts.dtype != dtype:
            self.casts = CastWeights(self.model, self.groups, dtype)
        return self.casts.in_network()

    def update(self) -> None:
        """Take an optimizer step with the gradients, forget them, and update the averages."""
        for group in self.groups:
            group.take_gradients()
        take_step(self.optimizer, self.scaler, self.parameters, self.recipe.clip_norm)
        self.drop_gradients()
        self.n_steps_done += 1
        self.averages.update(self.n_steps_done)

    def drop_gradients(self) -> None:
        for group in self.groups:
            group.drop_gradients()

    def state_dict(self) -> dict[str, Any]:
        ema = self.averages.ema
        return {
            "model": self.model.state_dict(),
            "ema": ema.state_dict() if ema else None,
            "swa": self.averages.swa,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "n_steps_done": self.n_steps_done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        if self.averages.ema:
            self.averages.ema.load_state_dict(state["ema"])
        self.averages.swa = dict(state["swa"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.n_steps_done = int(state["n_steps_done"])

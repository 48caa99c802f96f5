"""Weights in bf16 or fp16, cast by one operation in a step; autocast takes one for each weight, and another
for each gradient. What is computed is the same."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from comp.training.flat_parameters import FlatGroup

LAYERS = (
    nn.Conv2d,
    nn.Linear,
)  # these types and none derived from them: their weights go to autocast's casts alone


class CastWeights:
    """The weights of a network's `LAYERS` in another type."""

    def __init__(self, model: nn.Module, groups: Sequence[FlatGroup], dtype: torch.dtype):
        self.dtype, self.groups = dtype, groups
        layers = [module for module in model.modules() if type(module) in LAYERS]
        places = {module._parameters["weight"]: module._parameters for module in layers}
        owners = Counter(p for module in model.modules() for p in module._parameters.values())
        alone = [weight for weight in places if weight is not None and owners[weight] == 1]
        casts = {p: cast for group in groups for p, cast in group.cast(alone, dtype).items()}
        self.places = [(places[weight], weight, cast) for weight, cast in casts.items()]

    @contextmanager
    def in_network(self) -> Iterator[None]:
        """Let the network compute with the weights in this type. Their gradients wait in the groups."""
        for group in self.groups:
            group.update_casts()
        for parameters, _, cast in self.places:
            parameters["weight"] = cast  # type: ignore[assignment]
        try:
            yield
        finally:
            for parameters, weight, _ in self.places:
                parameters["weight"] = weight

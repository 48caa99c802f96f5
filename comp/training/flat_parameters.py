"""Many parameters as one tensor: an optimizer step, clipping and averaging then take one operation each, and
not one per parameter."""

from collections.abc import Sequence

import torch
from torch import nn

VECTOR = 16  # numbers that a CPU updates at once; the rest of a tensor is rounded in another way


class FlatGroup:
    """Parameters with the same settings. `flats` are one tensor with all of them, and those on their own that
    don't fill whole vectors: within a larger tensor they would be rounded in another way. Each parameter
    stays where it is in the network, as a view with the strides that it had."""

    def __init__(self, parameters: Sequence[nn.Parameter]):
        self.parameters = list(parameters)
        whole = [p for p in parameters if p.numel() % VECTOR == 0]
        self.flats = [p for p in parameters if p.numel() % VECTOR]
        self.gradients = [(p, torch.zeros_like(p)) for p in self.flats]
        if whole:
            flat = nn.Parameter(torch.cat([p.data.as_strided((p.numel(),), (1,)) for p in whole]))
            gradient = torch.zeros_like(flat)
            for p, values, slope in zip(whole, _views(flat.data, whole), _views(gradient, whole)):
                p.data = values
                self.gradients.append((p, slope))
            self.flats.append(flat)
            self.gradients.append((flat, gradient))

    def train(self, on: bool) -> None:
        """Require gradients or not. They are set to zero and not freed, so that backward passes add to them
        in place. The optimizer leaves parameters without gradients as they are."""
        for parameter in self.parameters:
            parameter.requires_grad_(on)
        for parameter, gradient in self.gradients:
            parameter.grad = gradient if on else None


def _views(flat: torch.Tensor, parameters: Sequence[nn.Parameter]) -> list[torch.Tensor]:
    parts = flat.split([p.numel() for p in parameters])
    return [part.as_strided(p.shape, p.stride()) for part, p in zip(parts, parameters)]

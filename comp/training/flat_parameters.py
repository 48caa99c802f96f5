"""Many parameters as one tensor: an optimizer step, clipping and averaging then take one operation each, and
not one per parameter."""

from collections.abc import Sequence

import torch
from torch import nn

VECTOR = 16  # numbers that a CPU updates at once; the rest of a tensor is rounded in another way


class FlatGroup:
    """Parameters with the same settings. `flats` are one tensor with all of them, and those on their own that
    don't fill whole vectors: within a larger tensor they would be rounded in another way. Each parameter
    stays where it is in the network, as a view with the strides that it had.

    A backward pass leaves gradients of its own, which are gathered by one operation. With `adds` it adds to
    those of `flats`, by an operation for each parameter: memory of CUDA graphs is overwritten by the next
    micro-batch."""

    def __init__(self, parameters: Sequence[nn.Parameter], *, adds: bool = False):
        self.parameters, self.adds = list(parameters), adds
        whole = [p for p in parameters if p.numel() % VECTOR == 0]
        self.flats = [p for p in parameters if p.numel() % VECTOR]
        self.gradients = [(p, torch.zeros_like(p)) for p in self.flats]  # that the optimizer reads
        self.joined: tuple[nn.Parameter, torch.Tensor] | None = None  # the one tensor, and its gradient
        if whole:
            flat = nn.Parameter(torch.cat([p.data.as_strided((p.numel(),), (1,)) for p in whole]))
            self.joined = flat, torch.zeros_like(flat)
            for p, values, slope in zip(whole, _views(flat.data, whole), _views(self.joined[1], whole)):
                p.data = values
                self.gradients.append((p, slope))
            self.flats.append(flat)

    def train(self, on: bool) -> None:
        """Require gradients or not. The optimizer leaves parameters without gradients as they are."""
        for parameter in self.parameters:
            parameter.requires_grad_(on)
        if self.joined:
            self.joined[0].grad = self.joined[1] if on else None
        self.drop_gradients()

    def take_gradients(self) -> None:
        """Give the optimizer what backward passes left; 0 where they left nothing."""
        if not self.parameters[0].requires_grad:
            return
        found = [(slope, p.grad) for p, slope in self.gradients if p.grad is not None and p.grad is not slope]
        if found:
            torch._foreach_copy_([slope for slope, _ in found], [new for _, new in found])
        for parameter, slope in self.gradients:
            if parameter.grad is None:
                slope.zero_()
            parameter.grad = slope

    def drop_gradients(self) -> None:
        """Forget the gradients."""
        adds = self.adds and self.parameters[0].requires_grad
        if adds:
            torch._foreach_zero_([slope for _, slope in self.gradients])
        for parameter, slope in self.gradients:
            parameter.grad = slope if adds else None


def _views(flat: torch.Tensor, parameters: Sequence[nn.Parameter]) -> list[torch.Tensor]:
    parts = flat.split([p.numel() for p in parameters])
    return [part.as_strided(p.shape, p.stride()) for part, p in zip(parts, parameters)]

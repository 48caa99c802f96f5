"""Many parameters as one tensor: an optimizer step, clipping and averaging then take one operation each, and
not one per parameter."""

from collections.abc import Collection, Sequence

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
        whole = [p for p in parameters if fills_vectors(p)]
        self.flats = [p for p in parameters if not fills_vectors(p)]
        self.gradients = [(p, torch.zeros_like(p)) for p in self.flats]  # that the optimizer reads
        self.joined: tuple[nn.Parameter, torch.Tensor] | None = None  # the one tensor, and its gradient
        if whole:
            flat = nn.Parameter(join(whole))
            self.joined = flat, torch.zeros_like(flat)
            self.gradients += zip(whole, _views(self.joined[1], whole))
            self.flats.append(flat)
        self.cast_joined: torch.Tensor | None = None  # `joined` in another type
        self.casts: dict[nn.Parameter, torch.Tensor] = {}  # parts of it, with gradients of their own

    def cast(self, chosen: Collection[nn.Parameter], dtype: torch.dtype) -> dict[nn.Parameter, torch.Tensor]:
        """Return a view in `dtype` of each of these parameters that is part of the one tensor.
        `update_casts` gives them the parameters' values."""
        if not self.joined or self.adds:
            return {}
        self.cast_joined = torch.empty_like(self.joined[0], dtype=dtype, requires_grad=False)
        joined = [p for p in self.parameters if fills_vectors(p)]
        views, chosen = zip(joined, _views(self.cast_joined, joined)), set(chosen)
        self.casts = {p: view.requires_grad_(p.requires_grad) for p, view in views if p in chosen}
        return self.casts

    def update_casts(self) -> None:
        """Give the casts the parameters' values, by one operation."""
        if self.joined and self.cast_joined is not None:
            self.cast_joined.copy_(self.joined[0].data)

    def train(self, on: bool) -> None:
        """Require gradients or not. The optimizer leaves parameters without gradients as they are."""
        for parameter in (*self.parameters, *self.casts.values()):
            parameter.requires_grad_(on)
        if self.joined:
            self.joined[0].grad = self.joined[1] if on else None
        self.drop_gradients()

    def take_gradients(self) -> None:
        """Give the optimizer what backward passes left; 0 where they left nothing."""
        if not self.parameters[0].requires_grad:
            return
        left = [(slope, self._gradient(p)) for p, slope in self.gradients]
        found = [(slope, new) for slope, new in left if new is not None and new is not slope]
        if found:
            torch._foreach_copy_([slope for slope, _ in found], [new for _, new in found])
        for slope, new in left:
            if new is None:
                slope.zero_()
        for parameter, slope in self.gradients:
            parameter.grad = slope

    def drop_gradients(self) -> None:
        """Forget the gradients."""
        adds = self.adds and self.parameters[0].requires_grad
        if adds:
            torch._foreach_zero_([slope for _, slope in self.gradients])
        for parameter, slope in self.gradients:
            parameter.grad = slope if adds else None
        for cast in self.casts.values():
            cast.grad = None

    def _gradient(self, parameter: nn.Parameter) -> torch.Tensor | None:
        cast = self.casts.get(parameter)
        return parameter.grad if cast is None or cast.grad is None else cast.grad


def fills_vectors(tensor: torch.Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.numel() % VECTOR == 0


def join_all(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return those of the tensors that don't fill whole vectors, and the others as one."""
    whole = [tensor for tensor in tensors if fills_vectors(tensor)]
    return [tensor for tensor in tensors if not fills_vectors(tensor)] + ([join(whole)] if whole else [])


def join(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return one tensor with all of these, which become views of it with the strides that they had."""
    flat = torch.cat([tensor.data.as_strided((tensor.numel(),), (1,)) for tensor in tensors])
    for tensor, view in zip(tensors, _views(flat, tensors)):
        tensor.data = view
    return flat


def _views(flat: torch.Tensor, parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    parts = flat.split([p.numel() for p in parameters])
    return [part.as_strided(p.shape, p.stride()) for part, p in zip(parts, parameters)]

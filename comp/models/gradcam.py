"""Heat maps: where in an image the evidence for a label lies, of any timm network (Grad-CAM: Selvaraju et al.
2017, arXiv 1610.02391)."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from comp.batches.preprocessing import Input
from comp.errors import CompError
from comp.models.network import ModelSpec

LEAST_SIDE = 4  # cells: of small images the last stage has fewer, which tell no place
AT_ONCE = 32  # images


@torch.inference_mode(False)
@torch.no_grad()
def heat_maps(
    model: nn.Module,
    spec: ModelSpec,
    images: np.ndarray,
    classes: Sequence[Sequence[int]],
    device: torch.device,
) -> list[np.ndarray]:
    """Of each of the images (B, H, W, channels) uint8, for the classes listed for it, maps (len(classes[i]),
    h, w) float32 over the grid of `telling_layer`: 1 where most speaks for the class's logit, 0 where nothing
    does. One of zeros: nothing in the image speaks for the class.

    The network is brought to the device and left in evaluation mode; its parameters get no gradients. Raises
    CompError for a network without any grid."""
    model.to(device).eval()
    prepare = Input(spec.mean, spec.std, spec.size).to(device)
    layer: nn.Module | None = None
    maps: list[np.ndarray] = []
    for start in range(0, len(images), AT_ONCE):
        x = prepare(torch.from_numpy(np.array(images[start : start + AT_ONCE])).to(device))
        layer = layer or telling_layer(model, x[:1], spec.backbone)
        maps += _of_batch(model, layer, x, classes[start : start + AT_ONCE])
    return maps


@torch.no_grad()
def _of_batch(
    model: nn.Module, layer: nn.Module, x: torch.Tensor, classes: Sequence[Sequence[int]]
) -> list[np.ndarray]:
    start: list[torch.Tensor] = []

    def record(_layer: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        """Steps are recorded from here on, for the way back, and those before are not."""
        torch.set_grad_enabled(True)
        start[:] = [output.detach().requires_grad_()]
        return start[0].clone()  # what follows may work in place

    hook = layer.register_forward_hook(record)
    try:
        logits = model(x)
    finally:
        hook.remove()
    features = _grid(model, start[0].detach())
    maps = torch.zeros(len(x), max(map(len, classes)), *features.shape[1:3])
    for k in range(maps.shape[1]):  # one way back for the k-th class of all images
        rows = [i for i, listed in enumerate(classes) if len(listed) > k]
        chosen = logits[rows, [classes[i][k] for i in rows]].sum()
        (gradient,) = torch.autograd.grad(chosen, start, retain_graph=True)
        weights = _grid(model, gradient).mean((1, 2), keepdim=True)
        maps[:, k] = (weights * features).sum(-1).relu()
    maps /= maps.amax((2, 3), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    return [of_image[: len(listed)].numpy() for of_image, listed in zip(maps, classes)]


def telling_layer(model: nn.Module, x: torch.Tensor, backbone: str) -> nn.Module:
    """The last layer with a grid of LEAST_SIDE cells a side or more that the logits of images x depend on;
    where all are coarser, the last of the finest. Raises CompError where no layer has a grid.

    Looked at are the stages that timm names, its features before the head, and norms of tokens: with a class
    token, logits depend on the other tokens of the last block through its attention alone, which sees them
    normalised."""
    stages = {stage.get("module") for stage in getattr(model, "feature_info", ())}
    named = {module for name, module in model.named_modules() if name in stages}
    seen: list[tuple[nn.Module, torch.Tensor]] = []

    def look(module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.requires_grad and as_grid(model, output) is not None:
            seen.append((module, output))

    hooks = [module.register_forward_hook(look) for module in model.modules()]
    try:
        with torch.enable_grad():
            features = model.forward_features(x)  # type: ignore[operator]
            total = model.forward_head(features).sum()  # type: ignore[operator]
    finally:
        for hook in hooks:
            hook.remove()
    seen = [
        (module, output)
        for module, output in seen
        if module in named or output is features or (output.ndim == 3 and "Norm" in type(module).__name__)
    ]
    gradients = torch.autograd.grad(total, [output for _, output in seen], allow_unused=True) if seen else ()
    best, found = (False, 0), None
    for (module, _), gradient in zip(seen, gradients):
        if gradient is not None:
            grid = _grid(model, gradient)
            value = (bool(grid.any()), min(grid.shape[1], LEAST_SIDE))
            if value >= best:
                best, found = value, module
    if found is None:
        raise CompError(f"no layer of {backbone} has a grid over the image, so there are no heat maps of it")
    return found


def as_grid(model: nn.Module, output: torch.Tensor) -> torch.Tensor | None:
    """(B, h, w, channels) of what a layer gives for square images: channels first or last, or tokens, of
    which those of no place come first. None where it is neither."""
    if output.ndim == 4:
        _, a, b, c = output.shape
        if a == b and (b != c or getattr(model, "output_fmt", "NCHW") == "NHWC"):
            return output
        return output.permute(0, 2, 3, 1) if b == c else None
    if output.ndim == 3:
        n = output.shape[1]
        n_placeless = getattr(model, "num_prefix_tokens", n - math.isqrt(n) ** 2)
        side = math.isqrt(max(n - n_placeless, 0))
        return output[:, n_placeless:].unflatten(1, (side, side)) if 0 < side**2 == n - n_placeless else None
    return None


def _grid(model: nn.Module, output: torch.Tensor) -> torch.Tensor:
    grid = as_grid(model, output)
    assert grid is not None
    return grid.float()

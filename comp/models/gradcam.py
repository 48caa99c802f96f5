"""Heat maps of any timm network: where in an image the evidence for a label is (Grad-CAM, Selvaraju et al.
2017, arXiv 1610.02391)."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from comp.batches.preprocessing import Preprocess
from comp.errors import CompError
from comp.models.heads import image_network
from comp.models.network import ModelSpec

MIN_GRID_SIDE = 4  # cells; for small images the last stage has fewer, too coarse to locate anything
BATCH_SIZE = 32  # images


@torch.inference_mode(False)
@torch.no_grad()
def heat_maps(
    model: nn.Module,
    spec: ModelSpec,
    images: np.ndarray,
    classes: Sequence[Sequence[int]],
    device: torch.device,
) -> list[np.ndarray]:
    """Return for each image i of (B, H, W, channels) uint8 its maps (len(classes[i]), h, w) float32, one per
    class in classes[i], over the grid of `target_layer`. A map is 1 where the evidence for the class's logit
    is strongest, and 0 where there is none. It is all 0 if the image holds no evidence.

    The network is moved to the device and left in evaluation mode. Its parameters get no gradients. Raise
    CompError for a network without any grid."""
    model = image_network(model.to(device).eval())  # what features add is the same for all pixels
    prepare = Preprocess(spec.mean, spec.std, spec.size).to(device)
    layer: nn.Module | None = None
    maps: list[np.ndarray] = []
    for start in range(0, len(images), BATCH_SIZE):
        x = prepare(torch.from_numpy(np.array(images[start : start + BATCH_SIZE])).to(device))
        layer = layer or target_layer(model, x[:1], spec.backbone)
        maps += _of_batch(model, layer, x, classes[start : start + BATCH_SIZE])
    return maps


@torch.no_grad()
def _of_batch(
    model: nn.Module, layer: nn.Module, x: torch.Tensor, classes: Sequence[Sequence[int]]
) -> list[np.ndarray]:
    start: list[torch.Tensor] = []

    def record(_layer: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        """Record operations for the backward pass from this layer on, not before it."""
        torch.set_grad_enabled(True)
        start[:] = [output.detach().requires_grad_()]
        return start[0].clone()  # later layers may work in place

    hook = layer.register_forward_hook(record)
    try:
        logits = model(x)
    finally:
        hook.remove()
    features = _grid(model, start[0].detach())
    maps = torch.zeros(len(x), max(map(len, classes)), *features.shape[1:3])
    for k in range(maps.shape[1]):  # one backward pass for the k-th class of all images
        rows = [i for i, listed in enumerate(classes) if len(listed) > k]
        chosen = logits[rows, [classes[i][k] for i in rows]].sum()
        (gradient,) = torch.autograd.grad(chosen, start, retain_graph=True)
        weights = _grid(model, gradient).mean((1, 2), keepdim=True)
        maps[:, k] = (weights * features).sum(-1).relu()
    maps /= maps.amax((2, 3), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    return [of_image[: len(listed)].numpy() for of_image, listed in zip(maps, classes)]


def target_layer(model: nn.Module, x: torch.Tensor, backbone: str) -> nn.Module:
    """Return the last layer with a grid of at least MIN_GRID_SIDE cells a side that the logits of images x
    depend on. If all grids are coarser, return the last of the finest. Raise CompError where no layer has a
    grid.

    Candidates are the stages that timm names, the features before the head, and norms of tokens. With a class
    token, logits depend on the last block's other tokens only through its attention, which reads them after
    the norm."""
    stages = {stage.get("module") for stage in getattr(model, "feature_info", ())}
    named = {module for name, module in model.named_modules() if name in stages}
    seen: list[tuple[nn.Module, torch.Tensor]] = []

    def record_output(module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.requires_grad and as_grid(model, output) is not None:
            seen.append((module, output))

    hooks = [module.register_forward_hook(record_output) for module in model.modules()]
    try:
        with torch.enable_grad():
            if timms := hasattr(model, "forward_features"):
                features = model.forward_features(x)  # type: ignore[operator]
                total = model.forward_head(features).sum()  # type: ignore[operator]
            else:  # a network of the user's
                features, total = None, model(x).sum()
    finally:
        for hook in hooks:
            hook.remove()
    seen = [
        (module, output)
        for module, output in seen
        if module in named
        or output is features
        or (output.ndim == 3 and "Norm" in type(module).__name__)
        or (output.ndim == 4 and not timms)
    ]
    gradients = torch.autograd.grad(total, [output for _, output in seen], allow_unused=True) if seen else ()
    best, found = (False, 0), None
    for (module, _), gradient in zip(seen, gradients):
        if gradient is not None:
            grid = _grid(model, gradient)
            value = (bool(grid.any()), min(grid.shape[1], MIN_GRID_SIDE))
            if value >= best:
                best, found = value, module
    if found is None:
        raise CompError(f"no layer of {backbone} has a grid over the image, so it has no heat maps")
    return found


def as_grid(model: nn.Module, output: torch.Tensor) -> torch.Tensor | None:
    """Return a layer's output for square images as (B, h, w, channels). It may have channels first or last,
    or be tokens, with prefix tokens first. Return None for any other output."""
    if output.ndim == 4:
        _, a, b, c = output.shape
        if a == b and (b != c or getattr(model, "output_fmt", "NCHW") == "NHWC"):
            return output
        return output.permute(0, 2, 3, 1) if b == c else None
    if output.ndim == 3:
        n = output.shape[1]
        n_prefix = getattr(model, "num_prefix_tokens", n - math.isqrt(n) ** 2)
        side = math.isqrt(max(n - n_prefix, 0))
        return output[:, n_prefix:].unflatten(1, (side, side)) if 0 < side**2 == n - n_prefix else None
    return None


def _grid(model: nn.Module, output: torch.Tensor) -> torch.Tensor:
    grid = as_grid(model, output)
    assert grid is not None
    return grid.float()

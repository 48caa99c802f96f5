"""Pooled features of images: what the head of a network reads."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from comp.batches.preprocessing import Preprocess
from comp.compute.devices import MicroBatches
from comp.config.recipe import Recipe
from comp.errors import CompError
from comp.models.heads import CosineHead, image_network
from comp.models.network import ModelSpec
from comp.models.precision import autocast, choose_precision


@torch.inference_mode()
def pooled_features(
    recipe: Recipe,
    model: nn.Module,
    spec: ModelSpec,
    images: np.ndarray,
    rows: np.ndarray,
    place: torch.device,
    report: Callable[[int], None],
) -> np.ndarray:
    """Return (N, D) float32: what the last layer of a network reads of the rows (N,) of images
    (M, H, W, channels) uint8, at the network's size, without test-time views. `report` is called with the
    number of images of each batch that is done.

    The network is moved to the device and left in evaluation mode. Raise CompError for a network of the
    user's without a linear layer."""
    model = image_network(model.to(place, memory_format=torch.channels_last).eval())  # type: ignore[call-overload]
    prepare = Preprocess(spec.mean, spec.std, spec.size).to(place)
    found, micro_batches, size = [], MicroBatches(), recipe.predict_batch_size
    with autocast(place, choose_precision(recipe.precision, place, model)):
        for start in range(0, len(rows), size):
            batch = torch.from_numpy(np.array(images[rows[start : start + size]])).to(place)
            features = micro_batches.over(
                batch, lambda part, _: _before_head(model, prepare(part), spec.backbone).float().flatten(1)
            )
            found.append(features.cpu().numpy())
            report(len(batch))
    return np.concatenate(found)


def _before_head(model: nn.Module, x: torch.Tensor, backbone: str) -> torch.Tensor:
    if hasattr(model, "forward_features") and hasattr(model, "forward_head"):  # timm's
        return model.forward_head(model.forward_features(x), pre_logits=True)  # type: ignore[operator]
    last: list[torch.Tensor] = []

    def record(_layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        last[:] = inputs[:1]

    heads = [layer for layer in model.modules() if isinstance(layer, nn.Linear | CosineHead)]
    hooks = [layer.register_forward_pre_hook(record) for layer in heads]
    try:
        model(x)
    finally:
        for hook in hooks:
            hook.remove()
    if not last:
        raise CompError(f"{backbone} has no linear layer, so it has no pooled features")
    return last[0]

"""AdamW: parameter groups, their learning rates, and a step with clipped gradients."""

import math
from typing import Any

import torch
from torch import nn

from comp.config.recipe import Phase, Recipe
from comp.models.network import layer_depths
from comp.training.flat_parameters import FlatGroup

SLACK = 1e-3  # far more than rounding changes a norm


def make_optimizer(model: nn.Module, recipe: Recipe) -> tuple[torch.optim.Optimizer, list[FlatGroup]]:
    """Return the optimizer, and the parameters of each of its groups."""
    groups = parameter_groups(model, recipe)
    adds = recipe.compile == "reduce-overhead"
    flat = [FlatGroup(group["params"], adds=adds) for group in groups]
    flats = [{**group, "params": one.flats} for group, one in zip(groups, flat)]
    return torch.optim.AdamW(flats, lr=1e-3, fused=True), flat


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the parameters in groups: body or head; with or without weight decay (biases and norms have
    none); and, with layer_decay, by layer. `scale` is a group's share of the body's rate (Howard and Ruder
    2018)."""
    in_head = head_parameters(model)
    depth_of = layer_depths(model, recipe.backbone) if recipe.layer_decay < 1 else {}
    groups: dict[tuple[bool, bool, int], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        head = id(parameter) in in_head
        key = head, parameter.ndim > 1, 0 if head else depth_of.get(name, 0)
        groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "head": head,
            "scale": recipe.layer_decay**depth,
            "weight_decay": recipe.weight_decay if decay else 0.0,
        }
        for (head, decay, depth), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def head_parameters(model: nn.Module) -> set[int]:
    """Return the ids of the head's parameters: those of get_classifier(), which timm's networks have. A
    user's own network without it is all body."""
    if not hasattr(model, "get_classifier"):
        return set()
    heads: Any = model.get_classifier()  # type: ignore[operator]
    heads = heads if isinstance(heads, list | tuple) else [heads]
    return {id(p) for head in heads for p in head.parameters()}


def set_rates(optimizer: torch.optim.Optimizer, phase: Phase, share: float, head_only: bool) -> float:
    """Set the rates to this share of the phase's highest ones. Return the head's rate."""
    for group in optimizer.param_groups:
        body = 0.0 if head_only else phase.body_lr or phase.lr
        group["lr"] = share * (phase.lr if group["head"] else body * group["scale"])
    return share * phase.lr


def take_step(
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    parameters: list[nn.Parameter],
    clip_norm: float,
) -> None:
    """Clip the gradients, and take a step."""
    scaler.unscale_(optimizer)
    flats = [p for group in optimizer.param_groups for p in group["params"]]
    if not _surely_small(flats, clip_norm):
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        nn.utils.clip_grads_with_norm_(flats, clip_norm, norm)
    scaler.step(optimizer)
    scaler.update()


def _surely_small(flats: list[nn.Parameter], clip_norm: float) -> bool:
    """Return whether gradients need no clipping, on a CPU; a GPU would have to be waited for. A norm over
    `flats` takes fewer operations than one over all parameters, and is rounded in another way."""
    gradients = [p.grad for p in flats if p.grad is not None]
    on_cpu = all(gradient.device.type == "cpu" for gradient in gradients)
    return on_cpu and math.hypot(*map(float, torch._foreach_norm(gradients))) < clip_norm * (1 - SLACK)

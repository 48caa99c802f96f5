"""An optimizer step on all parameters as one tensor is that of torch on each of them."""

import copy

import pytest
import torch
from torch import nn

from comp.config.loading import load_recipe
from comp.models import network as models
from comp.training.optimizer import make_optimizer, parameter_groups, take_step


@pytest.mark.parametrize("compiled", ["false", "reduce-overhead"])  # the latter adds to gradients in place
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_a_step_on_flat_parameters_is_that_of_torch_to_the_last_bit(backbone: str, compiled: str):
    recipe = load_recipe("demo", ["layer_decay=0.7", "clip_norm=0.1", f"compile={compiled}"])
    spec = models.ModelSpec(backbone, ("a", "b", "c"), 3, 32, (0.5,) * 3, (0.2,) * 3)
    model = models.create(spec, pretrained=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    reference = copy.deepcopy(model)
    strides = [p.stride() for p in model.parameters()]
    recipe = recipe.model_copy(update={"backbone": backbone})
    theirs = torch.optim.AdamW(parameter_groups(reference, recipe), lr=1e-3, fused=True)
    mine, groups = make_optimizer(model, recipe)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for step in range(4):
        head_only = step < 2
        for group, settings in zip(groups, mine.param_groups, strict=True):
            group.train(settings["head"] or not head_only)
        for p, q in zip(model.parameters(), reference.parameters(), strict=True):
            q.requires_grad_(p.requires_grad)
        for network in (model, reference):
            x = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(step))
            for part in x.split(4):  # micro-batches
                network(part).square().mean().backward()
        for group in groups:
            group.take_gradients()
        take_step(mine, scaler, list(model.parameters()), 0.1)
        for group in groups:
            group.drop_gradients()
        nn.utils.clip_grad_norm_(reference.parameters(), 0.1)
        theirs.step()
        theirs.zero_grad()
        pairs = zip(model.parameters(), reference.parameters(), strict=True)
        assert all(torch.equal(p, q) for p, q in pairs), step
    assert [p.stride() for p in model.parameters()] == strides
    assert len(mine.param_groups) == len(groups) > 5

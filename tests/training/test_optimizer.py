"""An optimizer step on all parameters as one tensor is that of torch on each of them."""

import contextlib
import copy

import pytest
import torch
from torch import nn

from comp.config.loading import load_recipe
from comp.models import network as models
from comp.training.cast_weights import CastWeights
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


@pytest.mark.parametrize(
    "backbone",
    ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_nfnet", "test_byobnet"],
)
def test_weights_that_are_cast_at_once_train_as_those_that_autocast_casts(backbone: str):
    recipe = load_recipe("demo", []).model_copy(update={"backbone": backbone})
    spec = models.ModelSpec(backbone, ("a", "b", "c"), 3, 64, (0.5,) * 3, (0.2,) * 3)
    model = models.create(spec, pretrained=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    reference, scaler = copy.deepcopy(model), torch.amp.GradScaler("cpu", enabled=False)
    mine, groups = make_optimizer(model, recipe)
    theirs, their_groups = make_optimizer(reference, recipe)
    casts = CastWeights(model, groups, torch.bfloat16)
    assert len(casts.places) > 5
    for step in range(3):
        for group, settings in zip(groups, mine.param_groups, strict=True):
            group.train(settings["head"] or step > 0)  # the head alone at first
        for group, settings in zip(their_groups, theirs.param_groups, strict=True):
            group.train(settings["head"] or step > 0)
        x = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(step))
        x = x.contiguous(memory_format=torch.channels_last)
        for network, context in ((model, casts.in_network()), (reference, contextlib.nullcontext())):
            torch.manual_seed(step)  # dropout
            with context:
                with torch.autocast("cpu", torch.bfloat16):
                    loss = network(x).float().square().mean()
                loss.backward()
        for network, optimizer, of in ((model, mine, groups), (reference, theirs, their_groups)):
            for group in of:
                group.take_gradients()
            take_step(optimizer, scaler, list(network.parameters()), 1e-3 if step else 1e9)
            for group in of:
                group.drop_gradients()
        pairs = zip(model.state_dict().items(), reference.state_dict().values(), strict=True)
        assert not [name for (name, p), q in pairs if not torch.equal(p, q)], step
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_weights_that_are_used_in_another_way_are_not_cast():
    class Scaled(nn.Linear):
        """Uses its weight in fp32, as a standardised convolution does."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = nn.Linear(16, 16), Scaled(16, 16), nn.Linear(16, 16)
            self.tied, self.odd = nn.Linear(16, 16), nn.Linear(16, 3)
            self.tied.weight = self.third.weight

    model = Network()
    _, groups = make_optimizer(model, load_recipe("demo", []))
    places = CastWeights(model, groups, torch.bfloat16).places
    assert [weight for _, weight, _ in places] == [model.first.weight, model.odd.weight]

"""The weight cache sees what changes: weights, settings and layers, between and within passes."""

import copy

import pytest
import torch
from torch import nn

from ..helpers.cached import (
    MANY,
    Calls,
    assert_same_step,
    images,
    require_native,
    step,
    student,
    without_cache,
)
from ..helpers.small import SmallNet


@pytest.fixture(autouse=True)
def _native():
    require_native()


@pytest.mark.parametrize("quietly", [False, True])
def test_weights_changed_by_the_layers_own_hooks(quietly):
    """Pruning masks, norms and the like run after the cache; a change of ``.data`` is invisible."""
    model = student()

    def halve(layer, args):
        with torch.no_grad():
            (layer.weight.data if quietly else layer.weight).mul_(0.5)

    alone = without_cache(model)
    for one in (model, alone):
        one.conv2.register_forward_pre_hook(halve)
    assert_same_step(model, alone)


def test_weights_changed_by_the_models_forward_pass():
    class Changing(SmallNet):
        def forward(self, x):
            with torch.no_grad():
                self.conv2.weight.mul_(0.5)
            return super().forward(x)

    model = student(model=Changing())
    alone = without_cache(model)
    with torch.no_grad():
        assert torch.equal(model(images()), alone(images()))


def test_weights_replaced_within_the_forward_pass():
    model = student()
    other = nn.Parameter(0.5 * model.conv2.weight.detach())
    assert other._version == model.conv2.weight._version

    def replace(module, args):
        model.conv2.weight = other

    model.bn1.register_forward_pre_hook(replace)
    found = model(images())
    assert torch.equal(found, without_cache(model)(images()))
    found.sum().backward()
    assert other.grad is not None


def replaced(module: nn.Module, name: str) -> None:
    setattr(module, name, nn.Parameter(getattr(module, name).detach() * 1.3))


CHANGES = {
    "bits": lambda layer: setattr(layer.weight_quantizer, "bits", 2),
    "grad_scale": lambda layer: setattr(layer.weight_quantizer, "grad_scale", 0.7),
    "delta": lambda layer: setattr(layer.weight_quantizer, "delta", 0.9),
    "weight": lambda layer: replaced(layer, "weight"),
    "step": lambda layer: replaced(layer.weight_quantizer, "step"),
    "lower": lambda layer: replaced(layer.weight_quantizer, "lower"),
    "weight in place": lambda layer: layer.weight.data.mul_(1.3),
    "step in place": lambda layer: layer.weight_quantizer.step.data.mul_(1.3),
    "frozen weight": lambda layer: layer.weight.requires_grad_(False),
    "frozen layer": lambda layer: layer.requires_grad_(False),
    "quantizer": lambda layer: setattr(
        layer, "weight_quantizer", copy.deepcopy(layer.weight_quantizer)
    ),
    "no quantizer": lambda layer: setattr(layer, "weight_quantizer", None),
    "activations": lambda layer: setattr(layer, "act_quantizer", None),
    "hook": lambda layer: layer.register_forward_pre_hook(
        lambda layer, args: layer.weight.data.mul_(0.5)
    ),
    "computed weight": lambda layer: nn.utils.parametrize.register_parametrization(
        layer, "weight", nn.Tanh()
    ),
}
APART = ("hook", "computed weight", "delta")
ONLY = {"delta": ("ewgs",), "lower": ("ewgs",), "grad_scale": ("lsq",), "step": ("lsq",)}


@pytest.mark.parametrize(
    ("method", "change"),
    [(m, c) for c in CHANGES for m in ONLY.get(c.removesuffix(" in place"), MANY)],
)
def test_what_changes_between_two_passes(method, change):
    model = student(method, act_bits=3, act_method="pact")
    step(model)
    before = step(model)
    alone = without_cache(model)
    for one in (model, alone):
        CHANGES[change](one.conv2)
    assert_same_step(model, alone)
    with Calls() as calls:
        (y, grads), (y2, grads2) = before, step(model)
    assert calls.of[f"{MANY[method]}_forward"] == 1
    assert calls.of[f"{MANY[method].removesuffix('_many')}_forward"] == (change in APART)
    same = torch.equal(y, y2) and all(
        name in grads2
        and (grads[name] is None) == (grads2[name] is None)
        and (grads[name] is None or torch.equal(grads[name], grads2[name]))
        for name in grads
    )
    assert same == (change == "quantizer"), "what changes nothing proves nothing"


def test_a_layer_that_is_moved():
    model = student(act_bits=3)
    step(model)
    alone = without_cache(model)
    for one in (model, alone):
        one.bn1.register_forward_hook(lambda module, args, y: y.double())
        one.conv2.double().register_forward_hook(lambda module, args, y: y.float())
    assert_same_step(model, alone)


def test_a_model_that_is_moved():
    model = student(act_bits=3)
    step(model)
    alone = without_cache(model)
    for one in (model, alone):
        one.double()
    (y, grads), (y2, grads2) = (step(one, images().double()) for one in (model, alone))
    assert y.dtype == torch.float64
    assert torch.equal(y, y2)
    assert all(torch.equal(grads[name], grads2[name]) for name in grads)
    with Calls() as calls:
        step(model, images().double())
    assert calls.of["lsq_many_forward"] == 1

"""Activations with several consumers are quantized once where their quantizers are the same."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import daqakd
from daqakd.quant.activation_cache import ActivationCache
from daqakd.quant.weight_cache import WeightCache

from ..helpers.cached import Calls


class Attention(nn.Module):
    """Queries, keys and values of one input; then the input changed in place."""

    def __init__(self, change: bool = False) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(6, 6) for _ in range(3))
        self.tail = nn.Linear(6, 2)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1.0
        q, k = self.query(x), self.key(x)
        if self.change:
            x.mul_(0.5)
        return self.tail(q.softmax(1) * k + self.value(x))


def student(method: str, **options) -> nn.Module:
    torch.manual_seed(0)
    net = Attention(**options)
    made = daqakd.quantize(net, weight_bits=None, act_bits=3, method=method, first_last="same")
    return daqakd.calibrate(made, torch.randn(9, 6)).train()


def outcome(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    y = model(x)
    return y, list(torch.autograd.grad(y.square().sum(), [x, *model.parameters()]))


@pytest.mark.parametrize("training", [True, False])
def test_equal_grids_quantize_once(training):
    model, x = student("dorefa"), torch.randn(5, 6, requires_grad=True)
    with Calls() as calls, torch.set_grad_enabled(training):
        model(x)
    assert calls.of["dorefa_activation_forward"] == 2  # the three share one, the tail has its own
    alone = copy.deepcopy(model)
    WeightCache.detach(alone)
    found, wanted = outcome(model, x), outcome(alone, x)
    assert torch.equal(found[0], wanted[0])
    for a, b in zip(found[1], wanted[1], strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("method", ["lsq", "pact", "ewgs"])
def test_parameters_of_their_own_quantize_apart_unless_tied(method):
    model, x = student(method), torch.randn(5, 6, requires_grad=True)
    name = f"{method}_forward"
    with Calls() as calls:
        model(x)
    assert calls.of[name] == 4
    model.key.act_quantizer = model.value.act_quantizer = model.query.act_quantizer
    with Calls() as calls:
        model(x)
    assert calls.of[name] == 2
    alone = copy.deepcopy(model)
    WeightCache.detach(alone)
    for a, b in zip(outcome(model, x)[1], outcome(alone, x)[1], strict=True):
        torch.testing.assert_close(a, b)


def test_different_bits_quantize_apart():
    torch.manual_seed(0)
    options = {"weight_bits": None, "act_bits": 3, "method": "dorefa", "first_last": "same"}
    model = daqakd.quantize(Attention(), overrides={"key": {"act_bits": 2}}, **options)
    daqakd.calibrate(model, torch.randn(9, 6))
    with Calls() as calls:
        model(torch.randn(5, 6))
    assert calls.of["dorefa_activation_forward"] == 3


def test_an_input_changed_in_place_is_quantized_again():
    model = student("dorefa", change=True)
    x = torch.randn(5, 6)
    with Calls() as calls, torch.no_grad():
        y = model(x)
    assert calls.of["dorefa_activation_forward"] == 3
    alone = copy.deepcopy(model)
    WeightCache.detach(alone)
    assert torch.equal(y, alone(x))


def test_nothing_outlives_the_forward_pass():
    model = student("dorefa")
    model(torch.randn(5, 6))
    assert all(layer.activation_cache is None for layer in model.children())


class Mixed(Attention):
    """The first consumer needs no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            q = self.query(x)
        return self.tail(q + self.key(x))


def test_a_result_without_gradient_is_not_used_with_one():
    torch.manual_seed(0)
    options = {"weight_bits": None, "act_bits": 3, "method": "dorefa", "first_last": "same"}
    model = daqakd.quantize(Mixed(), exclude=["value"], **options)
    daqakd.calibrate(model, torch.rand(9, 6))
    x = torch.rand(5, 6, requires_grad=True)
    model(x).sum().backward()
    assert x.grad is not None
    assert x.grad.any()


class Again(Attention):
    """Two consumers within a checkpoint."""

    def forward(self, x: Tensor) -> Tensor:
        both = checkpoint(lambda v: self.query(v) + self.key(v), x, use_reentrant=False)
        return self.tail(both)


def test_a_checkpoint_repeats_what_its_first_pass_did():
    torch.manual_seed(0)
    options = {"weight_bits": None, "act_bits": 3, "method": "dorefa", "first_last": "same"}
    model = daqakd.quantize(Again(), exclude=["value"], **options)
    daqakd.calibrate(model, torch.rand(9, 6))
    x = torch.rand(5, 6, requires_grad=True)
    found = outcome_of_used(model, x)
    alone = copy.deepcopy(model)
    WeightCache.detach(alone)
    assert all(map(torch.equal, found, outcome_of_used(alone, x)))


def outcome_of_used(model: Again, x: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(model(x).square().sum(), [x, model.query.weight, model.key.weight])


def test_an_address_used_again_is_another_input():
    cache, quantizer = ActivationCache(), student("dorefa").query.act_quantizer
    x, gone = torch.rand(4), torch.rand(4)
    cache.quantize(quantizer, gone)
    (entry,) = cache.entries.values()
    cache.entries[id(x), quantizer.cache_key()] = entry
    assert torch.equal(cache.quantize(quantizer, x), quantizer(x))

"""Fused students in other modes, checkpoints, compilers and functional calls."""

import warnings
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

import daqakd
from daqakd.quant.weight_cache import WeightCache

from ..helpers.fusible import CHAINS, OpCalls, assert_alike, chains_run, images, pair, quantized
from ..helpers.small import SlimResNet


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode):
    fused, plain = pair()
    for training in (True, False):
        for model in (fused, plain):
            model.train(training)
        with mode():
            x = images()
            with OpCalls() as calls:
                y = fused(x)
            torch.testing.assert_close(y, plain(x), rtol=1e-10, atol=1e-12)
        assert len(calls) == CHAINS


def test_a_checkpoint_around_all():
    fused, plain = pair()
    outcome = []
    for model in (fused, plain):
        x = images().requires_grad_()
        y = checkpoint(model, x, use_reentrant=False)
        outcome.append(torch.autograd.grad(y.square().mean(), [x, *model.parameters()]))
    for got, wanted in zip(*outcome, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-7, atol=1e-10)


def test_compilers_and_exporters_read_the_members():
    fused, plain = pair()
    fused.eval(), plain.eval()
    WeightCache.detach(fused)
    compiled = torch.compile(fused, backend="eager", fullgraph=True)
    with OpCalls() as calls, torch.no_grad():
        torch.testing.assert_close(compiled(images()), plain(images()), rtol=1e-9, atol=1e-9)
        program = torch.export.export(fused, (images(),)).module()
        torch.testing.assert_close(program(images()), plain(images()), rtol=1e-9, atol=1e-9)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch: it is old, and quantizers branch
            traced = torch.jit.trace(fused, images(), check_trace=False)
        torch.testing.assert_close(traced(images()), plain(images()), rtol=1e-9, atol=1e-9)
    assert len(calls) == 0


def test_functional_calls_use_what_they_are_given():
    fused, plain = pair()
    state = {k: 1.01 * v if v.dim() else v.clone() for k, v in plain.state_dict().items()}
    given = {k: v.clone() for k, v in state.items()}
    with OpCalls() as calls:
        got = functional_call(fused, given, images())
    torch.testing.assert_close(got, functional_call(plain, state, images()))
    assert len(calls) == CHAINS
    assert_alike(fused, plain)
    for name, value in state.items():
        torch.testing.assert_close(given[name], value)


@pytest.mark.parametrize("method", ["lsq", "pact", "dorefa", "ewgs"])
def test_inputs_that_are_kept_as_codes(method):
    torch.manual_seed(0)
    plain = quantized(SlimResNet(), method, save="codes")
    fused = daqakd.fuse(plain)
    with OpCalls() as calls:
        assert_alike(fused, plain)
    assert len(calls) == CHAINS


def test_second_derivatives_are_refused():
    fused, _ = pair()
    x = images().requires_grad_()
    (grad,) = torch.autograd.grad(fused(x).square().mean(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot differentiate twice"):
        grad.sum().backward()


def test_arguments_with_defaults():
    fused, plain = pair(model=Options())
    assert chains_run(fused) == CHAINS
    for call in (partial(_called, twice=True), partial(_called, True), _named):
        with OpCalls() as calls:
            got = call(fused)
        torch.testing.assert_close(got, call(plain))
        assert len(calls) == (CHAINS if call is _named else 0)


def _called(*args, **kwargs) -> Tensor:
    *options, model = args
    return model(images(), *options, **kwargs)


def _named(model: nn.Module) -> Tensor:
    return model(pixels=images())


class Options(SlimResNet):
    def forward(self, pixels, twice: bool = False):
        x = super().forward(pixels)
        return 2 * x if twice else x

"""The weight cache in other modes, checkpoints, compilers and functional calls."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import daqakd

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


@pytest.fixture(autouse=True)
def _native():
    require_native()


def test_functional_call_uses_the_weights_it_is_given():
    model = student()
    other = {n: p.detach() * 1.5 for n, p in model.named_parameters()}
    wanted = without_cache(model)
    wanted.load_state_dict(other, strict=False)
    found = torch.func.functional_call(model, other, images())
    assert torch.equal(found, wanted(images()))
    assert not torch.equal(found, model(images()))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients(context):
    model = student()
    with context():
        assert torch.equal(model(images()), without_cache(model)(images()))
    assert_same_step(model, without_cache(model))


class Checkpointed(nn.Module):
    """Blocks of which some are run again in the backward pass."""

    def __init__(self, reentrant: bool, which: tuple[bool, bool, bool]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(3))
        self.tail = nn.Linear(6, 6)
        self.reentrant, self.which = reentrant, which

    def forward(self, x):
        for block, again in zip(self.blocks, self.which, strict=True):
            x = checkpoint(block, x, use_reentrant=self.reentrant) if again else block(x)
        return self.tail(self.tail(x))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # in calibrate
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("method", ["lsq", "pact", "dorefa", "ewgs"])
def test_checkpointing(method, reentrant):
    torch.manual_seed(0)
    net, x = Checkpointed(reentrant, (True, False, True)), torch.randn(5, 6, requires_grad=True)
    model = daqakd.quantize(net, weight_bits=3, act_bits=4, method=method, first_last="same")
    daqakd.calibrate(model, x.detach())
    alone = without_cache(model)
    for _ in range(3):  # the first pass finds out which layers are left out
        results = [step(one.train(), x)[1] for one in (model, alone)]
        assert None not in results[0].values()
        for name, grad in results[0].items():
            torch.testing.assert_close(grad, results[1][name])
    with Calls() as calls:
        step(model, x)
    many = MANY["dorefa" if method == "pact" else method]
    assert calls.of[f"{many}_forward"] == 1, "the rest is still quantized together"
    (hook,) = model._forward_pre_hooks.values()
    assert hook.__self__.layers == [model.blocks[1][0], model.tail]


def test_offloading_saved_tensors():
    model = student()
    with torch.autograd.graph.save_on_cpu():
        loss = model(images()).square().mean()
    loss.backward()
    assert model.conv1.weight.grad is not None


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo
def test_compiled_whole_and_in_part():
    model = student(act_bits=3)
    wanted = step(without_cache(model))
    torch._dynamo.reset()
    whole = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(step(whole)[0], wanted[0])
    part = copy.deepcopy(model)
    part.conv2 = torch.compile(part.conv2, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            torch.testing.assert_close(step(part)[0], wanted[0])

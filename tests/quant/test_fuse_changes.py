"""Fused students whose tensors or modules change after they were fused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import daqakd
from daqakd.quant.base import ActivationQuantizer
from daqakd.quant.layers import QuantLayer
from daqakd.quant.weight_cache import WeightCache

from ..helpers.fusible import CHAINS, OpCalls, assert_alike, images, pair, student


class Changing(nn.Module):
    """Something changes a tensor in place that the chain reads, or that was read of it."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 1)
        self.norm, self.fc, self.where = nn.BatchNorm2d(6), nn.Linear(6, 4), where

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        residual, kept = x * 2, x.relu()
        if self.where == "residual first":
            residual += self.norm(x)
            y = residual.relu() + residual
        else:
            y = self.norm(x)
            if self.where == "input":
                x.mul_(0.5)
            y = y + residual
            if self.where == "residual":
                residual.mul_(0.5)
            y = y.relu()
        if self.where == "activation":
            y.mul_(0.5)
        z = self.conv2(y)
        if self.where == "activation after":
            y.mul_(0.5)
        return self.fc((z + y * kept + residual + x).mean((2, 3)))


WHERE = ("nowhere", "residual first", "input", "residual", "activation", "activation after")


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_changes_in_place(where, mode):
    fused, plain = pair("pact", Changing(where))
    for training in (True, False):
        for model in (fused, plain):
            model.train(training)
        with mode():
            torch.testing.assert_close(fused(images()), plain(images()), rtol=1e-10, atol=1e-12)
    with OpCalls() as calls:
        fused(images())
    assert len(calls) == (where not in ("residual first", "input", "residual"))


def replaced_norm(model: Any) -> None:
    model.bn1 = nn.Identity()


def replaced_layer(model: Any) -> None:
    torch.manual_seed(1)
    model.blocks[0].conv2 = nn.Conv2d(4, 4, 3, 1, 1).double()


def replaced_block(model: Any) -> None:
    model.blocks[1] = nn.AdaptiveAvgPool2d(4)
    model.linear = nn.Linear(4, 10).double()


def one_block_more(model: Any) -> None:
    model.blocks.append(nn.AvgPool2d(2))


def no_quantizer(model: Any) -> None:
    model.blocks[0].conv2.act_quantizer = None


def own_forward(model: Any) -> None:
    model.blocks[0].forward = nn.Identity()


def parametrized(model: Any) -> None:
    parametrize.register_parametrization(model.blocks[0].bn1, "weight", nn.Softplus())


CHANGES = {  # how many chains do not run after it
    replaced_norm: 1,
    replaced_layer: 1,
    replaced_block: CHAINS,
    one_block_more: CHAINS,
    no_quantizer: 1,
    own_forward: CHAINS,
    parametrized: 1,
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_modules_replaced_later_are_what_runs(change):
    fused, plain = pair()
    for model in (fused, plain):
        WeightCache.detach(model)
        torch.manual_seed(4)
        change(model)
    with OpCalls() as calls:
        assert_alike(fused, plain)
    assert len(calls) == CHAINS - CHANGES[change]
    assert daqakd.summary(fused).fusion is not None


def test_quantizers_that_came_to_differ():
    """They were alike as the model was fused: one op for both."""
    fused, plain = (daqakd.fuse(m) if i == 0 else m for i, m in enumerate(two_of("dorefa")))
    assert_alike(fused, plain)
    for model in (fused, plain):
        layer: QuantLayer = model.layer2[0].downsample[0]
        assert isinstance(layer.act_quantizer, ActivationQuantizer)
        layer.act_quantizer.bits = 2
    with OpCalls() as calls:
        assert_alike(fused, plain)
    assert len(calls) == 8


def two_of(method: str) -> tuple[Any, Any]:
    return student("resnet10", method), student("resnet10", method)

"""Layers that a model also reaches past its submodules, and those with methods of their own."""

import types
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import daqakd
from daqakd.quant import QuantLinear

from ..helpers.small import SmallNet
from .test_quant import METHODS, images


class Held(nn.Module):
    """Layers in a list, a dictionary, a partial function and a bound method."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.order = [self.first]
        self.table = {"second": self.second}
        self.call = partial(self.third.forward)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.call(self.table["second"](self.order[0](x)))
        return out


def by_name(net: Held, x: Tensor) -> Tensor:
    out: Tensor = net.third(net.second(net.first(x)))
    return out


@pytest.mark.parametrize("act_bits", [4, None])
@pytest.mark.parametrize("method", METHODS)
def test_they_compute_with_what_the_submodules_do(method, act_bits):
    net, x = Held(), torch.randn(5, 4)
    student = daqakd.quantize(
        net, weight_bits=2, act_bits=act_bits, method=method, first_last="same", exclude="third"
    )
    daqakd.calibrate(student, x)
    assert torch.equal(student(x), by_name(student, x))
    assert (student(x) - net(x)).abs().max() > 1e-3
    assert type(net.order[0]) is nn.Linear, "the original was changed"
    if act_bits is None:
        plain = daqakd.dequantize(student)
        torch.testing.assert_close(plain(x), student(x))
        assert not any(isinstance(m, QuantLinear) for m in plain.modules())
        assert type(plain.order[0]) is nn.Linear
        assert isinstance(student.order[0], QuantLinear), "the student was changed"


def test_a_call_past_the_hooks_is_told():
    student = daqakd.quantize(Held(), weight_bits=2, act_bits=None, first_last="same")
    with pytest.raises(daqakd.InputError, match="third: saw no data during calibration"):
        daqakd.calibrate(student, torch.randn(5, 4))


def doubled(layer: Any, x: Tensor) -> Tensor:
    return nn.functional.conv2d(x, 2 * layer.weight, layer.bias, layer.stride, layer.padding)


@pytest.mark.parametrize("name", ["forward", "_conv_forward"])
def test_a_layer_with_a_method_of_its_own_stays_whole(name):
    net = SmallNet().eval()
    method = doubled if name == "forward" else lambda self, x, w, b: doubled(self, x)
    setattr(net.conv2, name, types.MethodType(method, net.conv2))
    student = daqakd.quantize(net, weight_bits=2, act_bits=None)
    assert type(student.conv2) is nn.Conv2d
    notes = {row.name: row.note for row in daqakd.summary(student).layers}
    assert notes["conv2"] == f"not quantized: Conv2d has its own {name}"
    assert not notes["conv1"]
    with torch.no_grad():
        assert daqakd.calibrate(student, images())(images()).isfinite().all()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_a_scripted_part_stays_whole_and_is_listed():
    net = SmallNet()
    net.fc = torch.jit.script(net.fc)
    student = daqakd.quantize(net, weight_bits=2, act_bits=2)
    notes = {row.name: row.note for row in daqakd.summary(student).layers}
    assert notes["fc"].startswith("not quantized: RecursiveScriptModule is of no type")
    assert daqakd.calibrate(student, images())(images()).isfinite().all()


def test_what_a_parametrized_weight_is_made_of_is_counted_once():
    net = SmallNet()
    bytes_before = daqakd.summary(daqakd.quantize(net, weight_bits=8, act_bits=None, exclude="fc"))
    nn.utils.parametrizations.weight_norm(net.fc)
    found = daqakd.summary(daqakd.quantize(net, weight_bits=8, act_bits=None))
    assert [row.name for row in found.layers] == ["conv1", "conv2", "fc"]
    assert found.bytes == bytes_before.bytes

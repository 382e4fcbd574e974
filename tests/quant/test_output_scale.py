"""EWGS's output scale multiplies weight and bias, with the results of a scaled output."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import daqakd

LAYERS = {
    "conv": (lambda bias: nn.Conv2d(3, 5, 3, padding=1, bias=bias), (2, 3, 6, 7)),
    "linear": (lambda bias: nn.Linear(6, 5, bias=bias), (4, 6)),
}
each_layer = pytest.mark.parametrize("name", LAYERS)
with_bias = pytest.mark.parametrize("bias", [True, False])


def layer_and_input(name: str, bias: bool = True) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    student = daqakd.quantize(make(bias), weight_bits=3, act_bits=3, method="ewgs", delta=0.1)
    x = torch.randn(shape, requires_grad=True)
    return daqakd.calibrate(student, x.detach()), x


def scaled_output(layer: Any, x: Tensor) -> Tensor:
    """Return what the method says: the layer's output times its scale."""
    q, weight = layer.act_quantizer(x), layer.quantized_weight()
    return layer.linear_map(q, weight, layer.bias) * layer.output_scale.abs()


@with_bias
@each_layer
@pytest.mark.parametrize("sign", [1, -1])
def test_output_and_gradients_are_those_of_a_scaled_output(name, bias, sign):
    layer, x = layer_and_input(name, bias)
    layer.output_scale.data.mul_(sign)
    inputs = [x, *layer.parameters()]
    y, wanted = layer(x), scaled_output(layer, x)
    torch.testing.assert_close(y, wanted)
    g = torch.randn_like(y)
    found, expected = (torch.autograd.grad(out, inputs, g) for out in (y, wanted))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


class Largest(TorchDispatchMode):
    """Lists the ATen ops that write as many elements as the output has."""

    def __init__(self, numel: int) -> None:
        super().__init__()
        self.numel = numel
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.numel() == self.numel:
            self.names.append(str(func))
        return result


@each_layer
def test_nothing_passes_over_the_output(name):
    layer, x = layer_and_input(name)
    x = x.detach().repeat(8, *[1] * (x.dim() - 1))
    with torch.no_grad(), Largest(layer(x).numel()) as written:
        layer(x)
    assert len(written.names) == 1, written.names


@each_layer
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_scale_takes_the_weights_dtype(name, dtype):
    layer, x = layer_and_input(name)
    wanted = layer(x)
    twin = copy.deepcopy(layer)
    twin.to(dtype)
    twin.output_scale.data = layer.output_scale.data
    y = twin(x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), wanted, rtol=0.1, atol=0.5)


@with_bias
@each_layer
def test_a_plain_layer_computes_the_same(name, bias):
    layer, x = layer_and_input(name, bias)
    layer.act_quantizer = None
    assert torch.equal(daqakd.dequantize(layer)(x), layer(x))


@each_layer
def test_the_scale_starts_from_the_unscaled_output(name):
    layer, x = layer_and_input(name)
    q, weight = layer.act_quantizer(x), layer.quantized_weight()
    full = layer.linear_map(x, layer.weight, layer.bias).abs().mean()
    ratio = full / layer.linear_map(q, weight, layer.bias).abs().mean()
    assert torch.equal(layer.output_scale, ratio.reshape(1))

"""What ``quantize`` takes, and what it refuses in one sentence."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm

import daqakd
from daqakd.quant import QuantConv2d, QuantLinear

from ..helpers.small import SmallNet
from .test_quant import METHODS, images


def quantized(model, **options) -> nn.Module:
    return daqakd.quantize(model, **{"weight_bits": 2, "act_bits": 2} | options)


def scripted() -> nn.Module:
    return torch.jit.script(SmallNet())


def traced() -> nn.Module:
    return torch.jit.trace(SmallNet().eval(), images())


def exported() -> nn.Module:
    return torch.export.export(SmallNet().eval(), (images(),)).module()


def student() -> nn.Module:
    return quantized(SmallNet())


def part_student() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), student())


def lazy() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.LazyLinear(2))


def others() -> nn.Module:
    return nn.Sequential(nn.LSTM(3, 4), nn.ReLU(), nn.Bilinear(4, 4, 3))


def refused() -> nn.Module:
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 3)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (scripted, "scripted or traced.*pass the module"),
        (traced, "scripted or traced.*pass the module"),
        (exported, "no layer to quantize.*exported.*pass the original"),
        (lambda: torch.export.export(SmallNet().eval(), (images(),)), "got ExportedProgram"),
        (lambda: SmallNet().state_dict(), "expected a torch.nn.Module, got OrderedDict"),
        (student, r"quantized already \(conv1 is a QuantConv2d\).*dequantize\(\)"),
        (part_student, r"quantized already \(1\.conv1"),
        (lazy, "1 is lazy.*one forward pass"),
        (others, "no layer to quantize: it has no layer of a type that is quantized, such as a"),
        (refused, "no layer to quantize.*0: its weight is computed by"),
        (lambda: nn.Linear(3, 3).requires_grad_(False), None),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.*", "ignore::UserWarning")  # torch's own
def test_models(build, message):
    if message is None:
        assert isinstance(quantized(build()), QuantLinear)
    else:
        with pytest.raises(daqakd.InputError, match=message):
            quantized(build())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exclude": 3}, "exclude: expected names or globs of layers, got 3"),
        ({"exclude": [3]}, "exclude: expected names or globs of layers, got 3"),
        ({"exclude": "fcc"}, "exclude: 'fcc' matches no.*Did you mean 'fc'"),
        ({"exclude": "*"}, "no layer to quantize: exclude="),
        ({"weight_bits": None, "act_bits": None, "first_last": "same"}, "no layer to quantize"),
        ({"overrides": ["fc"]}, r"overrides: expected a dictionary of names.*\['fc'\]"),
        ({"overrides": {"fc": 4}}, "overrides: expected a name or glob with a dictionary"),
    ],
)
def test_options(options, message):
    with pytest.raises(daqakd.InputError, match=message):
        quantized(SmallNet(), **options)


def test_exclude_takes_one_name_and_layers_that_stay_whole_anyway():
    net = SmallNet()
    assert type(quantized(net, exclude="fc").fc) is nn.Linear
    net.fc = parametrizations.weight_norm(net.fc)
    assert isinstance(quantized(net, exclude="fc").conv1, QuantConv2d)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's weight_norm
def test_weights_that_hooks_compute_are_copied_and_listed():
    for change, said in (
        (lambda layer: weight_norm(layer), "computed by a parametrization, such as weight_norm"),
        (lambda layer: prune.l1_unstructured(layer, "weight", 0.5), "its weight is pruned.*remove"),
        (lambda layer: prune.l1_unstructured(layer, "bias", 0.5), "its bias is pruned.*remove"),
        (lambda layer: parametrizations.orthogonal(layer), "computed by a parametrization"),
    ):
        net = SmallNet().eval()
        change(net.conv2)
        x = images()
        wanted = net(x)  # leaves a tensor with a graph where the weight was
        made = daqakd.calibrate(quantized(net, weight_bits=8, act_bits=8), x)
        note = next(row.note for row in daqakd.summary(made).layers if row.name == "conv2")
        assert pytest.raises(AssertionError, match=said).matches(AssertionError(note)), note
        torch.testing.assert_close(made.eval()(x), wanted, atol=0.1, rtol=0.1)
        made(x).sum().backward()
        assert all(p.grad is None for p in net.parameters()), "the copy shares a graph"


@pytest.mark.parametrize("method", METHODS)
def test_weights_that_are_all_zero(method):
    net = SmallNet()
    nn.init.zeros_(net.fc.weight)
    if method != "lsq":
        with pytest.raises(daqakd.InputError, match=r"^fc: its weight is all zero.*exclude="):
            quantized(net, method=method)
        assert quantized(net, method=method, exclude="fc") is not None
        override = {"fc": {"weight_method": "lsq"}}
        assert quantized(net, method=method, overrides=override) is not None
        return
    for per_channel in (False, True):
        made = quantized(net, per_channel=per_channel, first_last="same")
        torch.testing.assert_close(
            made.fc.weight_quantizer.step.detach(),
            torch.full_like(made.fc.weight_quantizer.step, 8**-0.5),  # 8 inputs, qmax 1
        )
        daqakd.calibrate(made, images())(images()).square().mean().backward()
        assert made.fc.weight.grad.any()


def test_weights_that_are_not_finite():
    net = SmallNet()
    net.conv2.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(daqakd.InputError, match=r"^conv2: its weight has NaN"):
        quantized(net)


@pytest.mark.parametrize("method", METHODS)
def test_weights_of_one_value(method):
    layers = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 4), nn.Linear(4, 1))
    nn.init.constant_(layers[1].weight, 0.3)
    made = quantized(layers, method=method, weight_bits=4, act_bits=4)
    if method == "ewgs":
        uppers = [layer.weight_quantizer.upper.item() for layer in made[:2]]
        assert uppers == pytest.approx([3 * abs(layers[0].weight.item()), 0.9])
    x = torch.rand(1, 1)
    y = daqakd.calibrate(made, x)(x)
    y.sum().backward()
    assert y.isfinite().all()
    assert all(p.grad.isfinite().all() for p in made.parameters())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_weights_without_elements(method):
    for layer in (nn.Linear(0, 3), nn.Linear(3, 0)):
        model = nn.Sequential(nn.Linear(4, 4), layer)
        with pytest.raises(daqakd.InputError, match=r"^1: its weight has no elements; exclude="):
            quantized(model, method=method)
        assert quantized(model, method=method, exclude="1", first_last="same") is not None

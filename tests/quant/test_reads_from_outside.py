"""Layers whose weight somebody else computes with: whole and listed, or an error."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fusion

import daqakd
from daqakd.quant import QuantLinear

from ..helpers.small import SmallNet
from .test_quant import images


def quantized(model: nn.Module, **options) -> nn.Module:
    torch.manual_seed(0)
    return daqakd.quantize(model, **{"weight_bits": 2, "act_bits": None, **options})


def notes(student: nn.Module) -> dict[str, str]:
    return {row.name: row.note for row in daqakd.summary(student).layers}


class Encoder(nn.Module):
    """A patch embedding, torch's encoder, a head."""

    def __init__(self, norm_first: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
        self.patch = nn.Linear(6, 8)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(self.patch(x), src_key_padding_mask=padding)).mean(1)


@pytest.mark.parametrize("method", ["lsq", "dorefa", "ewgs"])
@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_encoders_evaluate_the_quantized_weights(method, norm_first):
    student = quantized(Encoder(norm_first), method=method).eval()
    assert isinstance(student.encoder.layers[1].linear2, QuantLinear)
    x = torch.randn(2, 5, 6)
    padding = torch.arange(5) >= torch.tensor([[5], [3]])
    for arguments in ((x,), (x, padding)):
        wanted = student(*arguments).detach()
        plain = daqakd.dequantize(student)(*arguments).detach()
        torch.testing.assert_close(plain, wanted)
        for context in (torch.no_grad(), torch.inference_mode()):
            with context:
                torch.testing.assert_close(student(*arguments), wanted)


def test_transformer_encoders_calibrate_and_train():
    student = daqakd.calibrate(quantized(Encoder(), act_bits=3), torch.randn(4, 5, 6))
    student.train()(torch.randn(4, 5, 6)).square().mean().backward()
    assert student.encoder.layers[0].linear1.act_quantizer.step.grad is not None


class Reads(nn.Module):
    """Reads in several ways; ``this`` is what others call self."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.kept, self.late, self.deep = (nn.Linear(4, 4) for _ in range(4))
        self.inner = nn.Module()
        self.inner.proj = nn.Linear(4, 4)

    @torch.no_grad()
    def project(this, x):
        return F.linear(x, this.inner.proj.weight)

    def forward(this, x):
        x = x.to(this.kept.weight.dtype)
        if isinstance(this.kept.weight, Tensor) and this.kept.weight.shape[0]:
            x = this.kept(x)
        x = F.linear(x, this.qkv.weight, bias=this.qkv.bias)
        return this.late(this.project(x)) + (lambda y: y @ this.deep.weight)(x)


def test_layers_read_by_their_parents_stay_whole_and_are_listed():
    said = notes(quantized(Reads(), first_last="same"))
    reads = "not quantized: Reads reads its weight directly"
    assert said == dict.fromkeys(("qkv", "deep", "inner.proj"), reads) | {"kept": "", "late": ""}


class Loop(nn.Module):
    """Reads where no reader of code sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        for layer in self.layers[:2]:
            x = F.linear(x, layer.weight)
        return self.layers[2](x)


@pytest.mark.parametrize("act_bits", [None, 4])
def test_calibrate_finds_the_layers_that_never_ran(act_bits):
    student = quantized(Loop(), act_bits=act_bits)
    with pytest.raises(daqakd.InputError, match=r"layers\.0.* saw no data .* reads its weight"):
        daqakd.calibrate(student, torch.randn(3, 4))


@pytest.mark.parametrize("act_bits", [None, 4])
def test_fusing_a_batchnorm_into_a_quantized_layer_is_refused(act_bits):
    student = daqakd.calibrate(quantized(SmallNet(), act_bits=act_bits), images()).eval()
    with pytest.raises(daqakd.InputError, match=r"BatchNorm.*before quantize\(\)"):
        fusion.fuse_conv_bn_eval(student.conv1, student.bn1)
    plain = student if act_bits else daqakd.dequantize(student)
    if act_bits is None:
        x = images()
        fused = fusion.fuse_conv_bn_eval(plain.conv1, plain.bn1)
        torch.testing.assert_close(fused(x), student.bn1(student.conv1(x)))


class Standardised(nn.Conv2d):
    """A hook below forward."""

    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean(), bias)


class Extra(nn.Linear):
    """A method its owner calls."""

    def twice(self, x):
        return self(self(x))


class Renamed(nn.Linear):
    """Nothing that a forward pass would miss."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width)


def test_subclasses_keep_what_they_have_of_their_own():
    model = nn.Sequential(Standardised(3, 4, 3), nn.Flatten(), Extra(16, 16), Renamed(16))
    student = quantized(model, weight_bits=8, first_last="same").eval()
    said = notes(student)
    assert "Standardised has its own _conv_forward" in said["0"]
    assert "Extra has its own twice" in said["2"]
    assert isinstance(student[3], QuantLinear)
    assert student[2].twice(torch.ones(16)).shape == (16,)
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(student(x), model(x), atol=0.05, rtol=0.05)

"""Hugging Face's ``Conv1D``: a class of that name, and the real one where it is installed."""

import copy
import sys
import types

import pytest
import torch
from torch import Tensor, nn

import daqakd
from daqakd.quant.grids import weight_codes
from daqakd.quant.layers import QuantLayer

from .test_quant import METHODS

HOME = "transformers.pytorch_utils"


class Conv1D(nn.Module):
    """What the library has, in as many words."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.empty(nx, nf)), nn.Parameter(torch.zeros(nf))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x_out = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return x_out.view(*x.size()[:-1], self.nf)


Conv1D.__module__ = HOME


@pytest.fixture(params=["a stand-in", "the real one"])
def kind(request, monkeypatch):
    if request.param == "the real one":
        return pytest.importorskip(HOME, reason="transformers is not installed").Conv1D
    for name in ("transformers", HOME):  # a class is pickled by its module
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    vars(sys.modules[HOME])["Conv1D"] = Conv1D
    return Conv1D


def block(kind: type, width: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(kind(10, width), nn.GELU(), kind(4, 10))


def student_of(model: nn.Module, x: Tensor, **options) -> nn.Module:
    given: dict = {"weight_bits": 3, "act_bits": 4, "first_last": "same"} | options
    return daqakd.calibrate(daqakd.quantize(model, **given), x)


X = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))


def test_it_is_known_by_its_name_and_module(kind):
    model = block(kind)
    student = student_of(model, X, per_channel=True)
    assert isinstance(student[0], kind)
    assert isinstance(student[0], QuantLayer)
    assert type(student[0]) is type(student[2])
    assert student[0].weight_quantizer.step.shape == (10,)
    assert model.state_dict().keys() <= student.state_dict().keys()
    row = daqakd.summary(student).layers[0]
    assert (row.kind, row.granularity, row.macs) == ("Conv1D", "channel", 5 * 6 * 10)

    class Conv1D(nn.Module):  # of another module
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 2))

    model.add_module("3", Conv1D())
    assert not isinstance(daqakd.quantize(model, weight_bits=2, act_bits=None)[3], QuantLayer)


@pytest.mark.parametrize("per_channel", [False, True])
def test_values_and_gradients_are_those_of_the_formula(kind, per_channel):
    layer = block(kind)[0].double()
    x = X.double().requires_grad_()
    student = student_of(layer, x, per_channel=per_channel)
    s = student.weight_quantizer.step.detach().double().requires_grad_()
    w = layer.weight.detach().requires_grad_()
    g = (w.numel() / len(s) * 3) ** -0.5
    by = (s - s * g).detach() + s * g  # broadcasts along the last axis, that of the outputs
    ratio = (w / by).clamp(-4, 3)
    wanted = student.act_quantizer(x).detach() @ ((ratio + (ratio.round() - ratio).detach()) * by)
    found = student(x)
    torch.testing.assert_close(found, wanted + layer.bias)
    found.square().sum().backward()
    (wanted + layer.bias).square().sum().backward()
    torch.testing.assert_close(student.weight.grad, w.grad)
    torch.testing.assert_close(student.weight_quantizer.step.grad.double(), s.grad)
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_ways_out_and_copies_give_the_same_outputs(kind, method, tmp_path):
    student = student_of(block(kind), X, method=method, per_channel=method == "lsq").eval()
    wanted = student(X)
    assert torch.equal(copy.deepcopy(student)(X), wanted)
    torch.save(student, tmp_path / "whole")
    assert torch.equal(torch.load(tmp_path / "whole", weights_only=False)(X), wanted)
    for packed in (True, False):
        daqakd.save(student, tmp_path / "a", packed=packed)
        assert torch.equal(daqakd.load(tmp_path / "a", block(kind))(X), wanted)
    assert weight_codes(student[0]).shape == (6, 10)
    student.train()(X).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())
    program = torch.export.export(student.eval(), (X,))
    torch.testing.assert_close(program.module()(X), wanted)


@pytest.mark.parametrize("method", METHODS)
def test_weights_alone_come_back_as_the_plain_layer(kind, method):
    student = student_of(block(kind), X, method=method, act_bits=None)
    plain = daqakd.dequantize(student)
    assert type(plain[0]) is kind
    torch.testing.assert_close(plain(X), student(X))


def test_codes_kept_for_backward_give_the_same_gradients(kind):
    students = [student_of(block(kind), X, save=save) for save in ("values", "codes")]
    for student in students:
        student(X).square().sum().backward()
    for one, other in zip(*(s.parameters() for s in students), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_dorefa_is_rescaled_by_the_width_of_the_output(kind):
    model = nn.Sequential(kind(5, 6), nn.BatchNorm1d(5), kind(6, 5), nn.BatchNorm1d(5))
    student = daqakd.quantize(model, weight_bits=4, act_bits=None, method="dorefa")
    assert student[0].weight_quantizer.rescale is None
    assert student[2].weight_quantizer.rescale is not None

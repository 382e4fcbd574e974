"""Additions and products placed in a model: plain until quantize gives them their quantizers."""

import copy

import pytest
import torch
from torch import Tensor, nn

import daqakd
from daqakd.quant.base import ActivationQuantizer
from daqakd.quant.passing import pass_through

from .test_quant import METHODS

each_method = pytest.mark.parametrize("method", METHODS)
X = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))


class Attention(nn.Module):
    """Two products and a sum of activations, between layers."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.scores, self.mix = daqakd.nn.QuantMatMul(), daqakd.nn.QuantMatMul()
        self.add = daqakd.nn.QuantAdd()
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.scores(self.q(x), self.k(x).mT).softmax(-1)
        out: Tensor = self.out(self.add(x, self.mix(weights, self.v(x))))
        return out


def student_of(**options) -> nn.Module:
    torch.manual_seed(0)
    given: dict = {"weight_bits": 4, "act_bits": 4} | options
    return daqakd.calibrate(daqakd.quantize(Attention(), **given), X)


def rows(student: nn.Module) -> dict:
    return {row.name: row for row in daqakd.summary(student).layers}


def test_they_are_plain_operations_without_a_state():
    a, b = torch.randn(2, 3, 4), torch.randn(2, 4, 5)
    add, matmul = daqakd.nn.QuantAdd(), daqakd.nn.QuantMatMul()
    assert torch.equal(matmul(a, b), a @ b)
    assert torch.equal(add(a, b[0, :, :1].mT), a + b[0, :, :1].mT)
    assert not add.state_dict()
    assert not matmul.state_dict()


def test_names_widths_and_operations():
    student = student_of(
        exclude=["scores"], overrides={"add": {"act_bits": 8}, "m*": {"act_method": "pact"}}
    )
    assert not student.scores.is_quantized
    found = {
        n: (r.kind, r.weight_bits, r.act_bits, r.method, r.macs, r.bytes)
        for n, r in rows(student).items()
    }
    assert found["scores"] == ("QuantMatMul", 32, 32, "fp", 5 * 5 * 8, 0)
    assert found["mix"] == ("QuantMatMul", 32, 4, "fp/pact", 5 * 5 * 8, 0)
    assert found["add"] == ("QuantAdd", 32, 8, "fp/lsq", 0, 0)
    assert rows(student)["scores"].note == "not quantized: left in full precision"
    assert rows(student)["mix"].bit_ops == 5 * 5 * 8 * 4 * 4
    steps = [getattr(student.add, part).act_quantizer.step.item() for part in ("left", "right")]
    assert rows(student)["add"].act_step == pytest.approx(sum(steps) / 2)
    summary = daqakd.summary(student)
    assert summary.uncounted == []
    assert summary.first_last.endswith("(8 bits): q, out")
    left = student.mix.left.act_quantizer
    assert (left.name, left.uniform, left.is_signed) == ("mix.left.act_quantizer", True, False)
    assert not student.add.left.act_quantizer.uniform
    assert student.mix.right.act_quantizer.is_signed
    assert not student_of(act_bits=None).mix.is_quantized


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"overrides": {"add": {"weight_bits": 4}}},
            "add has no weight_bits; its widths are given",
        ),
        ({"exclude": ["ad"]}, "'ad' matches no layer that can be quantized. Did you mean 'add'"),
    ],
)
def test_what_cannot_be_meant(options, message):
    with pytest.raises(daqakd.InputError, match=message):
        student_of(**options)


def test_what_is_quantized_already_is_refused():
    model = nn.Sequential(
        daqakd.quantize(Attention(), weight_bits=4, act_bits=4).add, nn.Linear(2, 2)
    )
    with pytest.raises(daqakd.InputError, match=r"quantized already \(0 is a QuantAdd"):
        daqakd.quantize(model, weight_bits=2, act_bits=2)


def test_one_that_never_ran_is_told():
    student = daqakd.quantize(Attention(), weight_bits=4, act_bits=4)
    student.mix.forward = torch.matmul
    with pytest.raises(daqakd.InputError, match=r"mix\.left\.act_quantizer: saw no data"):
        daqakd.calibrate(student, X)


def lsq(x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    scale = (x[0].numel() * high) ** -0.5
    step = (step - step * scale).detach() + step * scale
    ratio = (x / step).clamp(low, high)
    return (ratio + (ratio.round() - ratio).detach()) * step


class Alone(nn.Module):
    def __init__(self, operation: nn.Module) -> None:
        super().__init__()
        self.operation, self.head = operation, nn.Linear(1, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.operation(x, y)
        return out + 0 * self.head(out[:1, :1, :1]).sum()


@pytest.mark.parametrize("name", ["QuantAdd", "QuantMatMul"])
def test_values_and_gradients_are_those_of_the_formula(name):
    x, y = torch.randn(3, 4, 4).double(), torch.rand(3, 4, 4).double()
    model = Alone(getattr(daqakd.nn, name)()).double()
    student = daqakd.quantize(model, weight_bits=None, act_bits=3, first_last="fp")
    daqakd.calibrate(student, {"x": x, "y": y})
    left, right = student.operation.left.act_quantizer, student.operation.right.act_quantizer
    ours, theirs = [[t.clone().requires_grad_() for t in (x, y)] for _ in range(2)]
    steps = [q.step.detach().double().requires_grad_() for q in (left, right)]
    a, b = lsq(theirs[0], steps[0], -4, 3), lsq(theirs[1], steps[1], 0, 7)
    wanted = a + b if name == "QuantAdd" else a @ b
    found = student(*ours)
    torch.testing.assert_close(found, wanted)
    pull = torch.randn_like(wanted)
    (found * pull).sum().backward()
    (wanted * pull).sum().backward()
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, two.grad)
    for quantizer, step in zip((left, right), steps, strict=True):
        torch.testing.assert_close(quantizer.step.grad.double(), step.grad)


@each_method
def test_eight_bits_are_close_to_the_plain_operation(method):
    """EWGS's values too, which a layer takes from [0, 1]."""
    x, y = 0.9 * torch.rand(3, 4, 4) + 0.05, -torch.rand(3, 4, 4)
    for name, wanted in (("QuantAdd", x + y), ("QuantMatMul", x @ y)):
        model = Alone(getattr(daqakd.nn, name)())
        student = daqakd.quantize(
            model, weight_bits=None, act_bits=8, method=method, first_last="fp"
        )
        torch.testing.assert_close(
            daqakd.calibrate(student, {"x": x, "y": y})(x, y), wanted, atol=0.05, rtol=0.05
        )
        pass_through(student, True)
        torch.testing.assert_close(student(x, y), wanted)


@each_method
def test_training_files_copies_and_export(method, tmp_path):
    student = student_of(method=method).train()
    optimizer = torch.optim.SGD(daqakd.param_groups(student, 0.01, 0.0))
    student(X).square().mean().backward()
    missing = [
        n for n, p in student.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert not missing
    optimizer.step()
    wanted = student.eval()(X)
    assert torch.equal(copy.deepcopy(student)(X), wanted)
    for packed in (True, False):
        daqakd.save(student, tmp_path / "a", packed=packed)
        assert torch.equal(daqakd.load(tmp_path / "a", Attention())(X), wanted)
    with pytest.raises(daqakd.InputError, match=r"mix\.left\.act_quantizer is .*absent here"):
        packed or daqakd.load(
            tmp_path / "a", student_of(method=method, overrides={"mix": {"act_bits": None}})
        )
    program = torch.export.export(student, (X,))
    assert not [n for n in program.graph.nodes if "daqakd" in str(n.target)]
    torch.testing.assert_close(program.module()(X), wanted)


def test_dequantize_leaves_plain_operations():
    with pytest.warns(UserWarning, match="activations are no longer"):
        plain = daqakd.dequantize(student_of())
    assert type(plain.add) is daqakd.nn.QuantAdd
    assert not any(isinstance(m, ActivationQuantizer) for m in plain.modules())
    assert plain.state_dict().keys() == Attention().state_dict().keys()
    a, b = torch.randn(2, 2), torch.randn(2, 2)
    assert torch.equal(plain.mix(a, b), a @ b)


def test_deltas_by_the_hessian_reach_them():
    student = student_of(method="ewgs", delta="hessian")
    found = daqakd.update_delta(student, lambda x: student(x).square().mean(), [X])
    assert {"add.left.act_quantizer", "mix.right.act_quantizer"} <= found.keys()


class Residual(nn.Module):
    """A sum of a BatchNorm and a shortcut, placed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.add, self.fc = daqakd.nn.QuantAdd(), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.conv1(x)))
        out: Tensor = self.fc(torch.relu(self.add(x, self.norm2(self.conv2(x)))))
        return out


def test_chains_beside_them_are_fused():
    x = torch.randn(2, 3, 6, 6)
    student = daqakd.calibrate(daqakd.quantize(Residual(), weight_bits=4, act_bits=4), x).eval()
    fused = daqakd.fuse(student)
    assert list(daqakd.summary(fused).fusion.fused) == ["norm1"]
    torch.testing.assert_close(fused(x), student(x))

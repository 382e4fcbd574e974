"""Convolutions of one and three dimensions, and transposed ones: right axis, right everywhere."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import daqakd
from daqakd import quant
from daqakd.quant.grids import weight_codes, weight_grid
from daqakd.quant.layers import QuantLayer

from ..helpers.cached import MANY, Calls, require_native
from .test_quant import METHODS

# the layer in the middle, and the shape of its input
LAYERS = {
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3, 2, padding=1, padding_mode="circular"), (3, 4, 9)),
    "Conv1d-groups": (lambda: nn.Conv1d(4, 6, 3, groups=2, bias=False), (3, 4, 9)),
    "Conv3d": (lambda: nn.Conv3d(2, 5, (1, 3, 2), dilation=(1, 2, 1)), (2, 2, 3, 7, 4)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 6, 3, 2, output_padding=1), (3, 4, 5)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, bias=False), (3, 4, 5, 3)),
    "ConvTranspose2d-groups": (lambda: nn.ConvTranspose2d(4, 6, 2, groups=2), (3, 4, 5, 3)),
    "ConvTranspose2d-depthwise": (lambda: nn.ConvTranspose2d(4, 4, 3, groups=4), (3, 4, 5, 3)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 3, (1, 2, 3), (1, 2, 1)), (2, 2, 3, 2, 4)),
}
each_layer = pytest.mark.parametrize("name", LAYERS)
each_method = pytest.mark.parametrize("method", METHODS)


def axis_of(name: str) -> int:
    return 1 if "Transpose" in name else 0


def case(name: str, **options) -> tuple[nn.Module, nn.Module, Tensor]:
    """Return a layer, its calibrated student and an input with negative values, float64."""
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer, x = make().double(), torch.randn(*shape).double()
    given: dict[str, Any] = {"weight_bits": 3, "act_bits": 4, "first_last": "same"} | options
    return layer, daqakd.calibrate(daqakd.quantize(layer, **given), x), x


@each_layer
def test_types_keys_and_widths(name):
    layer, student, _ = case(name, per_channel=True)
    kind = name.partition("-")[0]
    assert type(student) is getattr(quant, f"Quant{kind}")
    assert isinstance(student, type(layer))
    assert layer.state_dict().keys() <= student.state_dict().keys()
    assert student.weight_quantizer.step.shape == (layer.weight.shape[axis_of(name)],)
    row = daqakd.summary(student).layers[0]
    assert (row.kind, row.granularity, row.weight_bits) == (kind, "channel", 3)


def rounded(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


def lsq(x: Tensor, step: Tensor, low: int, high: int, scale: float) -> Tensor:
    """Quantize by a step that broadcasts; its gradient scaled [LSQ]."""
    step = (step - step * scale).detach() + step * scale
    return rounded((x / step).clamp(low, high)) * step


@each_layer
@pytest.mark.parametrize("per_channel", [False, True])
def test_values_and_gradients_are_those_of_the_formula(name, per_channel):
    layer, student, x = case(name, per_channel=per_channel)
    steps = student.weight_quantizer.step.detach().requires_grad_()
    shape = [-1 if i == axis_of(name) else 1 for i in range(layer.weight.dim())]
    by = steps.view(shape) if per_channel else steps
    numbers = layer.weight.numel() / len(steps)
    weight = lsq(layer.weight, by, -4, 3, (numbers * 3) ** -0.5)
    act = student.act_quantizer.step.detach().requires_grad_()
    quantized = lsq(x, act, -8, 7, (x[0].numel() * 7) ** -0.5)
    wanted = torch.func.functional_call(layer, {"weight": weight}, (quantized,))
    pull = torch.randn_like(wanted)
    (wanted * pull).sum().backward()
    found = student(x)
    (found * pull).sum().backward()
    torch.testing.assert_close(found, wanted)
    pairs = [(student.weight, layer.weight), (student.act_quantizer.step, act)]
    for ours, theirs in [*pairs, (student.weight_quantizer.step, steps)]:
        torch.testing.assert_close(ours.grad.double(), theirs.grad.double(), rtol=1e-6, atol=1e-6)


@each_layer
@each_method
def test_every_method_computes_with_the_quantized_tensors(name, method):
    layer, student, x = case(name, method=method)
    scale = 1 if student.output_scale is None else student.output_scale.detach().abs()
    q, w = student.act_quantizer(x).detach(), student.weight_quantizer(student.weight).detach()
    w = (w * scale).requires_grad_()
    parameters = {"weight": w} | ({} if layer.bias is None else {"bias": layer.bias * scale})
    wanted = torch.func.functional_call(layer, parameters, (q,))
    torch.testing.assert_close(student(x), wanted)
    student(x).square().sum().backward()
    wanted.square().sum().backward()
    if method == "ewgs":
        one = (student.weight_quantizer.lower < student.weight) & (
            student.weight < student.weight_quantizer.upper
        )
        width = (student.weight_quantizer.upper - student.weight_quantizer.lower) / 2
        torch.testing.assert_close(student.weight.grad[one], (w.grad * scale / width)[one])
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())


@each_layer
@pytest.mark.parametrize("method", MANY)  # of weights
def test_ways_out_and_copies_give_the_same_outputs(name, method, tmp_path):
    layer, student, x = case(name, method=method, per_channel=method == "lsq")
    layer, student, x = layer.float(), student.float().eval(), x.float()
    wanted = student(x)
    assert torch.equal(copy.deepcopy(student)(x), wanted)
    for packed in (True, False)[: 1 + (method == "lsq")]:
        daqakd.save(student, tmp_path / "a", packed=packed)
        assert torch.equal(daqakd.load(tmp_path / "a", layer)(x), wanted)
    codes = weight_codes(student)
    assert codes.shape == layer.weight.shape
    if (grid := weight_grid(student)) is not None:
        assert ((grid.levels(codes) - grid.clamp(student.weight)).abs() <= grid.step).all()
    if method == "lsq":
        torch.testing.assert_close(grid.levels(codes), student.quantized_weight())


@each_layer
@each_method
def test_weights_alone_come_back_as_the_plain_layer(name, method):
    layer, student, x = case(name, method=method, act_bits=None, per_channel=method == "lsq")
    plain = daqakd.dequantize(student)
    assert type(plain) is type(layer)
    assert plain.state_dict().keys() == layer.state_dict().keys()
    torch.testing.assert_close(plain(x), student(x))


@each_layer
@each_method
def test_codes_kept_for_backward_give_the_same_gradients(name, method):
    _, values, x = case(name, method=method)
    _, codes, _ = case(name, method=method, save="codes")
    for student in (values.float(), codes.float()):
        student(x.float()).square().sum().backward()
    for one, other in zip(values.parameters(), codes.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_codes_are_what_a_transposed_convolution_keeps():
    _, student, x = case("ConvTranspose2d", save="codes")
    kept = []
    original = quant.saved_codes._Keeper.pack

    def pack(self, y):
        kept.append(type(original(self, y)).__name__)
        return original(self, y)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quant.saved_codes._Keeper, "pack", pack)
        student(x)
    assert "_KeptCodes" in kept


@pytest.mark.parametrize("name", ["ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"])
@pytest.mark.parametrize("passing", [False, True])
def test_the_size_of_the_output_may_be_chosen(name, passing):
    layer, student, x = case(name, act_bits=None)
    student.passing = passing
    weight = layer.weight if passing else student.quantized_weight()
    for chosen in (1, 0):
        size = [
            n + (chosen if s > 1 else 0) for n, s in zip(least(layer, x), layer.stride, strict=True)
        ]
        wanted = torch.func.functional_call(layer, {"weight": weight}, (x,), {"output_size": size})
        assert list(wanted.shape[2:]) == size
        torch.testing.assert_close(student(x, output_size=size), wanted)
        torch.testing.assert_close(student(x, size), wanted)
    with pytest.raises(ValueError, match="requested an output size"):
        student(x, output_size=[99] * len(layer.stride))


def least(layer, x: Tensor) -> list[int]:
    geometry = zip(x.shape[2:], layer.stride, layer.padding, layer.kernel_size, strict=True)
    return [(n - 1) * stride - 2 * padding + kernel for n, stride, padding, kernel in geometry]


@pytest.mark.parametrize("name", ["Conv1d", "Conv3d", "ConvTranspose2d"])
def test_inputs_without_a_batch(name):
    _, student, x = case(name)
    torch.testing.assert_close(student(x[0]), student(x)[0])


class Decoder(nn.Module):
    """Transposed convolutions in a row, with BatchNorm of another and of the same width."""

    def __init__(self) -> None:
        super().__init__()
        self.up1 = nn.ConvTranspose2d(3, 8, 2, groups=1)
        self.norm = nn.BatchNorm2d(8)
        self.up2 = nn.ConvTranspose2d(8, 6, 2, groups=2)
        self.norm2 = nn.BatchNorm2d(6)
        self.up3 = nn.ConvTranspose2d(6, 3, 2)
        self.conv1, self.conv2 = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm2(self.up2(torch.relu(self.norm(self.up1(x)))))
        out: Tensor = self.conv2(self.conv1(self.up3(x)))
        return out


def test_dorefa_is_rescaled_by_the_width_of_the_output():
    student = daqakd.quantize(Decoder(), weight_bits=4, act_bits=None, method="dorefa")
    layers = [m for m in student.modules() if isinstance(m, QuantLayer)]
    assert [x.weight_quantizer.rescale is None for x in layers] == [True, True, False, False, False]


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_call_for_all_weights_is_right_for_every_axis(per_channel):
    require_native()
    student = daqakd.quantize(
        Decoder(), weight_bits=3, act_bits=None, per_channel=per_channel, first_last="same"
    )
    x = torch.randn(2, 3, 4, 4)
    with Calls() as calls:
        found = student(x)
    alone = 3 if per_channel else 0
    assert calls.of["lsq_forward"] == alone
    assert calls.of["lsq_many_forward"] == 1
    found.square().sum().backward()
    twin = copy.deepcopy(student)
    twin.zero_grad()
    quant.weight_cache.WeightCache.detach(twin)
    other = twin(x)
    other.square().sum().backward()
    assert torch.equal(found, other)
    for one, two in zip(student.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one.grad, two.grad)


@pytest.mark.parametrize("method", ["lsq", "ewgs"])
def test_oscillating_weights_are_held_at_their_levels(method):
    from daqakd.train.steadying import Damping, Freezing

    student = daqakd.quantize(
        Decoder(), weight_bits=3, act_bits=None, method=method, per_channel=method == "lsq"
    )
    layers = [m for m in student.modules() if isinstance(m, QuantLayer)]
    part = Freezing(layers, -1.0)
    part.before_epoch(0)
    before = [weight_codes(layer) for layer in layers]
    part.after_step(1)  # the frequency 0 is above the threshold
    for layer, codes in zip(layers, before, strict=True):
        assert torch.equal(weight_codes(layer), codes)
        torch.testing.assert_close(layer.weight.detach(), weight_grid(layer).levels(codes))
    student(torch.randn(2, 3, 4, 4)).sum().backward()
    gradients = [layer.weight.grad.clone() for layer in layers]
    Damping(layers, 1.0, 1).after_backward(1)
    for layer, gradient in zip(layers, gradients, strict=True):
        torch.testing.assert_close(layer.weight.grad, gradient, atol=1e-5, rtol=1e-5)


def test_a_chain_before_them_is_fused():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)
            self.up, self.norm2, self.last = (
                nn.ConvTranspose1d(4, 4, 3),
                nn.BatchNorm1d(4),
                nn.Conv1d(4, 2, 1),
            )

        def forward(self, x):
            x = torch.relu(self.norm(self.conv(x)))
            return self.last(torch.relu(self.norm2(self.up(x))))

    x = torch.randn(4, 3, 9)
    student = daqakd.calibrate(daqakd.quantize(Net(), weight_bits=3, act_bits=3), x).eval()
    fused = daqakd.fuse(student)
    assert len(daqakd.summary(fused).fusion.fused) == 2
    torch.testing.assert_close(fused(x), student(x))


@each_method
def test_exported_and_trained(method):
    x = torch.randn(2, 3, 4, 4)
    student = daqakd.quantize(Decoder(), weight_bits=3, act_bits=3, method=method)
    daqakd.calibrate(student, x)
    optimizer = torch.optim.SGD(daqakd.param_groups(student, 0.01, 0.0))
    before = student.up2.weight.detach().clone()
    student.train()(x).square().mean().backward()
    optimizer.step()
    assert not torch.equal(student.up2.weight, before)
    program = torch.export.export(student.eval(), (x,))
    assert not [n for n in program.graph.nodes if "daqakd" in str(n.target)]
    torch.testing.assert_close(program.module()(x), student(x))

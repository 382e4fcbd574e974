"""Calibration: signs, and where each method's parameters start."""

import copy

import pytest
import torch
from torch import nn

import daqakd
from daqakd.quant import QuantConv2d
from daqakd.quant.base import ActivationQuantizer

from ..helpers.small import SmallNet
from .test_quant import calibrated, images


def test_forward_before_calibration_names_the_layer():
    student = daqakd.quantize(SmallNet(), weight_bits=2, act_bits=2)
    with pytest.raises(daqakd.InputError, match=r"conv1\.act_quantizer.*calibrate"):
        student(images())


def test_calibrate_finds_signs_and_touches_nothing_else():
    student = daqakd.quantize(SmallNet(), weight_bits=2, act_bits=2)
    before = copy.deepcopy(student.state_dict())
    student.train()
    daqakd.calibrate(student, [(images(), None), (images(), None)])
    assert student.training
    assert student.conv1.act_quantizer.is_signed
    assert not student.conv2.act_quantizer.is_signed
    own = ("step", "signed", "calibrated", "macs")
    for key, value in student.state_dict().items():
        if not key.endswith(own) or "weight_quantizer" in key:
            assert torch.equal(value, before[key]), key


def settled(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """Let BatchNorms know the statistics of ``x``."""
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = None
    model(x)
    return model


def convolutions(depth: int, x: torch.Tensor) -> nn.Module:
    """Return convolutions whose BatchNorms know the statistics of ``x``."""
    layers = [(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU()) for _ in range(depth)]
    return settled(nn.Sequential(*(part for layer in layers for part in layer)), x)


@pytest.mark.parametrize("method", ["pact", "dorefa"])
def test_dorefa_weights_of_deep_models_do_not_overflow_while_signs_are_found(method):
    x = torch.randn(4, 8, 8, 8)
    student = daqakd.quantize(convolutions(48, x), weight_bits=4, act_bits=4, method=method)
    assert daqakd.calibrate(student, x)(x).isfinite().all()
    signed = [m.is_signed for m in student.modules() if isinstance(m, ActivationQuantizer)]
    assert signed == [True] + [False] * 47


class Mixing(nn.Module):
    """A depthwise convolution beside a shortcut, then one of single pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.space = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.channels = nn.Conv2d(width, width, 1)
        self.first, self.second = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.first(nn.functional.gelu(self.space(x)))
        return self.second(nn.functional.gelu(self.channels(x)))


def test_ewgs_starts_deep_models_by_what_training_sees():
    x = torch.randn(2, 32, 8, 8)
    model = settled(nn.Sequential(*(Mixing(32) for _ in range(32))), x)
    student = daqakd.quantize(model, weight_bits=4, act_bits=4, method="ewgs")
    daqakd.calibrate(student, x)
    ranges = [m.act_quantizer.upper.item() for m in student.modules() if isinstance(m, QuantConv2d)]
    assert max(ranges) < 10, "training's activations have a deviation of 1, and sums of them of 1.4"


def test_dorefa_weights_do_not_blow_up_the_starting_values():
    x = torch.randn(4, 8, 8, 8)
    model = convolutions(6, x)
    student = daqakd.quantize(model, weight_bits=2, act_bits=2, method="pact")
    before = copy.deepcopy(dict(student.named_buffers()))
    daqakd.calibrate(student, x)
    assert max(p.item() for n, p in student.named_parameters() if n.endswith("alpha")) < 10
    running = [n for n, _ in student.named_buffers() if "running" in n or "tracked" in n]
    assert all(torch.equal(student.get_buffer(n), before[n]) for n in running)
    assert all(m.track_running_stats for m in student.modules() if isinstance(m, nn.BatchNorm2d))
    daqakd.calibrate(student, x[:1])


def test_lsq_counts_features_of_one_sample():
    student, one = calibrated(), images(1)
    gradients = []
    for count in (4, 8):
        x = one.expand(count, -1, -1, -1)
        student.zero_grad()
        (student.conv1.act_quantizer(x).sum() / count).backward()
        gradients.append(student.conv1.act_quantizer.step.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1])


def test_pact_starts_at_the_percentile_or_where_it_is_told():
    student = daqakd.quantize(SmallNet(), weight_bits=2, act_bits=2, method="pact", pact_alpha=6.0)
    daqakd.calibrate(student, images())
    assert student.conv2.act_quantizer.alpha.item() == 6.0
    x = images()
    fresh = daqakd.quantize(SmallNet(), weight_bits=2, act_bits=2, method="pact")
    daqakd.calibrate(fresh, x)
    wanted = x.abs().flatten().quantile(0.999, interpolation="lower")
    assert abs(fresh.conv1.act_quantizer.alpha.item() - wanted.item()) < 0.05


def test_ewgs_starts_as_the_paper_says():
    model = settled(SmallNet(), images(64)).eval()
    student = daqakd.quantize(model, weight_bits=2, act_bits=2, method="ewgs")
    quantizer = student.conv2.weight_quantizer
    torch.testing.assert_close(quantizer.upper[0].detach(), 3 * model.conv2.weight.std().detach())
    daqakd.calibrate(student, images())
    exact, scaled = [], []
    student.conv2.act_quantizer.register_forward_hook(lambda m, i, o: exact.append(i[0]))
    student.conv2.register_forward_hook(lambda m, i, o: scaled.append(o))
    assert student.conv2.output_scale.item() > 0
    student.eval()(images())
    full = model.conv2(exact[0]).abs().mean()
    assert 0.8 < (scaled[0].abs().mean() / full).item() < 1.25


@pytest.mark.parametrize("method", ["lsq", "lsqplus"])
def test_norms_that_were_never_trained_go_by_the_batch(method):
    """Steps start from what training sees, not from activations that shrink from layer to layer."""
    torch.manual_seed(0)
    x = torch.randn(16, 8, 12, 12)
    layers = [
        (nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()) for _ in range(6)
    ]
    fresh = nn.Sequential(*(module for stage in layers for module in stage), nn.Conv2d(8, 4, 1))
    with torch.no_grad():
        for conv, _, _ in layers:
            conv.weight.mul_(0.1)
    student = daqakd.quantize(fresh, weight_bits=4, act_bits=4, method=method)
    before = {key: value.clone() for key, value in student.state_dict().items() if "running" in key}
    daqakd.calibrate(student, [x])
    steps = [student.get_submodule(str(3 * i)).act_quantizer.step.item() for i in range(1, 6)]
    assert max(steps) < 3 * min(steps), steps  # 10^-5 between them by the running statistics
    assert all(torch.equal(student.state_dict()[key], value) for key, value in before.items())
    with torch.no_grad():
        known = student.get_submodule("1")
        known.running_var.fill_(2.0)  # the others' neighbour was trained
    again = copy.deepcopy(student)
    daqakd.calibrate(again, [x])
    assert again.get_submodule("3").act_quantizer.step.item() < steps[0]

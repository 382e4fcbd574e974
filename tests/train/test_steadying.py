"""Damping and freezing of oscillating weights, against the definitions in [Nagel et al. 2022]."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import daqakd
from daqakd import InputError, TrainConfig
from daqakd.quant.grids import weight_codes, weight_grid
from daqakd.train.steadying import Damping, Freezing

from ..helpers.small import SmallNet, small_dataset

CONFIG = TrainConfig(epochs=2, batch_size=16, lr=0.05, schedule="constant", workers=0)


def layer(method="lsq", bits=3, **options):
    torch.manual_seed(3)
    options |= {"weight_bits": bits, "act_bits": 8, "method": method, "first_last": "same"}
    one = daqakd.quantize(nn.Sequential(nn.Linear(20, 10)), **options)[0]
    with torch.no_grad():
        one.weight[:, 0] *= 99  # beyond the ends
    return one


def run(config=CONFIG, method="lsq"):
    torch.manual_seed(0)
    teacher = SmallNet()
    student = daqakd.quantize(teacher, weight_bits=3, act_bits=3, method=method)
    return daqakd.distill(student, teacher, small_dataset(), strategy="cutmix", config=config)


@pytest.mark.parametrize(
    ("method", "options"),
    [("lsq", {}), ("lsq", {"per_channel": True}), ("ewgs", {}), ("seq", {"per_channel": True})],
)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_levels_are_what_the_weights_snap_to(method, options, bits):
    one = layer(method, bits, **options)
    grid, codes, w = weight_grid(one), weight_codes(one), one.weight.detach()
    assert grid is not None
    assert torch.equal(one.weight_quantizer.codes(grid.levels(codes)), codes)
    inside = grid.clamp(w) == w
    assert ((grid.levels(codes) - w).abs() <= grid.step / 2 * 1.001)[inside].all()
    assert not inside.all()
    if method != "ewgs":
        torch.testing.assert_close(grid.levels(codes), one.quantized_weight())


@pytest.mark.parametrize("method", ["lsq", "ewgs"])
@pytest.mark.parametrize("step", [0, 30, 100])
@pytest.mark.parametrize("first", [0, 20])
def test_damping_is_the_gradient_of_its_regularizer(method, step, first):
    one = layer(method)
    grid = weight_grid(one)
    assert grid is not None
    w = one.weight.detach().double().requires_grad_()
    low, high = grid.lowest.double(), (grid.lowest + grid.steps * grid.step).double()
    loss = (grid.levels(weight_codes(one)).double() - w.clamp(low, high)).square().sum()
    (slope,) = torch.autograd.grad(0.3 * (1 - math.cos(math.pi * step / 100)) / 2 * loss, w)
    one.weight.grad = torch.ones_like(one.weight)
    Damping([one], 0.3, 100 + first, first).after_backward(step + first)
    torch.testing.assert_close(one.weight.grad.double() - 1, slope, rtol=1e-4, atol=1e-6)
    assert (slope != 0).any() == (step > 0)
    assert (slope[:, 0] == 0).any()


def by_hand(codes: list[list[int]], threshold: float):
    """Follow one weight after another; return codes and what is frozen, after each step."""
    found = []
    for history in codes:
        frequency, mean, direction, before = 0.0, float(history[0]), 0, history[0]
        held, out = None, []
        for code in history[1:]:
            now = code if held is None else held
            change = (now > before) - (now < before)
            frequency += 0.01 * ((change * direction < 0) - frequency)
            if held is None and frequency > threshold:
                held = round(mean)
            mean += 0.01 * (now - mean)
            direction, before = change or direction, now
            out.append((now if held is None else held, held is not None))
        found.append(out)
    return found


def test_freezing_follows_the_algorithm():
    one = layer(bits=3)
    generator = torch.Generator().manual_seed(4)
    kinds = torch.randint(1, 6, (10, 20), generator=generator)  # how often a weight flips
    part = Freezing([one], 0.1)
    grid = weight_grid(one)
    assert grid is not None
    histories, found = [weight_codes(one).flatten()], []
    part.before_epoch(0)
    for step in range(40):
        codes = torch.where(step % kinds == 0, 3 + step // kinds % 2, histories[0].view(10, 20))
        histories.append(codes.flatten().to(torch.uint8))
        with torch.no_grad():
            one.weight.copy_(grid.levels(codes))
        part.after_step(step)
        found.append((weight_codes(one).flatten(), part.frozen.clone()))
    wanted = by_hand(torch.stack(histories).T.tolist(), 0.1)
    for i, own in enumerate(wanted):
        assert [(int(c[i]), bool(f[i])) for c, f in found] == own
    assert 0 < part.frozen.double().mean() < 1


def test_frozen_weights_keep_their_codes_while_the_step_moves():
    one = layer(bits=4)
    part = Freezing([one], 0.5)
    part.before_epoch(0)
    part.frozen[::2] = True
    held = part.held.clone()
    for factor in (0.3, 1.0, 7.0):
        with torch.no_grad():
            one.weight_quantizer.step.mul_(factor)
            one.weight.normal_()
        free = one.weight.detach().clone().flatten()
        part.after_step(0)
        assert torch.equal(weight_codes(one).flatten()[::2], held[::2])
        assert torch.equal(one.weight.flatten()[1::2], free[1::2])


@pytest.mark.parametrize("method", ["lsq", "ewgs"])
def test_runs_hold_their_weights(method):
    config = replace(CONFIG, optimizer="sgd", momentum=0.0, lr=0.02)
    plain, damped = run(config, method), run(replace(config, damping=10.0), method)
    frozen = run(replace(CONFIG, freeze_oscillating=0.005), method)
    assert 0 < frozen.history[0]["frozen"] <= frozen.history[1]["frozen"] < 1

    def distance(result):
        one = result.model.conv2
        grid = weight_grid(one)
        return (grid.clamp(one.weight) - grid.levels(weight_codes(one))).abs().mean() / grid.step

    assert distance(damped) < 0.5 * distance(plain)


@pytest.mark.parametrize("option", [{"damping": 0.1}, {"freeze_oscillating": 0.02}])
def test_what_cannot_be_held_is_named(option):
    config, (name,) = replace(CONFIG, **option), option
    with pytest.raises(InputError, match=rf"^{name}: conv1 has no levels of its own"):
        run(config, "dorefa")
    student = SmallNet()  # of nothing but full precision
    with pytest.raises(InputError, match=rf"^{name}: the student has no quantized weights"):
        daqakd.distill(student, SmallNet(), small_dataset(), strategy="minimal", config=config)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"damping": -1.0}, "damping"),
        ({"freeze_oscillating": 0.0}, "freeze_oscillating"),
        ({"freeze_oscillating": 1.0}, "freeze_oscillating"),
        ({"diagnose": "on"}, "diagnose"),
    ],
)
def test_options_that_cannot_be_are_named(options, named):
    with pytest.raises(InputError, match=f"^{named}: "):
        replace(CONFIG, **options).check()

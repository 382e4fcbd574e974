"""Quantizing a model: conversion, state, optimizer groups, and back."""

import copy

import pytest
import torch
from torch import nn

import daqakd
from daqakd.quant import QuantConv2d, QuantLinear
from daqakd.quant.base import ActivationQuantizer

from ..helpers.small import SmallNet

METHODS = ["lsq", "pact", "dorefa", "ewgs"]


def images(count: int = 8) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16)


def calibrated(method: str = "lsq", **options) -> nn.Module:
    bits = {"weight_bits": 3, "act_bits": 3, **options}
    student = daqakd.quantize(SmallNet(), method=method, **bits)
    return daqakd.calibrate(student, images())


@pytest.mark.parametrize("method", METHODS)
def test_layers_keep_their_types_and_keys(method):
    model = SmallNet()
    student = daqakd.quantize(model, weight_bits=2, act_bits=2, method=method)
    assert isinstance(student.conv1, nn.Conv2d)
    assert isinstance(student.conv1, QuantConv2d)
    assert isinstance(student.fc, QuantLinear)
    assert type(model.conv1) is nn.Conv2d, "the original was changed"
    assert model.state_dict().keys() <= student.state_dict().keys()
    missing, unexpected = student.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected
    assert not set(missing) & set(model.state_dict())


@pytest.mark.parametrize("method", METHODS)
def test_a_training_step_gives_finite_gradients_everywhere(method):
    student = calibrated(method).train()
    student(images()).square().sum().backward()
    gradients = {n: p.grad for n, p in student.named_parameters()}
    assert all(g is not None and g.isfinite().all() for g in gradients.values())
    own = [g for n, g in gradients.items() if "quantizer" in n]
    assert method in ("dorefa", "pact") or sum(bool((g != 0).any()) for g in own) > 0.7 * len(own)


@pytest.mark.parametrize("method", METHODS)
def test_reload_without_calibration_gives_equal_outputs(method, tmp_path):
    student = calibrated(method).eval()
    torch.save(student.state_dict(), tmp_path / "s.pt")
    fresh = daqakd.quantize(SmallNet(), weight_bits=3, act_bits=3, method=method).eval()
    fresh.load_state_dict(torch.load(tmp_path / "s.pt", weights_only=True))
    x = images()
    assert torch.equal(fresh(x), student(x))
    assert torch.equal(copy.deepcopy(student)(x), student(x))


def test_first_and_last_layers():
    def bits(first_last):
        student = daqakd.quantize(SmallNet(), weight_bits=2, act_bits=2, first_last=first_last)
        layers = (student.conv1, student.conv2, student.fc)
        return [
            x.weight_quantizer.bits if isinstance(x, QuantConv2d | QuantLinear) else 32
            for x in layers
        ]

    assert bits("8bit") == [8, 2, 8]
    assert bits("fp") == [32, 2, 32]
    assert bits("same") == [2, 2, 2]


def test_overrides_and_exclude():
    student = daqakd.quantize(
        SmallNet(),
        weight_bits=2,
        act_bits=2,
        exclude=["fc"],
        overrides={"conv*": {"weight_bits": 4}, "conv2": {"act_bits": None, "per_channel": True}},
    )
    assert type(student.fc) is nn.Linear
    assert student.conv1.weight_quantizer.bits == 4
    assert student.conv2.act_quantizer is None
    assert student.conv2.weight_quantizer.step.shape == (8,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exclude": ["con1"]}, r"'con1' matches no .*Did you mean 'conv1'"),
        ({"overrides": {"layer*": {}}}, r"'layer\*' matches no"),
        ({"overrides": {"fc": {"bits": 2}}}, r"unknown key .*'bits'.*Did you mean"),
        ({"method": "lsqq"}, r"unknown method 'lsqq'.*Did you mean 'lsq'"),
        ({"weight_bits": 9}, r"weight_bits.*1 to 8.*9"),
        ({"act_bits": 0}, r"act_bits.*1 to 8.*0"),
        ({"weight_bits": 1}, r"LSQ's signed weights"),
        ({"first_last": "8"}, r"unknown first_last '8'"),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else "",
)
def test_wrong_options_say_what_to_do(options, message):
    with pytest.raises(daqakd.InputError, match=message):
        daqakd.quantize(SmallNet(), **{"weight_bits": 2, "act_bits": 2, **options})


def test_what_cannot_be_swapped_stays_whole_and_is_listed():
    class Own(nn.Linear):
        def forward(self, x):
            return super().forward(x) * 2

    model = nn.Sequential(
        nn.Linear(4, 4),
        Own(4, 4),
        nn.MultiheadAttention(4, 2),
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
    )
    student = daqakd.quantize(model, weight_bits=2, act_bits=2, exclude="2")
    notes = {r["name"]: r["note"] for r in daqakd.summary(student).records()}
    assert notes["0"] == ""
    assert "own forward" in notes["1"]
    reads = "its nn.MultiheadAttention stays whole and reads its weight directly"
    assert notes["2.out_proj"] == f"not quantized: {reads}"
    assert notes["2.in_proj_weight"] == "not quantized: left in full precision"
    assert "parametrization" in notes["3"]


def test_a_module_used_twice_is_swapped_once():
    shared = nn.Linear(4, 4)
    student = daqakd.quantize(nn.Sequential(shared, shared), weight_bits=2, act_bits=2)
    assert student[0] is student[1]
    assert isinstance(student[0], QuantLinear)


def test_summary_counts_operations_and_bytes():
    layer = next(r for r in daqakd.summary(calibrated()).records() if r["name"] == "conv2")
    assert layer["macs"] == 4 * 4 * 8 * 8 * 9
    assert layer["bytes"] == 8 * 8 * 9 * 3 // 8
    assert layer["bit_ops"] == layer["macs"] * 9
    assert "conv2" in str(daqakd.summary(calibrated()))


def test_param_groups_cover_every_parameter_once():
    student = calibrated("pact")
    groups = {g["name"]: g for g in daqakd.param_groups(student, 0.1, 1e-4, quantizer_lr=0.01)}
    assert groups["model"]["weight_decay"] == groups["alpha"]["weight_decay"] == 1e-4
    assert groups["alpha"]["lr"] == 0.01
    apart = daqakd.param_groups(student, 0.1, 1e-4, alpha_decay=5e-4)
    assert {g["name"]: g["weight_decay"] for g in apart} == {"model": 1e-4, "alpha": 5e-4}
    listed = [id(p) for g in groups.values() for p in g["params"]]
    assert sorted(listed) == sorted(id(p) for p in student.parameters())
    steps = {g["name"]: g for g in daqakd.param_groups(calibrated("lsq"), 0.1, 1e-4)}["quantizer"]
    assert steps["weight_decay"] == 0
    assert len(steps["params"]) == 6


@pytest.mark.parametrize("method", METHODS)
def test_dequantize_holds_the_quantized_weights(method):
    student = calibrated(method, act_bits=None).eval()
    plain = daqakd.dequantize(student)
    assert type(plain.conv2) is nn.Conv2d
    assert plain.state_dict().keys() == SmallNet().state_dict().keys()
    x = images()
    torch.testing.assert_close(plain(x), student(x))


def test_dequantize_warns_about_activations():
    with pytest.warns(UserWarning, match="activations are no longer"):
        daqakd.dequantize(calibrated())


def test_dorefa_gets_its_magnitude_back_where_no_batchnorm_follows():
    model = SmallNet()
    student = daqakd.quantize(model, weight_bits=8, act_bits=None, method="dorefa")
    assert student.conv1.weight_quantizer.rescale is None
    largest = student.fc.quantized_weight().abs().max()
    torch.testing.assert_close(largest, model.fc.weight.abs().max())
    off = daqakd.quantize(model, weight_bits=8, act_bits=None, method="dorefa", rescale="off")
    assert off.fc.weight_quantizer.rescale is None


@pytest.mark.parametrize("method", METHODS)
def test_exports_without_our_ops(method):
    student, x = calibrated(method), images()
    program = torch.export.export(student.eval(), (x,))
    assert not [n for n in program.graph.nodes if "daqakd" in str(n.target)]
    torch.testing.assert_close(program.module()(x), student(x))


@pytest.mark.parametrize("method", METHODS)
def test_autocast_and_saving_the_module_whole(method, tmp_path):
    student, x = calibrated(method), images()
    with torch.autocast("cpu", torch.bfloat16):
        student(x).float().square().mean().backward()
    steps = [p for n, p in student.named_parameters() if "quantizer" in n]
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in steps)
    torch.save(student, tmp_path / "whole.pt")
    loaded = torch.load(tmp_path / "whole.pt", weights_only=False)
    assert torch.equal(loaded.eval()(x), student.eval()(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["shufflenet_v2_x0_5", "densenet121", "mobilenet_v2", "efficientnet_b0", "vit_b_16"]
)
def test_torchvision_models_train_and_reload(name):
    check_torchvision(name)


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mobilenet_v2"])
def test_small_torchvision_models_train_and_reload(name):
    check_torchvision(name)


def check_torchvision(name):
    models = pytest.importorskip("torchvision.models")
    model = models.get_model(name, num_classes=10)
    x = torch.randn(
        2, 3, 224 if name.startswith("vit") else 64, 224 if name.startswith("vit") else 64
    )
    student = daqakd.calibrate(daqakd.quantize(model, weight_bits=2, act_bits=2), x)
    assert model.state_dict().keys() <= student.state_dict().keys()
    student.train()(x).square().mean().backward()
    steps = [p for n, p in student.named_parameters() if n.endswith("step")]
    assert steps
    assert all(p.grad is not None and p.grad.isfinite().all() for p in steps)
    fresh = daqakd.quantize(model, weight_bits=2, act_bits=2)
    fresh.load_state_dict(student.state_dict())
    with torch.no_grad():
        wanted = student.eval()(x)
        assert torch.equal(fresh.eval()(x), wanted)
        assert torch.equal(copy.deepcopy(student)(x), wanted)
    assert all(q.is_calibrated for q in fresh.modules() if isinstance(q, ActivationQuantizer))


def test_a_student_of_a_frozen_teacher_says_that_its_weights_are_frozen():
    student = calibrated()
    student.conv1.requires_grad_(False)
    daqakd.param_groups(student, lr=0.1, weight_decay=0)
    frozen = daqakd.quantize(SmallNet().requires_grad_(False), weight_bits=2, act_bits=2)
    with pytest.warns(UserWarning, match=r"no weight requires a gradient.*requires_grad_\(True\)"):
        daqakd.param_groups(frozen, lr=0.1, weight_decay=0)
    with pytest.raises(daqakd.InputError, match="nothing would train"):
        daqakd.param_groups(frozen.requires_grad_(False), lr=0.1, weight_decay=0)

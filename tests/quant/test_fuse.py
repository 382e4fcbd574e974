"""A fused student is the student to rounding, with the same state: eleven architectures."""

import copy

import pytest
import torch
from torch import nn

import daqakd
from daqakd import InputError
from daqakd.quant.fusion.plan import fusion_of

from ..helpers.fusible import (
    ARCHITECTURES,
    OpCalls,
    assert_alike,
    images,
    quantized,
    step,
    student,
    vgg,
    without_ties,
)
from ..helpers.small import SmallNet

FLOAT64 = torch.float64
METHODS = ("lsq", "pact", "dorefa", "ewgs")
each_method = pytest.mark.parametrize("method", METHODS)
CASES = [(name, METHODS[i % 4]) for i, name in enumerate(ARCHITECTURES)]
CASES += [("resnet20", method) for method in METHODS[1:]]
CASES += [("mobilenet_v2", "lsq"), ("resnet10", "dorefa")]


@pytest.mark.parametrize(("name", "method"), CASES)
def test_one_step_is_that_of_the_student_and_what_is_fused_is_told(name, method):
    _, norms, quantizing, others = ARCHITECTURES[name]
    plain = student(name, method)
    fused = daqakd.fuse(plain)
    for training in (True, False):
        for model in (plain, fused):
            model.train(training)
        with OpCalls() as calls:
            assert_alike(fused, plain)
        assert sum(call.get("method") is not None for call in calls.made) == quantizing
        assert len(calls) == quantizing + others
    found = daqakd.summary(fused).fusion
    assert found is not None
    assert (found.norms, len(found.fused)) == (norms, quantizing + others)
    assert not found.fused.keys() & found.whole.keys()
    assert sum(" of " in what for what in found.fused.values()) == quantizing


@pytest.mark.parametrize("name", daqakd.models.BUILDERS)
def test_the_code_of_our_models_is_traced(name):
    student = daqakd.quantize(daqakd.models.build(name, 10), weight_bits=4, act_bits=4)
    told = daqakd.summary(daqakd.fuse(student)).fusion
    assert told is not None
    assert not any("traced" in why for why in told.whole.values())
    assert len(told.fused) >= told.norms - 3  # those of resnet18's shortcuts are residuals


@pytest.mark.parametrize("side", [32, 60, 64])
def test_vgg_pools_by_the_side_of_the_image(side):
    plain = student("vgg8")
    assert_alike(daqakd.fuse(plain), plain, images(side=side))


@each_method
def test_states_move_both_ways(method):
    plain = student("resnet20", method)
    fused = daqakd.fuse(plain)
    assert fused is not plain
    assert fusion_of(plain) is None
    step(fused)
    plain.load_state_dict(fused.state_dict())
    assert_alike(fused, plain)
    options = {"weight_bits": 4, "act_bits": 4, "method": method, "first_last": "same"}
    twin = daqakd.fuse(daqakd.quantize(plain_model().double(), **options))
    twin.load_state_dict(plain.state_dict())  # calibrated by it
    assert_alike(twin.train(), plain)


def plain_model() -> nn.Module:
    return daqakd.models.build("resnet20", 10)


@each_method
def test_calibrating_after_fusing(method):
    model = plain_model().double()
    without_ties(model)
    made = daqakd.quantize(model, weight_bits=4, act_bits=4, method=method)
    fused = daqakd.fuse(made)
    with pytest.raises(InputError, match="before calibration"):
        fused(images())
    for model in (made, fused):
        daqakd.calibrate(model, images()).train()
    for a, b in zip(made.state_dict().values(), fused.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    with OpCalls() as calls:
        assert_alike(fused, made)
    assert len(calls) == 19


def test_it_is_still_of_its_class_and_its_modules_are_the_same():
    plain = student("resnet20")
    fused = daqakd.fuse(plain)
    assert isinstance(fused, type(plain))
    assert repr(fused) == repr(plain)
    assert [n for n, _ in fused.named_modules()] == [n for n, _ in plain.named_modules()]
    assert vars(fused).keys() == vars(plain).keys()
    again = daqakd.fuse(fused)
    assert type(again).__mro__[1] is type(plain), "fused twice"
    assert_alike(again, plain)


def test_training_goes_on_alike():
    plain = student("resnet20", "pact")
    fused = daqakd.fuse(plain)
    for model in (plain, fused):
        groups = daqakd.param_groups(model, lr=1e-2, weight_decay=1e-4)
        optimizer = torch.optim.SGD(groups, momentum=0.9)
        for seed in range(3):
            optimizer.zero_grad()
            model(images(seed)).square().mean().backward()
            optimizer.step()
    for a, b in zip(fused.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dtypes_and_layouts(dtype, layout):
    """Ties fall either way here: no further from float64 than the student in that dtype."""
    truth = student("resnet20", weight_bits=8, act_bits=8)
    plain = copy.deepcopy(truth).float().to(memory_format=layout)
    outcomes = []
    for model in (truth, plain, daqakd.fuse(plain)):
        x = images(side=16).to(model.conv1.weight.dtype, memory_format=layout)
        with OpCalls() as calls, torch.autocast("cpu", dtype, enabled=dtype != x.dtype != FLOAT64):
            y = model(x)
        y.double().square().mean().backward()
        outcomes.append((y.detach().double(), model.linear.weight.grad.double()))
    assert len(calls) == 19
    for wanted, unfused, fused in zip(*outcomes, strict=True):
        assert (fused - wanted).norm() < 1.1 * (unfused - wanted).norm() + 0.01 * wanted.norm()


@pytest.mark.parametrize("method", ["lsq", "pact", "dorefa"])
def test_a_relu_that_quantizers_imply_is_left_out(method):
    plain = quantized(vgg(batch_norm=False), method)
    for parameter in plain.parameters():
        if parameter.dim() == 1 and len(parameter) > 1:  # biases; LSQ differs at exactly 0 alone
            parameter.data.uniform_(0.01, 0.1)
    fused = daqakd.fuse(plain)
    assert_alike(fused, plain)
    told = daqakd.summary(fused).fusion
    assert told is not None
    assert list(told.implied) == ["0.4", "0.9"]
    ran = []
    for index in (4, 9):
        fused[0][index].forward = lambda x: ran.append(1) or x.relu()
    fused(images())
    assert len(ran) == 2, "a replaced forward was passed over"


def test_a_relu_before_negative_codes_runs():
    plain = quantized(vgg(batch_norm=False), "dorefa")
    fused = daqakd.fuse(plain)
    for model in (plain, fused):
        for layer in model.modules():
            if hasattr(layer, "act_quantizer"):
                layer.act_quantizer.set_flags(True, True)
    assert_alike(fused, plain)
    ewgs = daqakd.fuse(quantized(vgg(batch_norm=False), "ewgs"))
    ewgs_plain = daqakd.fuse(ewgs)
    for model in (ewgs, ewgs_plain):
        for layer in model.modules():
            if hasattr(layer, "act_quantizer"):
                layer.act_quantizer.lower.data.sub_(0.5)
    with daqakd.quant.fusion.fused(ewgs_plain, wanted=False):
        assert_alike(ewgs, ewgs_plain)


def test_wrong_arguments():
    with pytest.raises(InputError, match=r"student: expected a torch.nn.Module"):
        daqakd.fuse("student")
    with pytest.raises(InputError, match="student: has no quantized layer"):
        daqakd.fuse(SmallNet())


def test_dequantize_of_a_fused_student():
    plain = student("resnet20").eval()
    fused = daqakd.fuse(plain)
    with pytest.warns(UserWarning, match="activations are no longer"):
        made = daqakd.dequantize(fused)
    with pytest.warns(UserWarning, match="activations are no longer"):
        wanted = daqakd.dequantize(plain)
    assert type(made) is type(plain)
    assert torch.equal(made(images()), wanted(images()))
    assert torch.equal(copy.deepcopy(fused)(images()), fused(images()))

"""Taps: the right tensors of every named model, quantized, fused or not; sentences where not."""

import pytest
import torch
from torch import nn

import daqakd
from daqakd import InputError
from daqakd.losses import AT, SP
from daqakd.losses.taps import Taps
from daqakd.models import BUILDERS, build
from daqakd.models.taps import taps_of
from daqakd.quant.fusion import fused

SHAPES = {  # of the taps of a 32 x 32 image
    "resnet20": [(16, 32), (16, 32), (32, 16), (64, 8), (64, None)],
    "vgg8": [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4), (512, None)],
    "resnet18": [(64, 8), (64, 8), (128, 4), (256, 2), (512, 1), (512, None)],
    "mobilenet_v2": [(16, 16), (24, 8), (32, 4), (96, 2), (1280, 1), (1280, None)],
}
DEEPER = ("resnet32", "resnet44", "resnet56")
NORMED = tuple(f"{name}-headnorm" for name in ("resnet20", *DEEPER))
SHAPES |= dict.fromkeys((*DEEPER, *NORMED), SHAPES["resnet20"])
SHAPES |= {"vgg13": SHAPES["vgg8"]}
IMAGES = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)


def read(model, names, images=IMAGES):
    taps = Taps(model, names)
    try:
        return taps.read(names, model(images))
    finally:
        taps.remove()


def test_every_model_by_name_has_taps():
    assert set(SHAPES) == set(BUILDERS)


@pytest.mark.parametrize("name", SHAPES)
def test_they_are_maps_and_then_features(name):
    model = build(name, 5).eval()
    names = taps_of(model)
    expected = [(2, c) if side is None else (2, c, side, side) for c, side in SHAPES[name]]
    assert [tuple(v.shape) for v in read(model, names)] == expected
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("name", ["resnet20", "vgg8", "mobilenet_v2"])
def test_a_fused_student_gives_the_same(name):
    torch.manual_seed(0)
    student = daqakd.quantize(build(name, 5), weight_bits=4, act_bits=4)
    daqakd.calibrate(student, [IMAGES])
    student.eval()
    names = [*taps_of(student), "logits"]
    plain = read(student, names)
    taps = Taps(student, names)
    with fused(student):
        found = taps.read(names, student(IMAGES))
    taps.remove()
    for one, other in zip(plain, found, strict=True):
        assert (one - other).abs().max() <= 0.02 * one.abs().max()  # a level apart, here and there


def test_the_features_are_what_the_classifier_is_given():
    model = build("resnet20", 5).eval()
    (features,) = read(model, ["linear:input"])
    assert torch.equal(model.linear(features), model(IMAGES))


def test_low_precision_is_widened():
    model = build("vgg8", 5).eval().to(torch.bfloat16)
    found = read(model, ["groups.0", "logits"], IMAGES.to(torch.bfloat16))
    assert [v.dtype for v in found] == [torch.float32] * 2


def test_sentences():
    model = build("resnet20", 5)
    with pytest.raises(InputError, match=r"no module 'layer9'.* Did you mean 'layer"):
        Taps(model, ["layer9"])
    with pytest.raises(InputError, match="'layer1:output' names no side of a module"):
        Taps(model, ["layer1:output"])
    with pytest.raises(InputError, match="Linear has no known ones; name the modules"):
        AT().taps_of(nn.Linear(2, 2), model)
    with pytest.raises(InputError, match="expected a list of names"):
        SP(taps="layer1")
    idle = nn.Sequential(nn.Linear(3, 3))
    idle.unused = nn.Linear(3, 3)
    idle.forward = idle[0].forward
    taps = Taps(idle, ["unused"])
    with pytest.raises(InputError, match="does not call 'unused' as a module"):
        taps.read(["unused"], idle(torch.zeros(1, 3)))

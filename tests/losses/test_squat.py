"""SQuaT: which tensors are compared, in named models and all methods, and where gradients go."""

import copy

import pytest
import torch

import daqakd
from daqakd.losses import SQuaT
from daqakd.losses.taps import Taps
from daqakd.models import build
from daqakd.quant.fusion import fused

from ..helpers.losses import batch_of, setup_of, small_models

PLACES = {
    "resnet20": "layer3.2.conv2",
    "vgg8": "groups.4.0",
    "vgg13": "groups.4.3",
    "resnet18": "layer4.1.conv2",
    "mobilenet_v2": "features.18.0",
}
IMAGES = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)


def models(name, **options):
    """Return a student in training, and its teacher."""
    teacher = build(name, 5)
    student = daqakd.quantize(copy.deepcopy(teacher), weight_bits=2, act_bits=2, **options)
    daqakd.calibrate(student, [IMAGES])
    return student.train(), teacher.eval().requires_grad_(False)


def read(model, names):
    taps = Taps(model, names)
    found = taps.read(names, model(IMAGES))
    return taps, found


@pytest.mark.parametrize("name", PLACES)
def test_it_reads_the_last_quantized_convolutions_input(name):
    student, teacher = models(name)
    ours, theirs = SQuaT().taps_of(student, teacher)
    assert ours == [f"{PLACES[name]}.act_quantizer"]
    assert theirs == [f"{PLACES[name]}:input"]
    (s,), (t,) = read(student, ours)[1], read(teacher, theirs)[1]
    assert s.shape == t.shape
    assert len(s.detach().unique()) <= 4


@pytest.mark.parametrize("method", ["lsq", "pact", "dorefa", "ewgs"])
def test_the_teachers_input_is_quantized_past_the_hooks(method):
    student, teacher = models("resnet20", act_method=method)
    loss = SQuaT()
    ours, theirs = loss.taps_of(student, teacher)
    taps, s = read(student, ours)
    t = read(teacher, theirs)[1]
    loss.prepare(setup_of(s, t, (student, teacher)))
    value = loss(s, t, batch_of(2))
    assert taps.values[ours[0]] is s[0]
    taps.remove()
    quantizer = student.layer3[2].conv2.act_quantizer
    torch.testing.assert_close(value, ((s[0] - quantizer(t[0])) ** 2).mean())
    assert value > 0


def test_a_fused_student_gives_the_same():
    student, teacher = models("resnet20")
    student.eval()
    ours, _ = SQuaT().taps_of(student, teacher)
    (plain,) = read(student, ours)[1]
    taps = Taps(student, ours)
    with fused(student):
        (found,) = taps.read(ours, student(IMAGES))
    assert torch.equal(plain, found)


def test_the_gradient_is_the_students():
    student, teacher = models("vgg8")
    loss = SQuaT()
    ours, theirs = loss.taps_of(student, teacher)
    s, t = read(student, ours)[1], read(teacher, theirs)[1]
    loss.prepare(setup_of(s, t, (student, teacher)))
    assert not loss([s[0].detach()], t, batch_of(2)).requires_grad
    loss(s, t, batch_of(2)).backward()
    assert student.groups[4][0].act_quantizer.step.grad.any()
    assert student.groups[3][0].weight.grad.any()


def test_the_quantizer_stays_the_students():
    student, teacher = small_models()
    loss = SQuaT(taps=["1"])
    s, t = (torch.randn(2, 4, 6, 6) for _ in range(2))
    loss.prepare(setup_of([s], [t], (student, teacher)))
    assert not [*loss.parameters(), *loss.buffers()]
    before = loss([s], [t], batch_of(2))
    with torch.no_grad():
        student[1][0].act_quantizer.step.mul_(2)
    assert loss([s], [t], batch_of(2)) != before

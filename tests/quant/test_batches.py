"""Calibration batches of every kind, and those that are refused."""

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

import daqakd

from ..helpers.small import SmallNet
from .test_quant import METHODS, images


class Two(nn.Module):
    """Takes two tensors, one of them optional."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, image: Tensor, scale: Tensor | None = None) -> Tensor:
        x = self.a(image)
        return self.b(x if scale is None else x * scale)


class Takes(Two):
    """Takes whatever it is given."""

    def forward(self, image, **rest):
        return super().forward(image, rest.get("scale"))


X, SCALE, Y = torch.randn(6, 4), torch.rand(6, 4), torch.arange(6)


def steps(model, batches):
    torch.manual_seed(0)
    student = daqakd.quantize(model(), weight_bits=4, act_bits=4)
    daqakd.calibrate(student, batches)
    return [m.act_quantizer.step.item() for m in (student.a, student.b)]


def test_kinds_of_batches():
    wanted = steps(Two, X)
    for batches in ((X, Y), [X, Y], [(X, Y)], [[X, Y]], {"image": X}, [{"image": X, "label": Y}]):
        assert steps(Two, batches) == wanted
    assert steps(Two, [({"image": X}, Y)]) == steps(Two, ({"image": X}, Y)) == wanted
    assert steps(Takes, {"image": X, "label": Y}) == wanted
    both = steps(Two, [((X, SCALE), Y)])
    assert both == steps(Two, {"image": X, "scale": SCALE}) != wanted
    assert steps(Two, iter([X[:3], X[3:]])) == steps(Two, [X[:3], X[3:]])


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "empty"),
        (3, "iterable of batches, got int"),
        ("abc", "iterable of batches, got str"),
        (X.numpy(), "got ndarray.*as_tensor"),
        ([np.zeros((2, 4))], "got ndarray.*as_tensor"),
        ([None], "got NoneType"),
        ([("a", "b")], "got str"),
        ([{"picture": X}], "dictionary of picture, but the model's forward takes image, scale"),
        (X[:0], r"batch 0 .*holds no values"),
        ([X, X[:0]], r"batch 1 .*holds no values"),
    ],
)
def test_batches_that_are_refused(batches, message):
    with pytest.raises(daqakd.InputError, match=message):
        steps(Two, batches)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("method", METHODS)
def test_values_that_are_not_finite(method, bad):
    student = daqakd.quantize(SmallNet(), weight_bits=2, act_bits=2, method=method)
    broken = images()
    broken[3, 1, 2, 2] = bad
    with pytest.raises(daqakd.InputError, match=r"batch 1 .*reaches conv1: the batch itself"):
        daqakd.calibrate(student, [images(), broken])
    assert not student.conv1.act_quantizer.is_calibrated
    assert all(layer.act_quantizer.phase is None for layer in (student.conv1, student.fc))
    daqakd.calibrate(student, images())
    assert student(images()).isfinite().all()


def test_a_model_that_overflows():
    net = SmallNet()
    net.bn1.weight.data.fill_(3e38)
    student = daqakd.quantize(net, weight_bits=2, act_bits=2)
    with pytest.raises(daqakd.InputError, match=r"batch 0 .*reaches conv2: .*the model overflows"):
        daqakd.calibrate(student, 1e3 * images())


class Auxiliary(SmallNet):
    """A second head in training; a layer that nothing uses on request."""

    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))

    def forward(self, x):
        x = torch.relu(self.conv2(torch.relu(self.bn1(self.conv1(x))))).mean((2, 3))
        return (self.fc(x), self.aux(x)) if self.training else self.fc(x)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("act_bits", [None, 4])
def test_layers_that_only_training_reaches(method, act_bits):
    torch.manual_seed(0)
    student = daqakd.quantize(Auxiliary(), weight_bits=4, act_bits=act_bits, method=method)
    twin = daqakd.quantize(SmallNet(), weight_bits=4, act_bits=act_bits, method=method)
    running = student.bn1.running_mean.clone(), student.aux[0].num_batches_tracked.clone()
    x, state = images(), torch.get_rng_state()
    daqakd.calibrate(student, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(student.bn1.running_mean, running[0])
    assert torch.equal(student.aux[0].num_batches_tracked, running[1])
    assert student.aux[0].track_running_stats
    assert not any(m._forward_hooks for m in student.modules() if m is not student)
    y, extra = student.train()(x)
    (y.sum() + extra.sum()).backward()
    assert all(p.grad.isfinite().all() for p in student.parameters())
    assert daqakd.summary(student).macs == daqakd.summary(daqakd.calibrate(twin, x)).macs + 24


def test_training_that_fails_is_told():
    class Labels(Auxiliary):
        def forward(self, x, labels=None):
            if self.training and labels is None:
                raise TypeError("labels are missing")
            return super().forward(x)

    student = daqakd.quantize(Labels(), weight_bits=4, act_bits=4)
    with pytest.raises(daqakd.InputError, match=r"aux\.2.*TypeError: labels are missing.*exclude="):
        daqakd.calibrate(student, images())


@pytest.mark.parametrize("method", METHODS)
def test_inputs_that_are_all_zero(method):
    student = daqakd.quantize(SmallNet(), weight_bits=4, act_bits=4, method=method)
    daqakd.calibrate(student, torch.zeros(4, 3, 16, 16))
    student.train()(images()).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in student.parameters())
    assert student.conv1.weight.grad.any(), "the ranges start where gradients pass"


@pytest.mark.parametrize("method", METHODS)
def test_activations_that_fade_from_layer_to_layer(method):
    """In evaluation an untrained EfficientNet's values fall below the smallest step."""
    torch.manual_seed(0)
    model = torchvision.models.efficientnet_b0(weights=None)
    student = daqakd.quantize(model, weight_bits=4, act_bits=4, method=method)
    x = torch.randn(2, 3, 64, 64)
    daqakd.calibrate(student, x).train()
    loss = nn.functional.cross_entropy(student(x), torch.tensor([0, 1]))
    loss.backward()
    assert loss.isfinite()
    assert all(p.isfinite().all() for p in student.parameters())
    assert all(p.grad is None or p.grad.isfinite().all() for p in student.parameters())

"""Python's copies of the flags follow the buffers, whoever wrote them."""

import copy
import json
import pickle
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode

import daqakd
from daqakd.quant.base import ActivationQuantizer
from daqakd.train.store import ModelFile, load_model

from ..helpers.small import SmallNet
from .test_quant import METHODS, images


def fresh(method: str = "lsq") -> nn.Module:
    torch.manual_seed(0)
    return daqakd.quantize(SmallNet(), weight_bits=4, act_bits=4, method=method).eval()


def test_calibrating_again_reaches_an_average():
    student = daqakd.calibrate(fresh(), images().abs())
    twin = copy.deepcopy(student)
    average = AveragedModel(student, use_buffers=True)
    assert not student.conv1.act_quantizer.is_signed
    daqakd.calibrate(student, images())
    average.update_parameters(student)
    assert average.module.conv1.act_quantizer.is_signed
    x = images()
    assert torch.equal(average(x), student(x))
    assert not torch.equal(twin(x), student(x))


@pytest.mark.parametrize("method", METHODS)
def test_an_average_made_before_calibration_runs(method):
    student = fresh(method)
    average = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)
    daqakd.calibrate(student, images())
    for _ in range(50):  # 0.999 + 0.001 may be less than 1
        average.update_parameters(student)
    assert average.module.conv1.act_quantizer.is_calibrated
    assert average(images()).isfinite().all()


def test_averages_of_torch_take_the_buffers():
    student = daqakd.calibrate(fresh(), images())
    average = AveragedModel(student, use_buffers=True)
    for _ in range(3):
        average.update_parameters(student)
    x = images()
    torch.testing.assert_close(average(x), student(x))


def test_values_of_functional_call_and_by_hand():
    student, other = daqakd.calibrate(fresh(), images()), fresh()
    x = images()
    assert torch.equal(torch.func.functional_call(other, student.state_dict(), x), student(x))
    with pytest.raises(daqakd.InputError, match="before calibration"):
        other(x)  # its own buffers are back
    with torch.no_grad():
        for name, value in student.state_dict().items():
            other.state_dict()[name].copy_(value)
    assert torch.equal(other(x), student(x))
    other.conv1.act_quantizer.calibrated.zero_()
    with pytest.raises(daqakd.InputError, match="before calibration"):
        other(x)


def test_old_files_have_flags_of_bool_and_steps_without_dimension():
    for method in METHODS:
        student = daqakd.calibrate(fresh(method), images())
        assert all(p.dim() > 0 for p in student.parameters())  # fully_shard refuses 0-dim ones
        old = {k: v.reshape(()) if v.shape == (1,) else v for k, v in student.state_dict().items()}
        old |= {k: v.bool() for k, v in old.items() if k.endswith(("signed", "calibrated"))}
        other = fresh(method)
        other.load_state_dict(old)
        x = images()
        assert torch.equal(other(x), student(x))
        assert {k: v.shape for k, v in old.items()} != {
            k: v.shape for k, v in student.state_dict().items()
        } or method == "dorefa"


class Reads(TorchDispatchMode):
    """Counts what would wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.of[func.name()] += "_local_scalar_dense" in func.name() or "stack" in func.name()
        return func(*args, **(kwargs or {}))


def test_unchanged_flags_are_not_read():
    student = daqakd.calibrate(fresh(), images())
    with Reads() as reads:
        student(images())
        student.conv1(images())
    assert not sum(reads.of.values())
    quantizers = [m for m in student.modules() if isinstance(m, ActivationQuantizer)]
    for quantizer in quantizers:
        quantizer.calibrated.fill_(0.5)  # what an average may hold
    with Reads() as reads:
        student(images())
    assert reads.of["aten::stack"] == 1, "one read for the whole model"


def test_replicas_take_the_flags_of_their_source():
    student = fresh()
    student.conv1.act_quantizer.calibrated.fill_(1.0)
    replica = student.conv1.act_quantizer._replicate_for_data_parallel()
    replica._buffers = {name: torch.zeros(()) for name in replica._buffers}  # as on each device
    assert not replica.flags_changed()
    assert replica.known_calibrated


def test_copies_read_their_own_buffers():
    student = daqakd.calibrate(fresh(), images().abs())
    twins = copy.deepcopy(student), pickle.loads(pickle.dumps(student))
    for twin in twins:
        quantizer = twin.conv1.act_quantizer
        for times in range(4):  # whatever its counter of changes is then
            quantizer.signed.fill_(times % 2)
            assert quantizer.is_signed == bool(times % 2)
        assert not student.conv1.act_quantizer.is_signed


def test_changes_that_torch_does_not_count():
    quantizer = daqakd.calibrate(fresh(), images().abs()).conv1.act_quantizer
    quantizer.signed.data.fill_(1.0)
    assert quantizer.is_signed
    quantizer.signed.data = torch.zeros(())
    assert not quantizer.is_signed


@pytest.mark.parametrize("method", METHODS)
def test_student_files_of_before_load(method):
    recipe = {"weight_bits": 4, "act_bits": 4, "method": method}
    student = daqakd.calibrate(fresh(method), images())
    old = {k: v.reshape(()) if v.shape == (1,) else v for k, v in student.state_dict().items()}
    file = ModelFile(Path("student"), old, {"quantize": json.dumps(recipe)})
    loaded = load_model(file, "tests.helpers.small:small_net", 3)
    x = images()
    assert torch.equal(loaded(x), student(x))

"""The weight cache: one call for all weights, with the results of one call each."""

import copy
import pickle
from threading import Thread

import pytest
import torch
from torch import nn

import daqakd
from daqakd.backends import table
from daqakd.quant.weight_cache import WeightCache

from ..helpers.cached import (
    MANY,
    Calls,
    assert_same_step,
    images,
    require_native,
    step,
    student,
    without_cache,
)

each_method = pytest.mark.parametrize("method", MANY)


@pytest.fixture(autouse=True)
def _native():
    require_native()


@each_method
@pytest.mark.parametrize("per_channel", [False, True])
def test_one_call_and_the_same_bits(method, per_channel):
    model = student(method, per_channel=per_channel)
    with Calls() as calls:
        step(model)
    single = MANY[method].removesuffix("_many")
    assert calls.of[f"{MANY[method]}_forward"] == calls.of[f"{MANY[method]}_backward"] == 1
    assert calls.of[f"{single}_forward"] == calls.of[f"{single}_backward"] == 0
    assert_same_step(model, without_cache(model))


def test_large_weights_stay_alone(monkeypatch):
    monkeypatch.setitem(table.TOGETHER_BELOW, "cpu", (8 * 8 * 9, "this test"))
    model = student()
    with Calls() as calls:
        step(model)
    assert calls.of["lsq_many_forward"] == calls.of["lsq_forward"] == 1  # conv2 is just too large
    assert_same_step(model, without_cache(model))


def test_each_method_and_dtype_has_its_own_call():
    overrides = {"conv2": {"weight_method": "ewgs"}, "fc": {"weight_method": "ewgs"}}
    model = student("lsq", overrides=overrides)
    with Calls() as calls:
        step(model)
    assert calls.of["ewgs_many_forward"] == 1
    assert calls.of["lsq_forward"] == 1, "one weight alone gains nothing"
    assert calls.of["lsq_many_forward"] == 0


def test_a_layer_called_alone_quantizes_alone():
    model = student()
    model(images())
    for _ in range(2):  # a weight of the last forward pass could be used once
        model.conv1(images()).sum().backward()
    assert model.conv1.weight.grad is not None


class Twice(nn.Module):
    """One layer used twice, one never."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.never = nn.Linear(6, 6)

    def forward(self, x):
        return self.second(torch.relu(self.first(torch.relu(self.first(x)))))


@each_method
def test_a_layer_used_twice_and_one_never(method):
    x = torch.randn(5, 6)
    model = daqakd.quantize(Twice(), weight_bits=3, act_bits=None, method=method)
    model.zero_grad()
    model(x).square().mean().backward()
    found = {n: p.grad for n, p in model.named_parameters()}
    alone = without_cache(model)
    alone.zero_grad()
    alone(x).square().mean().backward()
    assert found["never.weight"] is None
    for name, p in alone.named_parameters():
        if p.grad is None:
            assert found[name] is None
        else:
            torch.testing.assert_close(found[name], p.grad)


def test_groups_are_made_once(monkeypatch):
    model, made = student(act_bits=3), []
    make = WeightCache._make_calls
    monkeypatch.setattr(WeightCache, "_make_calls", lambda cache: made.append(1) or make(cache))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        step(model)
        optimizer.step()
    assert made == []
    model.conv2.weight_quantizer.bits = 2
    step(model)
    step(model)
    assert made == [1]


def test_copies_and_saved_models_have_caches_of_their_own(tmp_path):
    model = student()
    model(images())
    torch.save(model, tmp_path / "whole.pt")
    loaded = torch.load(tmp_path / "whole.pt", weights_only=False)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        with Calls() as calls:
            step(twin)
        assert calls.of["lsq_many_forward"] == 1
        assert_same_step(twin, without_cache(model))
        twin.conv1.weight.data.zero_()
        assert model.conv1.weight.any()
    assert_same_step(model, without_cache(model))


def test_a_copied_part_leaves_the_model_behind():
    model = student()
    assert len(pickle.dumps(model.fc)) < 0.5 * len(pickle.dumps(model))


def test_a_copy_made_within_a_forward_pass():
    model, copies = student(), []
    model.conv2.register_forward_pre_hook(lambda *_: copies.append(copy.deepcopy(model.conv1)))
    model(images())
    assert copies[0].cached_weight is None


def test_a_failed_forward_pass_leaves_nothing_behind():
    model = student()
    with pytest.raises(RuntimeError):
        model(torch.randn(1, 5, 4, 4))
    assert model.conv1.cached_weight is model.conv1.activation_cache is None


def test_another_thread_does_not_take_this_ones_weights():
    model, taken = student(), []

    def look(*_):
        other = Thread(target=lambda: taken.append(model.conv1.cached_weight.get()))
        other.start()
        other.join()
        taken.append(model.conv1.cached_weight.get())

    model.bn1.register_forward_pre_hook(look)
    model(images())
    assert taken[0] is None
    assert taken[1] is not None


def test_replicas_do_not_touch_the_weight_cache():
    model = student()
    replica = model._replicate_for_data_parallel()
    assert replica._is_replica
    with Calls() as calls:
        replica(images())
    assert calls.of["lsq_many_forward"] == 0


def test_dequantized_models_have_no_weight_cache():
    plain = daqakd.dequantize(student())
    assert not plain._forward_pre_hooks
    assert not plain._forward_hooks
    assert not plain._forward_hooks_always_called

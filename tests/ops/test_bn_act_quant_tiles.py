"""The Triton kernels that sum several tiles a program, which only large tensors have."""

import os

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs where Triton is interpreted", allow_module_level=True)

from daqakd.kernels import _partition

from ..helpers.cases import Case
from .test_bn_act_quant import LONG, SHAPES, Chain, check

CASES = {
    "tall": LONG["long-columns"],
    "images": Case("cl", (13, 6, 9, 31), lambda x: x.to(memory_format=torch.channels_last)),
    "short-runs": SHAPES["short-runs"],
}


@pytest.fixture(params=[1, 4, 8])
def _few_programs(request, monkeypatch):
    monkeypatch.setattr(_partition, "ENOUGH", request.param)
    _partition.plan_of.cache_clear()
    yield
    _partition.plan_of.cache_clear()


def test_steps_leave_enough_programs(monkeypatch):
    view = _partition.View(1100, 40, 1)
    monkeypatch.setattr(_partition, "ENOUGH", 8)
    plan = _partition.Columns(view).summing
    assert (plan.steps, plan.down, plan.programs) == (3, 2, 8)
    assert plan.down * plan.steps * plan.rows * plan.width >= view.numel


@pytest.mark.usefixtures("_few_programs", "poisoned_empty")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["lsq", "ewgs"])
def test_triton_steps(case, method):
    check(Chain(method, with_residual=method == "ewgs"), CASES[case], torch.float32, "triton")

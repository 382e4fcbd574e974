"""What only a GPU can show of the ``*_many`` ops and the weight bank: values, launches, graphs."""

import copy

import pytest
import torch
from torch import Tensor

import daqakd
from daqakd.bench.many import resnet20_shapes
from daqakd.models import build
from daqakd.quant.weight_cache import WeightCache

from ..helpers import cases
from ..ops import test_many

BACKENDS = ("native", "triton")
each_backend = pytest.mark.parametrize("backend", BACKENDS)
BACKWARD = {"native": 1, "triton": 2}  # with sums


def weights(stem: str, device: str, shapes=None) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Return ResNet-20's weights, or others, and their parameters."""
    generator = torch.Generator().manual_seed(1)
    shapes = resnet20_shapes() if shapes is None else shapes
    w = [torch.randn(shape, generator=generator).to(device).requires_grad_() for shape in shapes]
    return w, test_many.parameters_of(stem, w, per_row=False)


def on(device: str, lists: list[list[Tensor]]) -> list[list[Tensor]]:
    return [[p.detach().to(device).requires_grad_() for p in one] for one in lists]


def outcome(stem: str, backend: str, device: str, run=test_many.together) -> list[Tensor]:
    w, parameters = weights(stem, device)
    parameters = on(device, parameters)
    y = run(stem, w, parameters, backend)
    g = [(0.5 * x.detach().flip(0)).contiguous() for x in w]
    return [*y, *torch.autograd.grad(y, [*w, *(p for one in parameters for p in one)], g)]


def test_the_weights_fit_one_launch():
    assert len(resnet20_shapes()) <= 32


@pytest.mark.gpu
@each_backend
@test_many.each_stem
def test_small_agrees_with_the_native_cpu(stem, backend):
    cases.require(stem, backend, device="cuda")
    found, wanted = outcome(stem, backend, "cuda"), outcome(stem, "native", "cpu")
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-4 * float(b.abs().max() + 1))


@pytest.mark.gpu
@test_many.each_stem
def test_equals_the_single_op(stem):
    cases.require(stem, "native", device="cuda")
    wanted = outcome(stem, "native", "cuda", test_many.single)
    assert all(map(torch.equal, outcome(stem, "native", "cuda"), wanted))


@pytest.mark.gpu
@each_backend
@test_many.each_stem
def test_launches_and_bits(stem, backend):
    """One launch forward, DoReFa two; one backward, Triton two; the same bits every time."""
    cases.require(stem, backend, device="cuda")
    first = outcome(stem, backend, "cuda")
    w, parameters = weights(stem, "cuda")
    parameters = on("cuda", parameters)
    leaves = [*w, *(p for one in parameters for p in one)]
    counted = []
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    g = [x.detach() for x in w]
    y = ()
    for part in ("forward", "backward"):
        with torch.profiler.profile(activities=activities) as profile:
            if part == "forward":
                y = test_many.together(stem, w, parameters, backend)
            else:
                torch.autograd.grad(y, leaves, g)
            torch.cuda.synchronize()
        events = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
        counted.append(len([e for e in events if "many" in e.name]))
    detached = stem == "dorefa_weight_many"
    assert counted == ([2, 1] if detached else [1, BACKWARD[backend]])
    assert all(map(torch.equal, outcome(stem, backend, "cuda"), first))


@pytest.mark.gpu
@each_backend
@pytest.mark.parametrize("method", ["lsq", "pact", "ewgs"])
def test_a_step_with_the_weight_cache_in_a_graph(method, backend):
    cases.require("lsq_many", backend, device="cuda")
    torch.manual_seed(0)
    x = torch.randn(8, 3, 32, 32, device="cuda")
    student = daqakd.quantize(
        build("resnet20", 10).cuda(), weight_bits=2, act_bits=2, method=method
    )
    daqakd.calibrate(student, x).train()
    alone = copy.deepcopy(student)
    WeightCache.detach(alone)
    with daqakd.use_backend(backend):
        wanted = alone(x)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            copy.deepcopy(student)(x).sum().backward()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.set_sync_debug_mode("error")
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                y = student(x)
                y.sum().backward()
            graph.replay()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(y, wanted)

"""What only a GPU can show of the distillation loss: values, launches, graphs, streams."""

import pytest
import torch

from daqakd._ops import overload
from daqakd.functional import kd_loss

from ..helpers.runs import RUNS, SHAPES
from .test_gpu import DTYPES, each_backend, require


@pytest.mark.gpu
@each_backend
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_kd_loss_small_agrees_with_the_reference(name, dtype, backend):
    require("kd_loss", dtype, backend)
    wanted = RUNS["kd_loss"](name, dtype, "reference")
    for result, value in zip(RUNS["kd_loss"](name, dtype, backend, "cuda"), wanted, strict=True):
        unit = torch.finfo(result.dtype).eps
        size = float(value.abs().max()) if value.numel() else 0.0
        torch.testing.assert_close(
            result.cpu(), value, rtol=8 * unit, atol=(8 * unit + 4e-6) * size
        )


def kd_arguments(rows, classes, temperature=None):
    z, t = (3 * torch.randn(rows, classes, device="cuda") for _ in range(2))
    y = torch.randint(classes, (rows,), device="cuda")
    return (z, t, y, 4.0, 1.0, 2.0, temperature, None, None, 0.0, -100, 1)


def launches(function):
    """Return the names of what a call runs on the GPU."""
    function()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        function()
        torch.cuda.synchronize()
    device = torch.autograd.DeviceType.CUDA
    return [event.name for event in profile.events() if event.device_type == device]


@pytest.mark.gpu
@each_backend
@pytest.mark.parametrize("size", [(256, 10), (256, 100), (256, 1000), (64, 4097), (32, 32000)])
def test_kd_loss_is_one_launch_each_way(size, backend):
    require("kd_loss", torch.float32, backend)
    arguments = kd_arguments(*size)
    forward, backward = (overload(f"kd_loss_{way}", backend) for way in ("forward", "backward"))
    found = launches(lambda: forward(*arguments, True))
    assert len(found) == 1, found
    g = torch.ones((), device="cuda")
    found = launches(lambda: backward(g, *arguments))
    assert len(found) == 1, found


@pytest.mark.gpu
@each_backend
@pytest.mark.parametrize("classes", [10, 1000, 32000])
def test_kd_loss_in_a_graph_takes_a_changed_temperature(classes, backend):
    require("kd_loss", torch.float32, backend)
    temperature = torch.tensor(4.0, device="cuda")
    arguments = kd_arguments(256, classes, temperature)
    forward = overload("kd_loss_forward", backend)
    forward(*arguments, True)
    pairs = []
    torch.cuda.set_sync_debug_mode("error")
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = forward(*arguments, True)
        for value in (4.0, 2.5, 7.0):
            temperature.fill_(value)
            graph.replay()
            pairs += zip([x.clone() for x in captured], forward(*arguments, True), strict=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(*pair) for pair in pairs)


@pytest.mark.gpu
@each_backend
def test_kd_loss_steps_without_synchronizing(backend):
    require("kd_loss", torch.float32, backend)
    z, t, y = kd_arguments(256, 100)[:3]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for recompute in (False, True):
            leaf = z.clone().requires_grad_()
            options = {"recompute": recompute, "return_parts": True, "backend": backend}
            loss, _, _ = kd_loss(leaf, t, y, **options)
            loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@each_backend
def test_kd_loss_on_two_streams_at_once(backend):
    """Launches that overlap must not share the counter that finds the last block."""
    require("kd_loss", torch.float32, backend)
    arguments = kd_arguments(4096, 100)
    forward = overload("kd_loss_forward", backend)
    wanted, streams = forward(*arguments, True), [torch.cuda.Stream() for _ in range(2)]
    torch.cuda.synchronize()
    results = []
    for i in range(50):
        with torch.cuda.stream(streams[i % 2]):
            results.append(forward(*arguments, True))
    torch.cuda.synchronize()
    assert all(all(map(torch.equal, result, wanted)) for result in results)


@pytest.mark.gpu
@each_backend
def test_kd_loss_in_graphs_that_run_at_once(backend):
    require("kd_loss", torch.float32, backend)
    arguments = kd_arguments(4096, 100)
    forward = overload("kd_loss_forward", backend)
    wanted, graphs = forward(*arguments, True), [torch.cuda.CUDAGraph() for _ in range(2)]
    results = []
    for graph in graphs:
        with torch.cuda.graph(graph):
            results.append(forward(*arguments, True))
    streams = [torch.cuda.Stream() for _ in graphs]
    torch.cuda.synchronize()
    for i in range(50):
        with torch.cuda.stream(streams[i % 2]):
            graphs[i % 2].replay()
    torch.cuda.synchronize()
    assert all(all(map(torch.equal, result, wanted)) for result in results)


@pytest.mark.gpu
@each_backend
def test_kd_loss_of_a_label_beyond_the_classes_is_nan(backend):
    require("kd_loss", torch.float32, backend)
    z, t, _ = kd_arguments(4, 10)[:3]
    y = torch.tensor([0, 10, -1, 9], device="cuda")
    loss = kd_loss(z, t, y, reduction="none", backend=backend)
    assert loss.isnan().tolist() == [False, True, True, False]

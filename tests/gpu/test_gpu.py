"""What only a GPU can show: values, bits from run to run, graphs, no synchronization."""

import pytest
import torch

from daqakd.backends import can_run
from daqakd.functional import lsq

from ..helpers.runs import RUNS, SHAPES, inputs

BACKENDS = ("native", "triton")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def on_gpu(name, dtype, backend):
    reason = can_run("lsq", backend, "cuda", dtype)
    if reason is not None:
        pytest.skip(reason)
    x, step, axis = inputs(name, dtype)
    return x.cuda(), step.cuda(), axis


def run(backend, x, step, axis, ste=0):
    ops = torch.ops.daqakd
    y = getattr(ops.lsq_forward, backend)(x, step, -8, 7, axis)
    return y, *getattr(ops.lsq_backward, backend)(x.flip(0), x, step, -8, 7, axis, ste, 0.5)


def test_the_list_of_shapes_reaches_every_kernel():
    assert {"tensor", "rows", "images", "columns", "short-runs"} <= set(SHAPES)


@pytest.mark.gpu
@each_backend
@pytest.mark.parametrize("ste", [0, 1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_small_agrees_with_the_reference(name, dtype, ste, backend):
    x, step, axis = on_gpu(name, dtype, backend)
    y, dx, ds = run(backend, x, step, axis, ste)
    wanted = run("reference", x.cpu(), step.cpu(), axis, ste)
    assert torch.equal(y.cpu(), wanted[0])
    assert torch.equal(dx.cpu(), wanted[1])
    torch.testing.assert_close(ds.cpu(), wanted[2], rtol=1e-4, atol=0.05)


@pytest.mark.gpu
@each_backend
@pytest.mark.parametrize("name", SHAPES)
def test_same_bits_on_every_run(name, backend):
    x, step, axis = on_gpu(name, torch.float32, backend)
    first = run(backend, x, step, axis)
    for _ in range(5):
        assert all(map(torch.equal, run(backend, x, step, axis), first))


def require(op, dtype, backend):
    reason = can_run(op, backend, "cuda", dtype)
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.gpu
@each_backend
@pytest.mark.parametrize("op", ["pact", "dorefa_activation", "ewgs", "lsqplus", "seq", "codes"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_every_op_agrees_with_the_reference(name, dtype, op, backend):
    """Exactly, but for the sums over the whole tensor, which only differ in their order."""
    require(op, dtype, backend)
    results = RUNS[op](name, dtype, backend, "cuda")
    numel = results[0].numel()
    for result, value in zip(results, RUNS[op](name, dtype, "reference"), strict=True):
        if result.numel() * 8 >= numel:
            assert torch.equal(result.cpu(), value)
        else:
            torch.testing.assert_close(result.cpu(), value, rtol=1e-4, atol=1e-6 * numel**0.5)


@pytest.mark.gpu
@each_backend
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_weights_agree_with_the_native_cpu(name, dtype, backend):
    """The largest weight is exact and tanh has the same bits, so only the sums differ."""
    require("dorefa_weight", dtype, backend)
    results = RUNS["dorefa_weight"](name, dtype, backend, "cuda")
    for result, value in zip(results, RUNS["dorefa_weight"](name, dtype), strict=True):
        torch.testing.assert_close(result.cpu(), value, rtol=1e-2, atol=1e-3)


@pytest.mark.gpu
@each_backend
@pytest.mark.parametrize("op", RUNS)
@pytest.mark.parametrize("name", SHAPES)
def test_every_op_gives_the_same_bits_on_every_run(name, op, backend):
    require(op, torch.float32, backend)
    first = RUNS[op](name, torch.float32, backend, "cuda")
    for _ in range(3):
        assert all(map(torch.equal, RUNS[op](name, torch.float32, backend, "cuda"), first))


@pytest.mark.gpu
@each_backend
def test_captured_in_a_graph_without_synchronizing(backend):
    x, step, axis = on_gpu("images", torch.float32, backend)
    eager = run(backend, x, step, axis)
    torch.cuda.set_sync_debug_mode("error")
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = run(backend, x, step, axis)
        graph.replay()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(map(torch.equal, captured, eager))


@pytest.mark.gpu
@pytest.mark.slow
@each_backend
def test_more_than_2_to_the_31_elements(backend):
    reason = can_run("lsq", backend, "cuda", torch.bfloat16)
    if reason is not None:
        pytest.skip(reason)
    x = torch.full((2**31 + 17,), 3.0, dtype=torch.bfloat16, device="cuda")
    y = lsq(x, torch.tensor(1.0, device="cuda"), bits=2, signed=True, backend=backend)
    assert y[0] == 1
    assert y[-1] == 1
    assert bool((y == 1).all())

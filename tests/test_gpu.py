"""What only a GPU can show: values, bits from run to run, graphs, no synchronization."""

import pytest
import torch

from daqakd._ops import overload
from daqakd.backends import can_run
from daqakd.backends.reference_cmi import from_limbs
from daqakd.functional import cmi, cmi_update, kd_loss, lsq
from daqakd.functional.cmi import new_state

from .test_native import RUNS, SHAPES, inputs

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
@pytest.mark.parametrize("op", ["pact", "dorefa_activation", "ewgs"])
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
    heat = torch.tensor(4.0, device="cuda")
    arguments = kd_arguments(256, classes, heat)
    forward = overload("kd_loss_forward", backend)
    forward(*arguments, True)
    pairs = []
    torch.cuda.set_sync_debug_mode("error")
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = forward(*arguments, True)
        for temperature in (4.0, 2.5, 7.0):
            heat.fill_(temperature)
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
    for turn in range(50):
        with torch.cuda.stream(streams[turn % 2]):
            results.append(forward(*arguments, True))
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


ROWS, CLASSES = (1, 7, 256, 4099), (2, 10, 100, 200, 1000)


def cmi_batch(rows, classes, dtype=torch.float32, kind="hard"):
    """Return logits, labels and groups on the CPU."""
    generator = torch.Generator().manual_seed(11)
    labels = torch.randint(classes, (rows,), generator=generator)
    z = torch.randn(rows, classes, generator=generator)
    z = (z + 6.0 * torch.nn.functional.one_hot(labels, classes)).to(dtype)
    if kind == "soft":
        labels = torch.nn.functional.one_hot(labels, classes) * 0.7
        labels = labels + 0.3 * torch.nn.functional.one_hot(z.argmin(1), classes)
    return z, labels, torch.arange(rows) % 3


def cmi_state(backend, z, labels, group, device="cuda"):
    state = new_state(z.shape[1], 3, device)
    cmi_update(state, z.to(device), labels.to(device), group=group.to(device), backend=backend)
    return state


@pytest.mark.gpu
@each_backend
@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("rows", ROWS)
def test_small_cmi_sums_agree_with_the_reference(rows, classes, dtype, kind, backend):
    require("cmi", dtype, backend)
    if kind == "soft" and rows * classes > 10**6:
        pytest.skip("the reference takes a pass per class")
    batch = cmi_batch(rows, classes, dtype, kind)
    state = cmi_state(backend, *batch)
    expected = from_limbs(cmi_state("reference", *batch, device="cpu"))
    torch.testing.assert_close(from_limbs(state.cpu()), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("classes", [*CLASSES, 1025])
def test_cmi_sums_have_the_bits_of_the_cpu(classes, kind):
    """The formulas are one source without a fused multiply-add, and a row's order is the same."""
    require("cmi", torch.float32, "native")
    batch = cmi_batch(257, classes, kind=kind)
    on_cpu = cmi_state("native", *batch, device="cpu")
    assert torch.equal(cmi_state("native", *batch).cpu(), on_cpu)


@pytest.mark.gpu
@each_backend
@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("classes", [10, 100, 1025])
def test_cmi_sums_have_the_same_bits_in_any_order(classes, kind, backend):
    require("cmi", torch.float32, backend)
    z, labels, group = cmi_batch(2000, classes, kind=kind)
    first = cmi_state(backend, z, labels, group)
    for _ in range(3):
        order = torch.randperm(len(z))
        state = sum(
            cmi_state(backend, *part)
            for part in zip(*(t[order].split(333) for t in (z, labels, group)), strict=True)
        )
        assert torch.equal(state, first)


@pytest.mark.gpu
@each_backend
@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [*CLASSES, 1025])
def test_small_cmi_divergence_agrees_with_the_reference(classes, dtype, kind, backend):
    require("cmi", dtype, backend)
    z, labels, _ = cmi_batch(65, classes, dtype, kind)
    centroids = torch.rand(classes, classes, dtype=torch.float64).softmax(1)

    def value_and_gradient(device, backend):
        x = z.to(device).requires_grad_()
        value = cmi(x, labels.to(device), centroids=centroids.to(device), backend=backend)
        return value.detach().cpu(), torch.autograd.grad(value, x)[0].cpu()

    results = value_and_gradient("cuda", backend)
    for result, wanted in zip(results, value_and_gradient("cpu", "reference"), strict=True):
        torch.testing.assert_close(result, wanted)


@pytest.mark.gpu
@each_backend
def test_labels_out_of_range_count_as_invalid(backend):
    require("cmi", torch.float32, backend)
    z, labels, group = cmi_batch(7, 10)
    labels[2], labels[5] = 10, -1
    sums = from_limbs(cmi_state(backend, z, labels, group).cpu())
    assert sums[..., 10 + 4].sum() == 2
    assert sums[..., 10].sum() == 5


@pytest.mark.gpu
@each_backend
def test_cmi_is_captured_in_a_graph_without_synchronizing(backend):
    require("cmi", torch.float32, backend)
    z, labels, group = (t.cuda() for t in cmi_batch(500, 10))
    once = cmi_state(backend, z, labels, group)
    state, stream = torch.zeros_like(once), torch.cuda.Stream()
    cmi(z, labels, backend=backend)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            cmi_update(state, z, labels, group=group, backend=backend)
            value = cmi(z, labels, backend=backend)
        graph.replay()
        graph.replay()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(state, 2 * once)
    assert torch.equal(value, cmi(z, labels, backend=backend))

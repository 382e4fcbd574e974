"""What only a GPU can show of CMI: values, the bits of the CPU, graphs."""

import pytest
import torch

from daqakd._cmi import from_limbs
from daqakd.functional import cmi, cmi_update
from daqakd.functional.cmi import new_state

from .test_gpu import DTYPES, each_backend, require

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

import itertools
from functools import partial

import pytest
import torch

from daqakd import _ops
from daqakd.backends import can_run
from daqakd.functional import kd_loss

from ..helpers import cases, tolerance, truth
from ..helpers.cases import each_backend, each_dtype

pytestmark = pytest.mark.usefixtures("poisoned_empty")
SIZES = ((1, 1), (3, 2), (17, 10), (33, 32), (7, 33), (7, 100), (33, 1000), (5, 1025), (2, 8193))
ROWS, CLASSES = (1, 7, 256, 4099), (2, 10, 100, 200, 1000, 4097, 32000)
KINDS = ("hard", "soft", "some-ignored", "all-ignored", "none")
REDUCTIONS = tuple(_ops.REDUCTION_CODES)
each_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)
INF = float("inf")


def logits(rows: int, classes: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return (3 * torch.randn(rows, classes, dtype=torch.float64)).to(dtype)


def make_labels(kind: str, rows: int, classes: int) -> torch.Tensor | None:
    if kind == "none":
        return None
    if kind == "soft":
        return torch.randn(rows, classes, dtype=torch.float64).softmax(1)
    hard = torch.randint(classes, (rows,))
    if kind == "some-ignored":
        hard[::3] = -100
    return torch.full_like(hard, -100) if kind == "all-ignored" else hard


def widest(backend: str) -> torch.dtype:
    return torch.float32 if backend in cases.SIMULATED else torch.float64


def counted(labels: torch.Tensor | None, rows: int) -> int:
    if labels is None or labels.is_floating_point():
        return rows
    return int((labels != -100).sum())


GRADIENT_FLOORS = {  # a 16-bit gradient is rounded twice: when made and when scaled
    torch.float64: 1e-10,
    torch.float32: 2e-6,
    torch.bfloat16: 2.0**-7,
    torch.float16: 2.0**-10,
}


def own_formula(z, t, labels, g, reduction, **options):
    """Return what PyTorch's own losses give in the dtype of ``z``, and their gradient."""
    z = z.detach().requires_grad_()
    terms = truth.kd_loss(z, t, labels, **options)
    loss = truth.reduce_loss(*terms, counted(labels, len(z)), reduction)
    return loss.detach(), *torch.autograd.grad(loss, z, g.to(loss.dtype))


def check_against_truth(z, t, labels, *, reduction, backend, recompute=(False,), **options):
    dtype = _ops.accumulation_dtype(z.dtype)
    g = torch.randn(len(z) if reduction == "none" else (), dtype=torch.float64).to(dtype)
    exact = own_formula(z.double(), t.double(), labels, g, reduction, **options)
    eager = None, None
    if z.dtype != torch.float64:
        soft = labels is not None and labels.is_floating_point()
        target = labels.to(z.dtype) if soft else labels
        eager = own_formula(z, t.to(z.dtype), target, g, reduction, **options)
    run = partial(kd_loss, teacher_logits=t, labels=labels, reduction=reduction, backend=backend)
    for again in recompute:
        loss, dz = truth.with_gradients(run, [z], g, recompute=again, **options)
        assert loss.dtype == dtype
        tolerance.check_close(loss, exact[0], eager=eager[0])
        floor = GRADIENT_FLOORS[z.dtype]
        tolerance.check_close(dz, exact[1], eager=eager[1], floor=floor, unit=1e-30)
        tolerance.check_layout(dz, z)


@cases.each_combination(
    size={f"{rows}x{classes}": (rows, classes) for rows, classes in SIZES},
    reduction={name: name for name in REDUCTIONS},
)
def test_agrees_with_truth(size, reduction, dtype, backend):
    cases.require("kd_loss", backend, dtype)
    z, t, labels = logits(*size, dtype), logits(*size, dtype), make_labels("hard", *size)
    check_against_truth(z, t, labels, reduction=reduction, backend=backend)


LARGEST = {"native": 2**22, "reference": 2**20, "triton": 2**15, "emulated": 2**15}


def sizes_with_all_pairs():
    """Rows by classes, a dtype and a reduction each so that all pairs meet; the rest is slow."""
    for (i, rows), (j, classes) in itertools.product(enumerate(ROWS), enumerate(CLASSES)):
        choices = itertools.product(enumerate(cases.DTYPES), enumerate(REDUCTIONS), cases.BACKENDS)
        for (d, dtype), (r, reduction), backend in choices:
            size = rows * classes
            large = size > LARGEST[backend]
            chosen = d == (i + j) % 4 or (backend in cases.SIMULATED and d == 1 + (i + j) % 3)
            ordinary = chosen and r == (i + 2 * j) % 3 and not large
            name = f"{rows}x{classes}-{reduction}-{cases.dtype_name(dtype)}-{backend}"
            marks = () if ordinary else pytest.mark.slow
            kind = KINDS[(i + j + d + r) % len(KINDS)]
            yield pytest.param(rows, classes, kind, reduction, dtype, backend, id=name, marks=marks)


@pytest.mark.parametrize(
    ("rows", "classes", "kind", "reduction", "dtype", "backend"), list(sizes_with_all_pairs())
)
def test_agrees_with_truth_at_every_size(rows, classes, kind, reduction, dtype, backend):
    cases.require("kd_loss", backend, dtype)
    z, t = logits(rows, classes, dtype), logits(rows, classes, dtype)
    labels = make_labels(kind, rows, classes)
    check = partial(check_against_truth, z, t, labels, reduction=reduction, backend=backend)
    check(recompute=(False, True))


@each_backend
@each_dtype
@pytest.mark.parametrize("other", [torch.bfloat16, torch.float32, torch.float64])
def test_a_teacher_of_another_dtype(other, dtype, backend):
    cases.require("kd_loss", backend, dtype)
    z, t = logits(17, 33, dtype), logits(17, 33, torch.bfloat16)
    check = partial(check_against_truth, z, reduction="mean", backend=backend)
    check(t=t.to(other), labels=make_labels("some-ignored", 17, 33))


@each_backend
@each_dtype
@each_reduction
@pytest.mark.parametrize("kind", KINDS)
def test_recomputing_gives_the_gradient_of_the_default(kind, reduction, dtype, backend):
    """The same bits, but for a second rounding of 16-bit gradients."""
    cases.require("kd_loss", backend, dtype)
    z, t, labels = logits(17, 10, dtype), logits(17, 10, dtype), make_labels(kind, 17, 10)
    g = torch.rand(17 if reduction == "none" else (), dtype=_ops.accumulation_dtype(dtype))
    run = partial(kd_loss, teacher_logits=t, labels=labels, reduction=reduction, backend=backend)
    loss, dz = truth.with_gradients(run, [z], g)
    other_loss, other_dz = truth.with_gradients(partial(run, recompute=True), [z], g)
    assert torch.equal(loss, other_loss)
    if dtype.itemsize > 2:
        assert torch.equal(dz, other_dz)
    torch.testing.assert_close(dz, other_dz, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


@each_backend
def test_recomputing_keeps_no_gradient(backend):
    cases.require("kd_loss", backend)
    z, t = logits(64, 100, torch.float32).requires_grad_(), logits(64, 100, torch.float32)
    kept = {z.untyped_storage().data_ptr(), t.untyped_storage().data_ptr()}

    def keep(x):
        assert x.untyped_storage().data_ptr() in kept
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        kd_loss(z, t, recompute=True, backend=backend)


@each_backend
@each_reduction
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_truth_for_every_kind_of_label(kind, smoothing, reduction, backend):
    cases.require("kd_loss", backend)
    labels = make_labels(kind, 17, 10)
    options = {"temperature": 2.5, "ce_weight": 0.7, "kd_weight": 1.3}
    for dtype in (torch.float64, torch.float32):
        if can_run("kd_loss", backend, "cpu", dtype) is not None:
            continue
        check_against_truth(
            logits(17, 10, dtype),
            logits(17, 10, dtype),
            labels,
            reduction=reduction,
            backend=backend,
            label_smoothing=smoothing,
            **options,
        )


@each_backend
def test_agrees_with_truth_for_non_contiguous_logits(backend):
    cases.require("kd_loss", backend)
    z, t = logits(10, 17, torch.float32).t(), logits(17, 20, torch.float32)[:, ::2]
    labels = make_labels("hard", 17, 10)
    check = partial(check_against_truth, labels=labels, reduction="mean", backend=backend)
    check(z.contiguous(), t)
    loss = kd_loss(z, t, labels, backend=backend)
    assert torch.equal(loss, kd_loss(z.contiguous(), t.contiguous(), labels, backend=backend))


@each_reduction
@pytest.mark.parametrize("kind", ["hard", "soft", "some-ignored", "none"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("backend", ["reference", "native"])
def test_gradcheck(backend, recompute, kind, reduction):
    cases.require("kd_loss", backend, torch.float64)
    z, t, labels = logits(5, 7).requires_grad_(), logits(5, 7), make_labels(kind, 5, 7)
    assert torch.autograd.gradcheck(
        partial(
            kd_loss,
            teacher_logits=t,
            labels=labels,
            reduction=reduction,
            label_smoothing=0.1,
            recompute=recompute,
            backend=backend,
        ),
        (z,),
    )

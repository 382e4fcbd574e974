import itertools
from functools import partial

import pytest
import torch

from daqakd import _ops
from daqakd._errors import InputError
from daqakd.backends import can_run
from daqakd.functional import kd_loss

from . import cases, tolerance, truth
from .cases import each_backend, each_dtype

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
    return torch.float32 if backend == "triton" else torch.float64


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


def sizes_with_all_pairs():
    """Rows by classes, a dtype and a reduction each so that all pairs meet; the rest is slow."""
    for (i, rows), (j, classes) in itertools.product(enumerate(ROWS), enumerate(CLASSES)):
        choices = itertools.product(enumerate(cases.DTYPES), enumerate(REDUCTIONS), cases.BACKENDS)
        for (d, dtype), (r, reduction), backend in choices:
            size = rows * classes
            large = size > {"native": 2**24, "reference": 2**20, "triton": 2**15}[backend]
            chosen = d == (i + j) % 4 or (backend == "triton" and d == 1 + (i + j) % 3)
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


@each_reduction
@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_unweighted_and_reduced_the_same_way(kind, reduction):
    z, t, labels = logits(9, 5).requires_grad_(), logits(9, 5), make_labels(kind, 9, 5)
    loss, ce, kl = kd_loss(
        z, t, labels, temperature=3.0, ce_weight=0.7, kd_weight=1.3, reduction=reduction,
        return_parts=True,
    )  # fmt: skip
    torch.testing.assert_close(loss, 0.7 * ce + 1.3 * 9 * kl)
    zero = torch.zeros(9, dtype=torch.float64)
    ce_rows, kl_rows = truth.kd_loss(z, t, labels, temperature=3.0, kd_weight=1 / 9)
    count = counted(labels, 9)
    torch.testing.assert_close(ce, truth.reduce_loss(ce_rows, zero, count, reduction).detach())
    torch.testing.assert_close(kl, truth.reduce_loss(zero, kl_rows, count, reduction).detach())
    assert not ce.requires_grad
    assert not kl.requires_grad


@each_backend
def test_tensor_settings_give_the_same_bits_as_floats(backend):
    cases.require("kd_loss", backend)
    z, t, labels = logits(9, 5, torch.float32), logits(9, 5), make_labels("hard", 9, 5)
    numbers = {"temperature": 3.0, "ce_weight": 0.75, "kd_weight": 1.25}
    tensors = {name: torch.tensor(value) for name, value in numbers.items()}
    run = partial(kd_loss, teacher_logits=t, labels=labels, backend=backend)
    expected = truth.with_gradients(run, [z], torch.tensor(1.0), **numbers)
    for result, wanted in zip(
        truth.with_gradients(run, [z], torch.tensor(1.0), **tensors), expected, strict=True
    ):
        assert torch.equal(result, wanted)


@each_backend
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_classes_ruled_out_by_minus_infinity(kind, backend):
    """A class that neither network nor label considers adds nothing, in value or gradient."""
    cases.require("kd_loss", backend)
    dtype = widest(backend)
    z, t, labels = logits(6, 5, dtype), logits(6, 5, dtype), make_labels(kind, 6, 4)
    z[:, 4] = t[:, 4] = -INF
    wide = torch.nn.functional.pad(labels, (0, 1)) if kind == "soft" else labels
    options = {"g": torch.tensor(1.0, dtype=dtype), "reduction": "mean"}
    run = partial(kd_loss, backend=backend)
    loss, dz = truth.with_gradients(partial(run, teacher_logits=t, labels=wide), [z], **options)
    expected, expected_dz = truth.with_gradients(
        partial(run, teacher_logits=t[:, :4], labels=labels), [z[:, :4]], **options
    )
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(dz, torch.nn.functional.pad(expected_dz, (0, 1)))


@each_backend
def test_loss_is_infinite_where_the_student_rules_out_the_teacher(backend):
    cases.require("kd_loss", backend)
    z, t = logits(1, 3, widest(backend)), logits(1, 3)
    z[0, 1] = -INF
    assert float(kd_loss(z, t, backend=backend)) == INF


@each_backend
@each_dtype
def test_large_logits_do_not_overflow(dtype, backend):
    cases.require("kd_loss", backend, dtype)
    z = torch.tensor([[30000.0, -30000.0]], dtype=dtype)
    loss, dz = truth.with_gradients(
        partial(kd_loss, teacher_logits=z, labels=torch.tensor([1]), backend=backend),
        [z],
        torch.ones((), dtype=_ops.accumulation_dtype(dtype)),
    )
    assert float(loss) == float(z[0, 0] - z[0, 1])
    assert dz.tolist() == [[1, -1]]


@each_backend
def test_equal_logits_have_no_divergence(backend):
    cases.require("kd_loss", backend)
    z = logits(9, 5, torch.float32)
    loss, dz = truth.with_gradients(
        partial(kd_loss, teacher_logits=z, backend=backend), [z], torch.tensor(1.0)
    )
    assert float(loss) == 0
    assert not dz.any()


@each_backend
def test_gradient_rows_sum_to_zero_and_a_shift_changes_nothing(backend):
    cases.require("kd_loss", backend)
    dtype = widest(backend)
    z, t, labels = logits(9, 5, dtype), logits(9, 5, dtype), make_labels("hard", 9, 5)
    g = torch.tensor(1.0, dtype=dtype)
    run = partial(kd_loss, backend=backend)
    loss, dz = truth.with_gradients(partial(run, teacher_logits=t, labels=labels), [z], g)
    torch.testing.assert_close(dz.sum(1), torch.zeros(9, dtype=dtype), rtol=0, atol=1e-6)
    shifted, shifted_dz = truth.with_gradients(
        partial(run, teacher_logits=t - 5, labels=labels), [z + 3], g
    )
    torch.testing.assert_close(shifted, loss)
    torch.testing.assert_close(shifted_dz, dz)


@each_backend
@pytest.mark.parametrize("classes", [10, 100, 1025, 8193])
def test_permuted_classes_permute_the_gradient(classes, backend):
    cases.require("kd_loss", backend)
    dtype, order = widest(backend), torch.randperm(classes)
    z, t, y = logits(7, classes, dtype), logits(7, classes, dtype), make_labels("hard", 7, classes)
    g = torch.tensor(1.0, dtype=dtype)
    run = partial(kd_loss, backend=backend)
    loss, dz = truth.with_gradients(partial(run, teacher_logits=t, labels=y), [z], g)
    run = partial(run, teacher_logits=t[:, order], labels=order.argsort()[y])
    permuted, permuted_dz = truth.with_gradients(run, [z[:, order]], g)
    torch.testing.assert_close(permuted, loss)
    torch.testing.assert_close(permuted_dz, dz[:, order])


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
def test_divergence_carries_the_square_of_the_temperature(temperature):
    """Logits scaled with T leave the softened distributions, so the loss grows as T squared."""
    z, t = logits(9, 5), logits(9, 5)
    base = kd_loss(z, t, temperature=1.0, kd_weight=1.0)
    scaled = kd_loss(temperature * z, temperature * t, temperature=temperature, kd_weight=1.0)
    torch.testing.assert_close(scaled, temperature**2 * base)


def test_no_rows_have_no_loss():
    z = torch.zeros(0, 5, requires_grad=True)
    loss = kd_loss(z, torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert float(loss.detach()) == 0
    assert z.grad.shape == (0, 5)


@each_backend
def test_a_long_row_that_starts_with_classes_ruled_out(backend):
    cases.require("kd_loss", backend)
    z, t = logits(2, 20000, torch.float32), logits(2, 20000, torch.float32)
    z[:, :9000] = t[:, :9000] = -INF
    y, g = torch.tensor([9000, 19999]), torch.tensor(1.0)
    run = partial(kd_loss, backend=backend)
    loss, dz = truth.with_gradients(partial(run, teacher_logits=t, labels=y), [z], g)
    run = partial(run, teacher_logits=t[:, 9000:], labels=y - 9000)
    expected, expected_dz = truth.with_gradients(run, [z[:, 9000:]], g)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(dz, torch.nn.functional.pad(expected_dz, (9000, 0)))


def test_a_label_beyond_the_classes_is_an_error():
    cases.require("kd_loss", "native")
    for y in (3, -1):
        with pytest.raises(RuntimeError, match=rf"labels: expected 0 to 2 or .*-100, got {y}"):
            kd_loss(Z, Z, torch.tensor([0, y]), backend="native")


@each_backend
def test_nan_stays_in_its_row(backend):
    cases.require("kd_loss", backend)
    z, t = logits(3, 4, widest(backend)), logits(3, 4)
    z[1, 2] = float("nan")
    loss, dz = truth.with_gradients(
        partial(kd_loss, teacher_logits=t, reduction="none", backend=backend),
        [z],
        torch.ones(3, dtype=z.dtype),
    )
    assert loss.isnan().tolist() == [False, True, False]
    assert dz.isnan().any(1).tolist() == [False, True, False]


Z, Y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student_logits": Z.int()}, r"student_logits: expected float16.*got torch\.int32"),
        ({"student_logits": Z[0]}, r"student_logits: expected \[B, C\].*got \(3,\)"),
        ({"student_logits": Z[:, :0]}, r"student_logits: expected .*C >= 1.*got \(2, 0\)"),
        ({"teacher_logits": Z.int()}, r"teacher_logits: expected float16.*got torch\.int32"),
        ({"teacher_logits": Z[:1]}, r"teacher_logits: expected \[B, C\].*\(2, 3\), got \(1, 3\)"),
        ({"teacher_logits": Z.clone().requires_grad_()}, r"teacher_logits: requires a gradient"),
        ({"labels": Y[:1]}, r"labels: expected int64 \[B\].*got torch\.int64 \(1,\)"),
        ({"labels": Y.bool()}, r"labels: .*got torch\.bool \(2,\)"),
        ({"labels": torch.zeros(2)}, r"labels: .*got torch\.float32 \(2,\)"),
        ({"label_smoothing": 1.0}, r"label_smoothing: expected 0 <= e < 1, got 1\.0"),
        ({"label_smoothing": -0.1}, r"label_smoothing: .*got -0\.1"),
        ({"reduction": "avg"}, r"reduction: expected one of none, mean, sum, got 'avg'"),
        ({"backend": "gpu"}, r"unknown backend in backend= 'gpu'"),
    ],
)
def test_error_names_the_argument(change, message):
    with pytest.raises(InputError, match=message):
        kd_loss(**({"student_logits": Z, "teacher_logits": Z, "labels": Y} | change))


def test_settings_are_on_the_device_of_the_logits():
    with pytest.raises(InputError, match="temperature: is on meta, but student_logits is on cpu"):
        kd_loss(Z, Z, Y, temperature=torch.tensor(1.0, device="meta"))


@pytest.mark.parametrize("name", ["temperature", "ce_weight", "kd_weight"])
def test_settings_are_single_values(name):
    with pytest.raises(ValueError, match=rf"{name}: expected a 0-dim tensor, got shape \(2,\)"):
        kd_loss(Z, Z, Y, **{name: torch.ones(2)})

"""The distillation loss at its edges: parts, settings, infinities, labels, errors."""

from functools import partial

import pytest
import torch

from daqakd import _ops
from daqakd.functional import kd_loss

from ..helpers import cases, truth
from ..helpers.cases import each_backend, each_dtype
from .test_kd_loss import INF, KINDS, counted, each_reduction, logits, make_labels, widest

pytestmark = pytest.mark.usefixtures("poisoned_empty")


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
    z = torch.zeros(2, 3)
    for y in (3, -1):
        with pytest.raises(RuntimeError, match=rf"labels: expected 0 to 2 or .*-100, got {y}"):
            kd_loss(z, z, torch.tensor([0, y]), backend="native")


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

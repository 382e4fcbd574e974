"""What only exact sums give: digits of confident teachers, the same bits in any order."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from daqakd import CMIState, use_backend
from daqakd._cmi import from_limbs
from daqakd.functional import cmi, cmi_update
from daqakd.functional.cmi import CMIDivergenceFunction, new_state

from ..helpers import cases, truth, truth_cmi
from ..helpers.cases import each_backend
from ..helpers.machine import with_threads
from .test_cmi import batch, soft_labels, state_of

IMAGES = 50_000
GAPS, CLASSES, ACCURACIES = (2, 6, 12, 20, 40), (10, 100, 1000), (1.0, 0.8)
each_gap = pytest.mark.parametrize("gap", GAPS)
each_accuracy = pytest.mark.parametrize("accuracy", ACCURACIES)


def check_digits(gap: float, classes: int, accuracy: float, backend: str) -> None:
    z, labels = batch(IMAGES, classes, gap, accuracy)
    z = z.float()
    value = cmi(z, labels, backend=backend)
    torch.testing.assert_close(value, truth_cmi.residual(z.double(), labels), rtol=1e-6, atol=0)


@each_accuracy
@each_gap
def test_fifty_thousand_images(gap, accuracy):
    cases.require("cmi", "native")
    check_digits(gap, 10, accuracy, "native")


@pytest.mark.slow
@each_accuracy
@each_gap
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("backend", ["reference", "native"])
def test_fifty_thousand_images_of_more_classes(gap, accuracy, classes, backend):
    cases.require("cmi", backend)
    check_digits(gap, classes, accuracy, backend)


def by_entropies(p: Tensor, labels: Tensor) -> float:
    """Return CMI as it is usually written, in the dtype of the predictions ``p``."""
    counts = torch.bincount(labels, minlength=p.shape[1]).to(p.dtype)
    means = torch.zeros(p.shape[1], p.shape[1], dtype=p.dtype).index_add_(0, labels, p)
    means = means / counts[:, None]
    of_means = -(counts * torch.special.xlogy(means, means).sum(1)).sum() / len(p)
    return float(of_means + torch.special.xlogy(p, p).sum(1).mean())


@pytest.mark.parametrize(
    ("gap", "dtype", "wrong"),
    [(12, torch.float32, 0.05), (20, torch.float32, 0.2), (40, torch.float64, 0.2)],
)
def test_plain_sums_lose_what_exact_sums_keep(gap, dtype, wrong):
    """The counter-examples that the exact sums are for."""
    z, labels = batch(IMAGES, 10, gap)
    z = z.float()
    exact = float(truth_cmi.residual(z.double(), labels))
    assert abs(by_entropies(z.to(dtype).softmax(1), labels) / exact - 1) > wrong
    assert abs(float(cmi(z, labels)) / exact - 1) < 1e-6


@each_backend
@pytest.mark.parametrize("gap", [2, 12, 30, 40])
@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_a_class_that_is_predicted_wrongly_keeps_its_digits(gap, accuracy, backend):
    """Its own probability is as tiny as the rest elsewhere, and 1 less the rest would lose it."""
    cases.require("cmi", backend)
    z, labels = batch(40, 4, gap, accuracy)
    z = z.float()
    rows, pac, dz = truth_cmi.decimals(z, labels)
    rtol = 1e-9 + 2.0**-72 * math.exp(gap)  # sums keep 72 binary digits of a probability
    state = CMIState(4)
    with use_backend(backend):
        state.update(z, labels)
    measured = state.measures()
    torch.testing.assert_close(measured.pac, pac.item(), rtol=rtol, atol=0)
    torch.testing.assert_close(measured.cmi, rows.mean().item(), rtol=rtol, atol=0)
    value, found_dz = truth.with_gradients(
        partial(cmi, labels=labels, backend=backend), [z], torch.ones((), dtype=torch.float64)
    )
    torch.testing.assert_close(value, rows.mean(), rtol=rtol, atol=0)
    torch.testing.assert_close(found_dz.double(), dz, rtol=1e-4, atol=1e-6 * math.exp(-gap))


@each_backend
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_any_order_split_fold_and_rank_gives_the_same_bits(kind, backend):
    cases.require("cmi", backend)
    rows, classes = (90, 7) if backend in cases.SIMULATED else (900, 37)
    z, labels = batch(rows, classes, 12.0, 0.8, backend)
    labels = soft_labels(rows, classes) if kind == "soft" else labels
    weight, fold = torch.rand(rows), torch.randint(3, (rows,))
    state = partial(state_of, backend=backend)
    whole = state(z, labels, weight=weight)
    order = torch.randperm(rows)
    assert torch.equal(state(z[order], labels[order], weight=weight[order]), whole)
    folds = state(z, labels, groups=3, weight=weight, group=fold)
    assert torch.equal(folds.sum(0, keepdim=True), whole)
    ranks = [state(z[r::4], labels[r::4], weight=weight[r::4]) for r in range(4)]
    assert torch.equal(sum(ranks), whole)
    one_by_one = new_state(classes)
    for i in range(0, rows, 29):
        part = slice(i, i + 29)
        cmi_update(one_by_one, z[part], labels[part], weight=weight[part], backend=backend)
    assert torch.equal(one_by_one, whole)


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("classes", [10, 130])
def test_any_number_of_threads_gives_the_same_bits(classes, kind):
    cases.require("cmi", "native")
    z, labels = batch(5000, classes, 12.0, 0.8)
    labels = soft_labels(5000, classes) if kind == "soft" else labels
    found = with_threads(lambda: state_of(z, labels, "native"))
    assert all(torch.equal(state, found[0]) for state in found)


@each_backend
@pytest.mark.parametrize("classes", [5, 40])
def test_a_row_has_the_same_bits_anywhere_in_memory(classes, backend):
    cases.require("cmi", backend)
    z, labels = batch(9, classes, backend=backend)
    wide = torch.zeros(9, classes + 3, dtype=z.dtype)
    wide[:, 1:-2] = z
    shifted = torch.zeros(z.numel() + 1, dtype=z.dtype)[1:].view_as(z).copy_(z)
    for other in (wide[:, 1:-2], shifted, z.t().contiguous().t()):
        assert torch.equal(state_of(other, labels, backend), state_of(z, labels, backend))


@each_backend
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_a_shift_of_the_logits_changes_nothing(kind, backend):
    cases.require("cmi", backend)
    z, labels = batch(30, 7, 6.0, 0.8, backend)
    z = (z * 1024).round() / 1024  # so that shifts are exact
    labels = soft_labels(30, 7) if kind == "soft" else labels
    assert torch.equal(state_of(z + 8, labels, backend), state_of(z, labels, backend))


@each_backend
def test_a_permutation_of_the_classes_permutes_the_sums(backend):
    """Up to the rounding of a row's own sum, which goes by classes in order."""
    cases.require("cmi", backend)
    z, labels = batch(60, 40, 6.0, 0.8, backend)
    order = torch.randperm(40)
    places = torch.argsort(order)
    sums = from_limbs(state_of(z, labels, backend))[0]
    permuted = from_limbs(state_of(z[:, order], places[labels], backend))[0]
    columns = torch.cat([order, torch.arange(40, 45)])
    torch.testing.assert_close(permuted, sums[order][:, columns], rtol=1e-12, atol=1e-12)


@each_backend
def test_ties_go_to_the_first_class(backend):
    cases.require("cmi", backend)
    z = torch.tensor([[1.0, 3.0, 3.0, 3.0]] * 3)
    sums = from_limbs(state_of(z, torch.tensor([1, 2, 3]), backend))[0]
    assert sums[:, 4 + 3].tolist() == [0, 1, 0, 0]
    torch.testing.assert_close(sums[1, :4], z[0].double().softmax(0))


@each_backend
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_backends_agree_to_the_rounding_of_exp(kind, backend):
    """Sums differ by the rounding of a row's scalars alone: 1e-13 of the sum of 60 rows."""
    cases.require("cmi", backend)
    z, labels = batch(60, 12, 6.0, 0.8)
    z, labels = z.float(), soft_labels(60, 12) if kind == "soft" else labels
    expected = from_limbs(state_of(z, labels))
    torch.testing.assert_close(
        from_limbs(state_of(z, labels, backend)), expected, rtol=1e-13, atol=1e-13
    )


@pytest.mark.slow
@each_backend
@pytest.mark.parametrize("classes", [4097, 32_000])
def test_divergence_for_a_vocabulary(classes, backend):
    """One centroid for all classes, so that it takes one row of memory."""
    cases.require("cmi", backend)
    if backend == "reference" and classes > 5000:
        pytest.skip("the reference copies the centroids")
    z, labels = batch(7, classes, 6.0, backend=backend)
    centroid = soft_labels(1, classes)
    q = centroid.expand(classes, classes)
    z = z.float().requires_grad_()
    wide = z.detach().double().requires_grad_()
    p = wide.softmax(1)
    exact = (p * (wide.log_softmax(1) - centroid.log())).sum(1)
    rows = CMIDivergenceFunction.apply(z, labels, q, backend)
    torch.testing.assert_close(rows, exact, rtol=1e-12, atol=0)
    (dz,) = torch.autograd.grad(rows.sum(), z)
    (exact_dz,) = torch.autograd.grad(exact.sum(), wide)
    torch.testing.assert_close(dz, exact_dz.float(), rtol=1e-6, atol=1e-12)


def test_direct_calls_are_checked():
    cases.require("cmi", "native")
    ops, z, y = torch.ops.daqakd, torch.zeros(2, 3), torch.tensor([0, 1])
    with pytest.raises(RuntimeError, match="labels: expected classes from 0 to 2, got 3"):
        ops.cmi_update.native(new_state(3), z, torch.tensor([0, 3]), None, None)
    with pytest.raises(RuntimeError, match="labels: expected classes from 0 to 2, got -1"):
        ops.cmi_divergence.native(z, torch.tensor([0, -1]), torch.eye(3).double())
    with pytest.raises(RuntimeError, match="group: expected groups from 0 to 0, got 1"):
        ops.cmi_update.native(new_state(3), z, y, None, y)
    with pytest.raises(RuntimeError, match=r"state: expected .*\[groups, 3, 8, 2\]"):
        ops.cmi_update.native(new_state(4), z, y, None, None)
    with pytest.raises(RuntimeError, match="weight: expected one value for each of the 2 rows"):
        ops.cmi_update.native(new_state(3), z, y, torch.ones(3), None)
    with pytest.raises(RuntimeError, match=r"centroids: expected \[3, 3\]"):
        ops.cmi_divergence.native(z, y, torch.eye(4).double())
    with pytest.raises(RuntimeError, match="grad: expected one value for each of the 2 rows"):
        ops.cmi_divergence_backward.native(torch.ones(3), z, y, torch.eye(3).double())


def test_labels_out_of_range_are_invalid_where_nobody_reads_back():
    cases.require("cmi", "triton")
    z, y = torch.zeros(3, 3), torch.tensor([0, 3, -1])
    sums = from_limbs(state_of(z, y, "triton"))[0]
    assert sums[:, 3 + 4].tolist() == [2, 0, 0]
    assert sums[:, 3].tolist() == [1, 0, 0]
    rows = torch.ops.daqakd.cmi_divergence.triton(z, y, torch.eye(3).double())
    assert rows.isnan().tolist() == [False, True, True]

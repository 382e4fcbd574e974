"""The class sums behind CMI: their columns, merging, weights, groups, invalid rows."""

import pytest
import torch

from daqakd._cmi import EXTRA_COLUMNS, from_limbs, to_limbs
from daqakd._errors import InputError
from daqakd.functional import cmi, cmi_update
from daqakd.functional.cmi import centroids_of, new_state

from ..helpers import cases, truth_cmi
from ..helpers.cases import each_backend
from .test_cmi import INF, NAN, P, Y, Z, batch, soft_labels, state_of

pytestmark = pytest.mark.usefixtures("poisoned_empty")
MASS, ENTROPY, CROSS_ENTROPY, CORRECT, INVALID = range(EXTRA_COLUMNS)


def extra(state: torch.Tensor, column: int, group: int = 0) -> list[float]:
    return from_limbs(state)[group, :, state.shape[1] + column].tolist()


@each_backend
@pytest.mark.parametrize("gap", [2, 12, 20, 40])
def test_entropies_of_confident_predictions_keep_their_digits(gap, backend):
    cases.require("cmi", backend)
    z, labels = batch(99, 10, gap, backend=backend)
    z, given = z.double(), z
    weights = (z - z.amax(1, keepdim=True)).exp()
    off = weights.scatter(1, z.argmax(1, keepdim=True), 0.0)
    rows = truth_cmi.entropy_off(off / weights.sum(1, keepdim=True))
    expected = torch.nn.functional.one_hot(labels, 10).double().T @ rows
    result = torch.tensor(extra(state_of(given, labels, backend), ENTROPY), dtype=torch.float64)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=0)


@each_backend
def test_columns_of_the_state(backend):
    cases.require("cmi", backend)
    z, labels = batch(50, 4, accuracy=0.7, backend=backend)
    sums = from_limbs(state_of(z, labels, backend))[0]
    z = z.double()
    p, log_p = z.softmax(1), z.log_softmax(1)
    own = torch.nn.functional.one_hot(labels, 4).double()
    per_row = {
        MASS: torch.ones(50, dtype=torch.float64),
        ENTROPY: -(p * log_p).sum(1),
        CROSS_ENTROPY: -(own * log_p).sum(1),
        CORRECT: (z.argmax(1) == labels).double(),
        INVALID: torch.zeros(50, dtype=torch.float64),
    }
    for column, rows in per_row.items():
        torch.testing.assert_close(sums[:, 4 + column], own.T @ rows)
    torch.testing.assert_close(sums[:, :4], own.T @ p)


@each_backend
def test_order_does_not_change_a_bit(backend):
    cases.require("cmi", backend)
    z, labels = batch(90, 10, gap=12.0, backend=backend)
    order = torch.randperm(90)
    assert torch.equal(state_of(z, labels, backend), state_of(z[order], labels[order], backend))


@each_backend
@pytest.mark.parametrize("parts", [(90,), (1, 89), (0, 45, 45), (7,) * 12 + (6,)], ids=len)
def test_batches_merge_bit_for_bit(parts, backend):
    cases.require("cmi", backend)
    z, labels = batch(90, 10, gap=12.0, backend=backend)
    one_by_one, merged = new_state(10), new_state(10)
    for rows, row_labels in zip(z.split(parts), labels.split(parts), strict=True):
        cmi_update(one_by_one, rows, row_labels, backend=backend)
        merged += state_of(rows, row_labels, backend)
    whole = state_of(z, labels, backend)
    assert torch.equal(one_by_one, whole)
    assert torch.equal(merged, whole)


def test_limbs_keep_the_73rd_binary_digit():
    values = torch.tensor([1.0, 2.0**-72, 1 / 3, -1 / 3, 4096.0, 0.0], dtype=torch.float64)
    assert to_limbs(values)[:2].tolist() == [[2**36, 0], [0, 1]]
    assert torch.equal(from_limbs(to_limbs(values)), values)


@each_backend
def test_an_empty_class_contributes_nothing(backend):
    cases.require("cmi", backend)
    z, labels = batch(40, 5, backend=backend)
    labels = labels.clamp(max=3)
    sums = from_limbs(state_of(z, labels, backend))[0]
    assert not sums[4].any()
    assert not centroids_of(sums)[4].any()
    exact = truth_cmi.residual(z.double(), labels)
    torch.testing.assert_close(cmi(z, labels, backend=backend), exact)


@each_backend
def test_one_hot_labels_equal_hard_labels(backend):
    cases.require("cmi", backend)
    z, labels = batch(60, 5, accuracy=0.8, backend=backend)
    one_hot = torch.nn.functional.one_hot(labels, 5).double()
    state = state_of(z, labels, backend)
    assert torch.equal(state_of(z, one_hot, backend), state)
    centroids = centroids_of(from_limbs(state))[0]
    torch.testing.assert_close(
        cmi(z, one_hot, centroids=centroids, backend=backend),
        cmi(z, labels, centroids=centroids, backend=backend),
    )


@each_backend
def test_soft_labels_weight_the_centroids(backend):
    cases.require("cmi", backend)
    labels = [[0.7, 0.3, 0], [1, 0, 0], [0, 0.6, 0.4], [0, 0.9, 0.1], [0.2, 0, 0.8], [0, 0.5, 0.5]]
    labels = torch.tensor(labels, dtype=torch.float64)
    z = P.log().float() if backend in cases.SIMULATED else P.log()
    centroids = centroids_of(from_limbs(state_of(z, labels, backend)))[0]
    expected = [
        [0.615789, 0.239474, 0.144737],
        [0.291304, 0.441304, 0.267391],
        [0.116667, 0.35, 0.533333],
    ]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(centroids, expected, rtol=0, atol=1e-6)
    value = cmi(z, labels, centroids=centroids, backend=backend)
    atol = 1e-9 if z.dtype == P.dtype else 1e-7
    torch.testing.assert_close(float(value), 0.109590054, rtol=0, atol=atol)


@each_backend
def test_two_weighted_calls_equal_one_mixed_label(backend):
    cases.require("cmi", backend)
    z, first = batch(30, 5, backend=backend)
    second, weight = (first + 2) % 5, torch.rand(30, dtype=torch.float64)
    rows = torch.zeros(30, 5, dtype=torch.float64)
    rows = rows.scatter_add(1, first[:, None], weight[:, None])
    rows = rows.scatter_add(1, second[:, None], 1 - weight[:, None])
    twice = state_of(z, first, backend, weight=weight)
    cmi_update(twice, z, second, weight=1 - weight, backend=backend)
    assert torch.equal(twice, state_of(z, rows, backend))


@each_backend
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_a_weight_of_two_counts_a_row_twice(kind, backend):
    cases.require("cmi", backend)
    z, labels = batch(30, 5, backend=backend)
    labels = soft_labels(30, 5) if kind == "soft" else labels
    weight = torch.full((30,), 2.0)
    doubled = from_limbs(state_of(z, labels, backend, weight=weight))
    torch.testing.assert_close(doubled, 2 * from_limbs(state_of(z, labels, backend)))


@each_backend
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_groups_are_kept_apart(kind, backend):
    cases.require("cmi", backend)
    z, labels = batch(30, 5, backend=backend)
    labels = soft_labels(30, 5) if kind == "soft" else labels
    group = torch.randint(3, (30,))
    state = state_of(z, labels, backend, groups=4, group=group)
    for g in range(4):
        assert torch.equal(state[g : g + 1], state_of(z[group == g], labels[group == g], backend))


@each_backend
def test_invalid_rows_are_counted_and_left_out(backend):
    cases.require("cmi", backend)
    z, labels = batch(6, 3, backend=backend)
    bad = z.clone()
    bad[1, 0], bad[3, 2], bad[5] = NAN, INF, -INF
    labels = torch.tensor([0, 1, 1, 2, 2, 2])
    state, kept = state_of(bad, labels, backend), [0, 2, 4]
    assert extra(state, INVALID) == [0, 1, 2]
    assert extra(state, MASS) == [1, 1, 1]
    state[..., 3 + INVALID, :] = 0
    assert torch.equal(state, state_of(z[kept], labels[kept], backend))


@each_backend
def test_cross_entropy_of_an_impossible_label_is_bounded(backend):
    cases.require("cmi", backend)
    state = state_of(torch.tensor([[0.0, -INF]]), torch.tensor([1]), backend)
    assert extra(state, CROSS_ENTROPY) == [0, 4096]


@each_backend
def test_no_rows_leave_the_state(backend):
    cases.require("cmi", backend)
    assert not state_of(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), backend).any()


def test_update_takes_no_gradient():
    z, labels = batch(4, 3)
    state = state_of(z.requires_grad_(), labels)
    assert not state.requires_grad


def test_state_must_fit_the_logits():
    with pytest.raises(InputError, match=r"state: .*\[groups, 3, 8, 2\].*new_state"):
        cmi_update(new_state(4), Z, Y[:2])

from functools import partial

import pytest
import torch

from daqakd._errors import InputError
from daqakd.backends.reference_cmi import EXTRA_COLUMNS, from_limbs, to_limbs
from daqakd.functional import cmi, cmi_update
from daqakd.functional.cmi import centroids_of, new_state

from . import cases, tolerance, truth, truth_cmi
from .cases import each_backend, each_combination

pytestmark = pytest.mark.usefixtures("poisoned_empty")
MASS, ENTROPY, CROSS_ENTROPY, CORRECT, INVALID = range(EXTRA_COLUMNS)
P = torch.tensor(
    [
        [0.80, 0.15, 0.05],
        [0.60, 0.30, 0.10],
        [0.10, 0.70, 0.20],
        [0.30, 0.50, 0.20],
        [0.05, 0.25, 0.70],
        [0.20, 0.20, 0.60],
    ],
    dtype=torch.float64,
)
Y = torch.tensor([0, 0, 1, 1, 2, 2])
INF, NAN = float("inf"), float("nan")


def batch(rows: int, classes: int, gap: float = 2.0, accuracy: float = 1.0, backend: str = ""):
    """Return logits whose peak stands ``gap`` above the noise, on the label or next to it.

    They are float64, or float32 for a ``backend`` that takes no more.
    """
    labels = torch.randint(classes, (rows,))
    z = torch.randn(rows, classes, dtype=torch.float64)
    peak = torch.where(torch.rand(rows) < accuracy, labels, (labels + 1) % classes)
    z = z.scatter_add(1, peak[:, None], torch.full((rows, 1), gap, dtype=torch.float64))
    return (z.float() if backend == "triton" else z), labels


def soft_labels(rows: int, classes: int) -> torch.Tensor:
    return torch.randn(rows, classes, dtype=torch.float64).softmax(1)


def state_of(logits, labels, backend="reference", groups=1, **options) -> torch.Tensor:
    state = new_state(logits.shape[1], groups)
    cmi_update(state, logits, labels, backend=backend, **options)
    return state


def extra(state: torch.Tensor, column: int, group: int = 0) -> list[float]:
    return from_limbs(state)[group, :, state.shape[1] + column].tolist()


def test_method_vector():
    torch.testing.assert_close(float(cmi(P.log(), Y)), 0.028700615, rtol=0, atol=1e-9)
    centroids = centroids_of(from_limbs(state_of(P.log(), Y)))[0]
    expected = [[0.70, 0.225, 0.075], [0.20, 0.60, 0.20], [0.125, 0.225, 0.65]]
    torch.testing.assert_close(centroids, torch.tensor(expected, dtype=torch.float64))
    pac = -centroids.diagonal().log().mean()
    torch.testing.assert_close(float(pac), 0.432761161, rtol=0, atol=1e-9)


def test_the_truth_reproduces_the_method_vector():
    torch.testing.assert_close(float(truth_cmi.cmi(P, Y)), 0.028700615, rtol=0, atol=1e-9)
    torch.testing.assert_close(float(truth_cmi.pac(P, Y)), 0.432761161, rtol=0, atol=1e-9)
    torch.testing.assert_close(
        float(truth_cmi.residual(P.log(), Y)), 0.028700615, atol=1e-9, rtol=0
    )


SHAPES = ((1, 2), (7, 10), (33, 33), (256, 16), (7, 1000), (20, 100), (5, 200))
BIG_SHAPES = ((4099, 10), (256, 100), (4099, 200), (256, 1000), (7, 4097), (1, 1024), (3, 1025))


def check_against_truth(rows, classes, accuracy, dtype, backend):
    cases.require("cmi", backend, dtype)
    z, labels = batch(rows, classes, accuracy=accuracy)
    z = z.to(dtype)
    wide = z.double().requires_grad_()
    exact = truth_cmi.cmi(wide.softmax(1), labels)
    (exact_dz,) = torch.autograd.grad(exact, wide)
    value, dz = truth.with_gradients(
        partial(cmi, labels=labels, backend=backend), [z], torch.ones_like(exact)
    )
    assert value.dtype == torch.float64
    tolerance.check_close(value, exact, floor=1e-10, unit=1e-4)
    floor = tolerance.VALUE_FLOORS[dtype]
    tolerance.check_close(rows * dz.double(), rows * exact_dz, floor=floor, unit=2.0**-10)
    tolerance.check_layout(dz, z)


def shapes(some) -> dict[str, tuple[int, int]]:
    return {f"{rows}x{classes}": (rows, classes) for rows, classes in some}


@each_combination(shape=shapes(SHAPES), accuracy={"right": 1.0, "mixed": 0.8})
def test_agrees_with_truth(shape, accuracy, dtype, backend):
    check_against_truth(*shape, accuracy, dtype, backend)


@pytest.mark.slow
@each_combination(shape=shapes(BIG_SHAPES), accuracy={"right": 1.0, "mixed": 0.8})
def test_agrees_with_truth_in_large(shape, accuracy, dtype, backend):
    if backend == "triton" and shape[0] > 7:
        pytest.skip("the interpreter takes hours; as little as it takes, not torch.float64")
    check_against_truth(*shape, accuracy, dtype, backend)


@pytest.mark.parametrize("accuracy", [1.0, 0.8])
@pytest.mark.parametrize("gap", [2, 6, 12, 20, 30])
@pytest.mark.parametrize(
    ("rows", "classes", "backend"),
    [(500, c, b) for b in ("reference", "native") for c in (10, 100)] + [(60, 10, "triton")],
)
def test_confident_predictions_keep_their_digits(gap, rows, classes, accuracy, backend):
    cases.require("cmi", backend)
    z, labels = batch(rows, classes, gap, accuracy)
    z = z.float()
    value = cmi(z, labels, backend=backend)
    exact = truth_cmi.residual(z.double(), labels)
    torch.testing.assert_close(value, exact, rtol=1e-6, atol=0)


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
    z, labels = batch(500, 10, gap=12.0, backend=backend)
    order = torch.randperm(500)
    assert torch.equal(state_of(z, labels, backend), state_of(z[order], labels[order], backend))


@each_backend
@pytest.mark.parametrize("parts", [(500,), (1, 499), (0, 250, 250), (7,) * 71 + (3,)], ids=len)
def test_batches_merge_bit_for_bit(parts, backend):
    cases.require("cmi", backend)
    z, labels = batch(500, 10, gap=12.0, backend=backend)
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
def test_a_class_of_one_image_contributes_nothing(backend):
    cases.require("cmi", backend)
    z, _ = batch(5, 5, backend=backend)
    assert abs(float(cmi(z, torch.arange(5), backend=backend))) < 1e-15
    alone = torch.cat([z, z[:1]]), torch.tensor([0, 1, 1, 1, 1, 2])
    rest = z[1:], torch.ones(4, dtype=torch.int64)
    torch.testing.assert_close(6 * cmi(*alone, backend=backend), 4 * cmi(*rest, backend=backend))


@each_backend
def test_equal_rows_have_no_information(backend):
    cases.require("cmi", backend)
    z, _ = batch(1, 7, backend=backend)
    value = cmi(z.expand(9, 7), torch.zeros(9, dtype=torch.int64), backend=backend)
    assert abs(float(value)) < 1e-15


@each_backend
@pytest.mark.parametrize("gap", [2, 6])
def test_envelope_gradient_passes_gradcheck(gap, backend):
    cases.require("cmi", backend, torch.float64)
    z, _ = batch(7, 4, gap)
    function = partial(cmi, labels=torch.tensor([0, 1, 2, 0, 1, 2, 0]), backend=backend)
    assert torch.autograd.gradcheck(function, (z.requires_grad_(),))


@each_backend
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_gradient_to_fixed_centroids_passes_gradcheck(kind, backend):
    cases.require("cmi", backend, torch.float64)
    z, labels = batch(7, 4)
    labels = soft_labels(7, 4) if kind == "soft" else labels
    function = partial(cmi, labels=labels, centroids=soft_labels(4, 4), backend=backend)
    assert torch.autograd.gradcheck(function, (z.requires_grad_(),))


@each_backend
def test_divergence_to_a_mixture_of_centroids(backend):
    cases.require("cmi", backend)
    z, _ = batch(7, 4, backend=backend)
    labels = soft_labels(7, 4)
    centroids = torch.randn(4, 4, dtype=torch.float64).softmax(1)
    p = z.double().softmax(1)
    expected = (p * (p / (labels @ centroids)).log()).sum(1).mean()
    torch.testing.assert_close(cmi(z, labels, centroids=centroids, backend=backend), expected)


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
    z = P.log().float() if backend == "triton" else P.log()
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
    second, share = (first + 2) % 5, torch.rand(30, dtype=torch.float64)
    rows = torch.zeros(30, 5, dtype=torch.float64)
    rows = rows.scatter_add(1, first[:, None], share[:, None])
    rows = rows.scatter_add(1, second[:, None], 1 - share[:, None])
    twice = state_of(z, first, backend, weight=share)
    cmi_update(twice, z, second, weight=1 - share, backend=backend)
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
def test_a_class_ruled_out_has_no_weight(backend):
    cases.require("cmi", backend)
    z, labels = batch(6, 3, backend=backend)
    z[:, 2] = -INF
    labels = labels.clamp(max=1)
    value, dz = truth.with_gradients(
        partial(cmi, labels=labels, backend=backend), [z], torch.ones((), dtype=torch.float64)
    )
    torch.testing.assert_close(value, cmi(z[:, :2], labels, backend=backend))
    assert torch.equal(dz[:, 2], torch.zeros(6, dtype=z.dtype))


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


Z = torch.zeros(2, 3)


@pytest.mark.parametrize(
    "function", [cmi, partial(cmi_update, new_state(3))], ids=["cmi", "update"]
)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": Z.int()}, r"logits: expected float16.*got torch\.int32"),
        ({"logits": Z[0]}, r"logits: expected \[B, C\], got \(3,\)"),
        ({"labels": Y[:1]}, r"labels: expected int64 \[B\].*got torch\.int64 \(1,\)"),
        ({"labels": Y[:2].int()}, r"labels: expected int64 \[B\].*got torch\.int32 \(2,\)"),
        ({"labels": Z[:, :2]}, r"labels: .*got torch\.float32 \(2, 2\)"),
        ({"backend": "gpu"}, r"unknown backend in backend= 'gpu'"),
    ],
)
def test_error_names_the_argument(function, change, message):
    with pytest.raises(InputError, match=message):
        function(**({"logits": Z, "labels": Y[:2]} | change))


def test_state_must_fit_the_logits():
    with pytest.raises(InputError, match=r"state: .*\[groups, 3, 8, 2\].*new_state"):
        cmi_update(new_state(4), Z, Y[:2])


def test_soft_labels_need_centroids():
    with pytest.raises(InputError, match="centroids: soft labels need fixed centroids"):
        cmi(Z, Z)

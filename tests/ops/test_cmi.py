from functools import partial

import pytest
import torch

from daqakd._cmi import from_limbs
from daqakd.functional import cmi, cmi_update
from daqakd.functional.cmi import centroids_of, new_state

from ..helpers import cases, tolerance, truth, truth_cmi
from ..helpers.cases import each_backend, each_combination

pytestmark = pytest.mark.usefixtures("poisoned_empty")
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
    return (z.float() if backend in cases.SIMULATED else z), labels


def soft_labels(rows: int, classes: int) -> torch.Tensor:
    return torch.randn(rows, classes, dtype=torch.float64).softmax(1)


def state_of(logits, labels, backend="reference", groups=1, **options) -> torch.Tensor:
    state = new_state(logits.shape[1], groups)
    cmi_update(state, logits, labels, backend=backend, **options)
    return state


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
    if backend in cases.SIMULATED and shape[0] > 7:
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


Z = torch.zeros(2, 3)

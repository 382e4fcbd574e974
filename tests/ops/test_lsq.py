import itertools
from functools import partial

import pytest
import torch

from daqakd.functional import lsq

from ..helpers import cases, tolerance, truth
from ..helpers.cases import double, each_backend, each_case, each_dtype
from ..helpers.quantizers import LSQ, PAIRS, STES, check_against_truth

pytestmark = pytest.mark.usefixtures("poisoned_empty")
X = (-1.5, -1.0, -0.25, 0.0, 0.2, 0.25, 0.5, 0.75, 1.0, 2.0)
G = (1.0, -1.0, 2.0, 1.0, -2.0, 1.0, 3.0, -1.0, 2.0, 1.0)


@pytest.mark.parametrize(
    ("bits", "signed", "ds"), [(2, True, 1.3), (3, True, 3.8), (2, False, 2.8)]
)
def test_paper_step_gradient(bits, signed, ds):
    inputs = double(*X), torch.tensor(0.5, dtype=torch.float64)
    _, _, result = truth.with_gradients(lsq, inputs, double(*G), bits=bits, signed=signed)
    tolerance.check_close(result, torch.tensor(ds, dtype=torch.float64))


def test_paper_value_and_input_gradient():
    inputs = double(*X), torch.tensor(0.5, dtype=torch.float64)
    y, dx, _ = truth.with_gradients(lsq, inputs, double(*G), bits=3, signed=True)
    assert y.tolist() == [-1.5, -1.0, 0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.5]
    assert dx.tolist() == [*G[:-1], 0.0]


def test_mqbench_value():
    x = double(0, 0.2, 0.5, 1, 2, -0.4)
    step = 2 * x.abs().mean() / 3**0.5
    y = lsq(x, step, bits=3, signed=True)
    expected = double(0, 0, 0.789045, 0.789045, 2.367136, -0.789045)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("ste", "dx"),
    [("closed", [0, 1, 1, 1, 0, 0]), ("open", [0, 0, 1, 0, 0, 0]), ("rounded", [1, 1, 1, 1, 1, 0])],
)
def test_straight_through_masks_at_the_ends(ste, dx):
    x = double(-2.25, -2, 0.5, 1, 1.25, 1.75)
    inputs = x, torch.tensor(1.0, dtype=torch.float64)
    _, result, _ = truth.with_gradients(
        lsq, inputs, torch.ones_like(x), bits=2, signed=True, ste=ste
    )
    assert result.tolist() == dx


@pytest.mark.slow
@each_backend
@each_dtype
@each_case
def test_agrees_with_truth_in_the_full_product(case, dtype, backend):
    cases.require("lsq", backend, dtype)
    x = case.make(dtype)
    for axis, ste, (bits, signed) in itertools.product(cases.axes(x), STES, PAIRS):
        check_against_truth(LSQ, x, axis, backend, bits=bits, signed=signed, ste=ste)


@each_backend
@each_dtype
@pytest.mark.parametrize("ste", STES)
def test_is_exact_on_ties_and_clip_edges(ste, dtype, backend):
    """A step that is a power of two leaves no boundary band: ties go to even, edges are exact."""
    cases.require("lsq", backend, dtype)
    x = torch.arange(-48, 48).to(dtype) / 32
    inputs, g = (x, torch.tensor(0.125, dtype=cases.parameter_dtype(dtype))), torch.ones_like(x)
    options = {"bits": 4, "signed": True, "ste": ste}
    results = truth.with_gradients(partial(lsq, backend=backend), inputs, g, **options)
    exact = truth.with_gradients(truth.lsq, truth.in_double(inputs), g.double(), **options)
    for result, wanted in zip(results, exact, strict=True):
        assert torch.equal(result.double(), wanted)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_step_gradient_is_the_slope_with_codes_frozen(axis):
    x = cases.Case("rows", (8, 9)).make(torch.float64)
    (step,), g = LSQ.parameters(x, axis), torch.randn_like(x)
    y, _, ds = truth.with_gradients(lsq, (x, step), g, bits=3, signed=True, axis=axis)
    along = partial(truth.along, x=x, axis=axis)
    residual, inside = (y - x) / along(step), (x / along(step) >= -4) & (x / along(step) <= 3)

    def surrogate(s):
        return (g * torch.where(inside, x + along(s) * residual, along(s) * y / along(step))).sum()

    slope = (surrogate(step + 1e-4) - surrogate(step - 1e-4)) / 2e-4
    torch.testing.assert_close(ds.sum(), slope, rtol=1e-8, atol=1e-8)


@each_dtype
def test_is_idempotent(dtype):
    x = cases.Case("n", (1025,)).make(dtype)
    step = torch.tensor(0.25, dtype=cases.parameter_dtype(dtype))
    once = lsq(x, step, bits=4, signed=True)
    assert torch.equal(lsq(once, step, bits=4, signed=True), once)


@each_backend
@each_dtype
def test_a_code_of_zero_is_plus_zero(dtype, backend):
    cases.require("lsq", backend, dtype)
    x = torch.tensor([-0.2, -0.0, 0.0, 0.2], dtype=dtype)
    step = torch.tensor(0.5, dtype=cases.parameter_dtype(dtype))
    y = lsq(x, step, bits=3, signed=True, backend=backend)
    assert y.tolist() == [0.0] * 4
    assert not y.signbit().any()

from functools import partial

import pytest
import torch

from daqakd import _ops
from daqakd._errors import InputError
from daqakd.functional import ewgs

from ..helpers import cases, tolerance, truth
from ..helpers.cases import each_backend, each_combination, each_dtype

pytestmark = pytest.mark.usefixtures("poisoned_empty")


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def signed_form(x, lower, upper, **options):
    """The method's weights: the same codes on [-1, 1]."""
    return 2 * (ewgs(x, lower, upper, **options) - 0.5)


def method_inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    lower, upper = double(-0.3, 0.3)
    return double(-0.3, -0.1, 0, 0.05, 0.2, 0.4), lower, upper


@pytest.mark.parametrize(
    ("bits", "value"),
    [
        (1, [-1, -1, -1, 1, 1, 1]),
        (2, [-1, -1 / 3, 1 / 3, 1 / 3, 1 / 3, 1]),
        (4, [-1, -1 / 3, 0.066667, 0.2, 0.6, 1]),
    ],
)
def test_method_value(bits, value):
    y = signed_form(*method_inputs(), bits=bits)
    torch.testing.assert_close(y, double(*value), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("delta", "dx", "dlower", "dupper"),
    [
        (0.0, [3.333333, -3.333333, 6.666667, 3.333333, -6.666667, 0], -4.722222, 1.388889),
        (0.5, [3.333333, -3.333333, 6.111111, 3.194444, -6.111111, 0], -4.479167, 1.284722),
    ],
)
def test_method_gradients(delta, dx, dlower, dupper):
    g = double(1, -1, 2, 1, -2, 1)
    _, *gradients = truth.with_gradients(signed_form, method_inputs(), g, bits=2, delta=delta)
    for result, expected in zip(gradients, (dx, dlower, dupper), strict=True):
        expected = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


def check_against_truth(x, lower, upper, *, backend, bits, delta):
    dtype = cases.parameter_dtype(x.dtype)
    inputs = x, torch.tensor(lower, dtype=dtype), torch.tensor(upper, dtype=dtype)
    g, options = cases.like_in_other_strides(x), {"bits": bits, "delta": delta}
    y, *gradients = truth.with_gradients(partial(ewgs, backend=backend), inputs, g, **options)
    wide = truth.in_double(inputs)
    exact, *exact_gradients = truth.with_gradients(truth.ewgs, wide, g.double(), **options)
    n = 2**bits - 1
    v = (wide[0] - wide[1]) / (wide[2] - wide[1]) * n
    band = tolerance.band_of(v.clamp(min=n), _ops.accumulation_dtype(x.dtype))
    near = tolerance.distance_to_boundary(v, 0, n) <= band
    tolerance.check_quantized(y, exact, near, 1 / n)
    for result, wanted in zip(gradients, exact_gradients, strict=True):
        tolerance.check_close(result, wanted, floor=floor_of_gradient(result.dtype, delta))
    for result in (y, gradients[0]):
        tolerance.check_layout(result, x)


def floor_of_gradient(dtype: torch.dtype, delta: float) -> float:
    """The error of the rounding is itself only known to the rounding of the dtype."""
    return tolerance.VALUE_FLOORS[dtype] * (1 + 4 * delta)


@each_combination(case={case.id: case for case in cases.CASES}, delta={"0": 0.0, "0.5": 0.5})
def test_agrees_with_truth(case, delta, dtype, backend):
    cases.require("ewgs", backend, dtype)
    check_against_truth(case.make(dtype), -0.9, 1.1, bits=3, delta=delta, backend=backend)


@each_backend
@each_dtype
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_agrees_with_truth_at_every_width(bits, dtype, backend):
    cases.require("ewgs", backend, dtype)
    x = cases.Case("rows", (31, 33)).make(dtype)
    check_against_truth(x, -0.9, 1.1, bits=bits, delta=0.5, backend=backend)


@each_backend
@each_dtype
def test_is_exact_at_the_ends(dtype, backend):
    cases.require("ewgs", backend, dtype)
    parameter = cases.parameter_dtype(dtype)
    inputs = (
        torch.tensor([-1.5, -1, -0.5, 0, 0.5, 1, 1.5], dtype=dtype),
        torch.tensor(-1, dtype=parameter),
        torch.tensor(1, dtype=parameter),
    )
    y, dx, *ends = truth.with_gradients(
        partial(ewgs, backend=backend), inputs, 2.0 ** torch.arange(7).to(dtype), bits=1
    )
    assert y.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert dx.tolist() == [0, 1, 2, 4, 8, 16, 0]
    unit = [0, 0.25, 0.5, 0.75, 1]
    assert float(ends[0]) == sum(g * (u - 1) for g, u in zip(dx[1:6].tolist(), unit, strict=True))
    assert float(ends[1]) == -sum(g * u for g, u in zip(dx[1:6].tolist(), unit, strict=True))


def test_range_gradient_is_the_slope_with_codes_frozen():
    inputs = torch.randn(99, dtype=torch.float64), double(-0.7)[0], double(0.9)[0]
    g, step = torch.randn(99, dtype=torch.float64), 1e-7
    _, dx, *ends = truth.with_gradients(ewgs, inputs, g, bits=3)
    x = inputs[0]

    def smooth(lower, upper):
        return (g * ((x - lower) / (upper - lower)).clamp(0, 1)).sum()

    slopes = (
        (smooth(-0.7 + step, 0.9) - smooth(-0.7 - step, 0.9)) / (2 * step),
        (smooth(-0.7, 0.9 + step) - smooth(-0.7, 0.9 - step)) / (2 * step),
    )
    for result, slope in zip(ends, slopes, strict=True):
        torch.testing.assert_close(result, slope, rtol=1e-6, atol=1e-6)
    inside = (x > -0.7) & (x < 0.9)
    torch.testing.assert_close(dx, torch.where(inside, g / 1.6, 0.0))


@each_backend
@pytest.mark.parametrize("delta", [0.0, 0.3])
def test_delta_as_a_tensor_gives_the_same_bits(delta, backend):
    cases.require("ewgs", backend)
    inputs, g = (torch.randn(99), torch.tensor(-0.7), torch.tensor(0.9)), torch.randn(99)
    run = partial(truth.with_gradients, partial(ewgs, backend=backend), inputs, g, bits=3)
    for result, wanted in zip(run(delta=torch.tensor(delta)), run(delta=delta), strict=True):
        assert torch.equal(result, wanted)


@each_backend
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=cases.dtype_name)
def test_range_gradient_of_a_million_16_bit_values(dtype, backend):
    cases.require("ewgs", backend, dtype)
    inputs = torch.randn(2**20).to(dtype), torch.tensor(-0.7), torch.tensor(0.9)
    g = torch.randn(2**20).to(dtype)
    _, _, *ends = truth.with_gradients(partial(ewgs, backend=backend), inputs, g, bits=4)
    wide = truth.in_double(inputs)
    _, _, *exact = truth.with_gradients(truth.ewgs, wide, g.double(), bits=4)
    for result, wanted in zip(ends, exact, strict=True):
        torch.testing.assert_close(result.double(), wanted, rtol=1e-3, atol=0)


@each_backend
@each_dtype
def test_nan_and_infinity(dtype, backend):
    cases.require("ewgs", backend, dtype)
    parameter = cases.parameter_dtype(dtype)
    x = torch.tensor([float("nan"), float("-inf"), float("inf"), 0.5], dtype=dtype)
    ends = torch.tensor(0, dtype=parameter), torch.tensor(1, dtype=parameter)
    run = partial(truth.with_gradients, partial(ewgs, backend=backend), bits=1)
    y, dx, *with_nan = run((x, *ends), torch.ones_like(x))
    assert y[0].isnan()
    assert y[1:].tolist() == [0, 1, 0]
    assert dx.tolist() == [0, 0, 0, 1]
    assert all(end.isnan() for end in with_nan)
    *_, dlower, dupper = run((x[1:], *ends), torch.ones_like(x[1:]))
    assert [float(dlower), float(dupper)] == [-0.5, -0.5]


@each_backend
@pytest.mark.parametrize("width", [0.0, -1.0])
def test_width_is_used_as_at_least_the_smallest(width, backend):
    cases.require("ewgs", backend)
    inputs = torch.tensor([-1.0, 0.0, 2.0**-31, 1.0]), torch.tensor(0.0), torch.tensor(width)
    y, dx, *_ = truth.with_gradients(partial(ewgs, backend=backend), inputs, torch.ones(4), bits=2)
    torch.testing.assert_close(y, torch.tensor([0, 0, 2 / 3, 1]))
    assert dx.tolist() == [0, 2.0**30, 2.0**30, 0]


ROWS, LOWER, UPPER = torch.zeros(2, 3), torch.tensor(-1.0), torch.tensor(1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": ROWS.int()}, r"x: expected float16.*got torch\.int32"),
        ({"lower": torch.tensor(0)}, r"lower: expected float16.*got torch\.int64"),
        ({"upper": torch.tensor(1)}, r"upper: expected float16.*got torch\.int64"),
        ({"lower": torch.ones(2)}, r"lower: expected one value, got shape \(2,\)"),
        ({"upper": torch.ones(2)}, r"upper: expected one value, got shape \(2,\)"),
        ({"bits": 0}, r"bits: expected an integer from 1 to 8, got 0"),
        ({"bits": 9}, r"bits: .*got 9"),
        ({"delta": torch.ones(2)}, r"delta: expected a 0-dim tensor, got shape \(2,\)"),
        ({"backend": "gpu"}, r"unknown backend in backend= 'gpu'"),
    ],
)
def test_error_names_the_argument(change, message):
    arguments = {"x": ROWS, "lower": LOWER, "upper": UPPER, "bits": 3} | change
    with pytest.raises(ValueError, match=message):
        ewgs(**arguments)


def test_error_is_an_input_error():
    with pytest.raises(InputError):
        ewgs(ROWS, LOWER, UPPER, bits=0)

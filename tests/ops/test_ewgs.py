from functools import partial

import pytest
import torch

from daqakd.functional import ewgs

from ..helpers import cases, truth
from ..helpers.cases import double, each_backend, each_dtype

pytestmark = pytest.mark.usefixtures("poisoned_empty")


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

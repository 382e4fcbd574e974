from functools import partial

import pytest
import torch

from daqakd import _ops
from daqakd.functional import dorefa_activation, dorefa_weight

from ..helpers import cases, tolerance, truth
from ..helpers.cases import double, each_backend, each_dtype

pytestmark = pytest.mark.usefixtures("poisoned_empty")
W = (-0.5, -0.2, 0.0, 0.1, 0.3)
G = (1.0, -1.0, 2.0, 1.0, -2.0)
each_maximum = pytest.mark.parametrize("detach_max", [True, False], ids=["detached", "in-graph"])


@pytest.mark.parametrize(
    ("bits", "value"),
    [
        (2, [-1, -0.333333, 0.333333, 0.333333, 0.333333]),
        (3, [-1, -0.428571, 0.142857, 0.142857, 0.714286]),
        (4, [-1, -0.466667, 0.066667, 0.2, 0.6]),
    ],
)
def test_paper_weight_vector(bits, value):
    y, dw = truth.with_gradients(dorefa_weight, [double(*W)], double(*G), bits=bits)
    torch.testing.assert_close(y, double(*value), rtol=0, atol=1e-6)
    expected = double(1.701836, -2.079652, 4.327907, 2.142457, -3.960628)
    torch.testing.assert_close(dw, expected, rtol=0, atol=1e-6)


@each_maximum
def test_one_bit_is_the_sign_times_the_mean(detach_max):
    y, dw = truth.with_gradients(
        dorefa_weight, [double(-3, 0, 1, 4)], double(1, 2, 4, 16), bits=1, detach_max=detach_max
    )
    assert y.tolist() == [-2, 2, 2, 2]
    if detach_max:
        assert dw.tolist() == [1, 2, 4, 16]
    else:
        assert dw[[0, 2, 3]].tolist() == [1 - 21 / 4, 4 + 21 / 4, 16 + 21 / 4]


def test_ties_for_the_maximum_share_its_gradient():
    w, g = double(-1, 0.5, 1), double(1, 2, 4)
    _, detached = truth.with_gradients(dorefa_weight, [w], g, bits=3)
    _, dw = truth.with_gradients(dorefa_weight, [w], g, bits=3, detach_max=False)
    extra = dw - detached
    t = torch.tanh(w)
    each = -(g * t).sum() / t[2] ** 2 / 2 * (1 - t[2] ** 2)
    torch.testing.assert_close(extra, torch.stack([-each, 0 * each, each]))


@pytest.mark.parametrize("detach_max", [True, False], ids=["detached", "in-graph"])
def test_weight_gradient_is_the_slope_of_the_smooth_form(detach_max):
    w, g = 0.4 * torch.randn(30, dtype=torch.float64), torch.randn(30, dtype=torch.float64)
    _, dw = truth.with_gradients(dorefa_weight, [w], g, bits=8, detach_max=detach_max)
    largest = torch.tanh(w).abs().max()

    def smooth(x):
        t = torch.tanh(x)
        return (g * t / (largest if detach_max else t.abs().max())).sum()

    slopes = [smooth(w + e) - smooth(w - e) for e in 1e-6 * torch.eye(30, dtype=torch.float64)]
    torch.testing.assert_close(dw, torch.stack(slopes) / 2e-6, rtol=1e-6, atol=1e-7)


@each_backend
@each_dtype
@each_maximum
@pytest.mark.parametrize(("bits", "value"), [(1, 0.0), (2, 1 / 3), (3, 1 / 7)])
def test_zero_weights_give_the_code_nearest_zero(bits, value, detach_max, dtype, backend):
    cases.require("dorefa_weight", backend, dtype)
    w = torch.zeros(5, dtype=dtype)
    y, dw = truth.with_gradients(
        partial(dorefa_weight, backend=backend),
        [w],
        torch.zeros_like(w) if bits == 1 else torch.ones_like(w),
        bits=bits,
        detach_max=detach_max,
    )
    tolerance.check_close(y, torch.full((5,), value, dtype=torch.float64))
    assert dw.tolist() == [0] * 5


@each_backend
@pytest.mark.parametrize("bits", [1, 2])
def test_nan_weight_stays_nan(bits, backend):
    cases.require("dorefa_weight", backend)
    y = dorefa_weight(torch.tensor([0.5, float("nan")]), bits=bits, backend=backend)
    assert y.isnan().any()


@each_backend
def test_infinite_weight_takes_the_outer_code(backend):
    cases.require("dorefa_weight", backend)
    w = torch.tensor([float("-inf"), 0.1, float("inf")])
    y, dw = truth.with_gradients(
        partial(dorefa_weight, backend=backend), [w], torch.ones(3), bits=2
    )
    torch.testing.assert_close(y, torch.tensor([-1.0, 1 / 3, 1.0]))
    assert dw[[0, 2]].tolist() == [0, 0]


def mask_of(x: torch.Tensor, backend: str, signed: bool = False) -> list[int]:
    return _ops.overload("dorefa_activation_forward", backend)(x, 4, signed)[1].tolist()


@each_backend
def test_activation_mask_has_one_bit_per_element_low_bits_first(backend):
    cases.require("dorefa_activation", backend)
    x = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0, float("nan"), 0.25, -2.0, 0.5, -0.5])
    assert mask_of(x, backend) == [0b0100_1110, 0b01]
    assert mask_of(x, backend, signed=True) == [0b0100_1111, 0b11]


@each_backend
def test_activation_saves_one_bit_per_element(backend):
    cases.require("dorefa_activation", backend)
    x = torch.randn(2**12, requires_grad=True)
    saved = cases.saved_bytes(lambda: dorefa_activation(x, bits=4, backend=backend))
    assert saved == 2**12 // 8


@each_backend
def test_activation_mask_is_in_memory_order(backend):
    cases.require("dorefa_activation", backend)
    rows = torch.tensor([[0.5, 2.0, -1.0], [2.0, 0.5, 0.5]])
    assert mask_of(rows, backend) == mask_of(rows.t(), backend) == [0b110001]
    assert mask_of(rows.t().contiguous(), backend) == [0b101001]
    assert mask_of(torch.zeros(3, 0), backend) == []

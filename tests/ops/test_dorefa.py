from functools import partial

import pytest
import torch

from daqakd import _ops
from daqakd._errors import InputError
from daqakd.functional import dorefa_activation, dorefa_weight

from ..helpers import cases, tolerance, truth
from ..helpers.cases import each_backend, each_combination, each_dtype

pytestmark = pytest.mark.usefixtures("poisoned_empty")
SIGNED = {"unsigned": False, "signed": True}
MAXIMUM = {"detached": True, "in-graph": False}
W = (-0.5, -0.2, 0.0, 0.1, 0.3)
G = (1.0, -1.0, 2.0, 1.0, -2.0)
each_maximum = pytest.mark.parametrize("detach_max", [True, False], ids=["detached", "in-graph"])


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


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
    share = -(g * t).sum() / t[2] ** 2 / 2 * (1 - t[2] ** 2)
    torch.testing.assert_close(extra, torch.stack([-share, 0 * share, share]))


@each_combination(case={case.id: case for case in cases.CASES}, detach_max=MAXIMUM)
def test_weight_agrees_with_truth(case, detach_max, dtype, backend):
    cases.require("dorefa_weight", backend, dtype)
    check_weight(case.make(dtype, scale=0.4), bits=3, detach_max=detach_max, backend=backend)


@each_backend
@each_dtype
@each_maximum
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_weight_agrees_with_truth_at_every_width(bits, detach_max, dtype, backend):
    cases.require("dorefa_weight", backend, dtype)
    w = cases.Case("kernels", (8, 5, 3, 3)).make(dtype, scale=0.4)
    check_weight(w, bits=bits, detach_max=detach_max, backend=backend)


def check_weight(w, *, bits, detach_max, backend):
    g = cases.like_in_other_strides(w)
    options = {"bits": bits, "detach_max": detach_max}
    y, dw = truth.with_gradients(partial(dorefa_weight, backend=backend), [w], g, **options)
    tolerance.check_layout(y, w)
    tolerance.check_layout(dw, w)
    if w.numel() == 0:
        return
    wide = w.double()
    exact, exact_dw = truth.with_gradients(truth.dorefa_weight, [wide], g.double(), **options)
    n = 2**bits - 1
    t = torch.tanh(wide)
    v = (t / (2 * t.abs().max()) + 0.5) * n
    near = tolerance.distance_to_boundary(v, 0, n) <= tolerance.band_of(
        v.clamp(min=n), _ops.accumulation_dtype(w.dtype)
    )
    tolerance.check_quantized(y, exact, near if bits > 1 else near & False, 2 / n)
    tolerance.check_close(dw, exact_dw)


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


@each_combination(case={case.id: case for case in cases.CASES}, signed=SIGNED)
def test_activation_agrees_with_truth(case, signed, dtype, backend):
    cases.require("dorefa_activation", backend, dtype)
    check_activation(case.make(dtype), bits=3, signed=signed, backend=backend)


@each_backend
@each_dtype
@pytest.mark.parametrize(
    ("bits", "signed"), [(1, False), (2, False), (2, True), (4, True), (8, False), (8, True)]
)
def test_activation_agrees_with_truth_at_every_width(bits, signed, dtype, backend):
    cases.require("dorefa_activation", backend, dtype)
    x = torch.cat([cases.Case("n", (1025,)).make(dtype), torch.arange(-9, 10).to(dtype) / 8])
    check_activation(x, bits=bits, signed=signed, backend=backend)


def check_activation(x, *, bits, signed, backend):
    g = cases.like_in_other_strides(x)
    options = {"bits": bits, "signed": signed}
    y, dx = truth.with_gradients(partial(dorefa_activation, backend=backend), [x], g, **options)
    exact, exact_dx = truth.with_gradients(
        truth.dorefa_activation, [x.double()], g.double(), **options
    )
    n = truth.level_count(bits, signed)
    v = x.double() * n
    distance = tolerance.distance_to_boundary(v, -n if signed else 0, n)
    near = (distance > 0) & (distance <= tolerance.band_of(v, _ops.accumulation_dtype(x.dtype)))
    tolerance.check_quantized(y, exact, near, 1 / n)
    assert torch.equal(dx.double(), exact_dx)
    tolerance.check_layout(y, x)
    tolerance.check_layout(dx, x)


@each_backend
@each_dtype
def test_activation_nan_and_infinity(dtype, backend):
    cases.require("dorefa_activation", backend, dtype)
    x = torch.tensor([float("nan"), float("-inf"), float("inf"), 0.0, 1.0], dtype=dtype)
    y, dx = truth.with_gradients(
        partial(dorefa_activation, backend=backend), [x], torch.ones_like(x), bits=2
    )
    assert y[0].isnan()
    assert y[1:].tolist() == [0, 1, 0, 1]
    assert dx.tolist() == [0, 0, 0, 1, 1]


def mask_of(x: torch.Tensor, backend: str, signed: bool = False) -> list[int]:
    return _ops.overload("dorefa_activation_forward", backend)(x, 4, signed)[1].tolist()


@each_backend
def test_activation_mask_has_one_bit_per_element_low_bits_first(backend):
    cases.require("dorefa_activation", backend)
    x = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0, float("nan"), 0.25, -2.0, 0.5, -0.5])
    assert mask_of(x, backend) == [0b0100_1110, 0b01]
    assert mask_of(x, backend, signed=True) == [0b0100_1111, 0b11]


@each_combination(case={case.id: case for case in cases.CASES}, signed=SIGNED)
def test_activation_mask_has_the_references_bits(case, signed, dtype, backend):
    cases.require("dorefa_activation", backend, dtype)
    x = case.make(dtype)
    assert mask_of(x, backend, signed) == mask_of(x, "reference", signed)


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


@pytest.mark.parametrize("function", [dorefa_weight, dorefa_activation])
@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (torch.zeros(2).int(), {"bits": 2}, r"[wx]: expected float16.*got torch\.int32"),
        (torch.zeros(2), {"bits": 0}, r"bits: expected an integer from 1 to 8, got 0"),
        (torch.zeros(2), {"bits": 9}, r"bits: .*got 9"),
        (torch.zeros(2), {"bits": "2"}, r"bits: .*got '2'"),
        (torch.zeros(2), {"bits": 2, "backend": "cpu"}, r"unknown backend in backend= 'cpu'"),
    ],
)
def test_error_names_the_argument(function, x, options, message):
    with pytest.raises(InputError, match=message):
        function(x, **options)


def test_signed_activation_needs_two_bits():
    with pytest.raises(InputError, match=r"bits: expected an integer from 2 to 8 for a signed"):
        dorefa_activation(torch.zeros(2), bits=1, signed=True)

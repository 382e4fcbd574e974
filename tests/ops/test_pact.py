from functools import partial

import pytest
import torch

from daqakd import _ops
from daqakd._errors import InputError
from daqakd.functional import pact

from ..helpers import cases, tolerance, truth
from ..helpers.cases import each_backend, each_combination, each_dtype

pytestmark = pytest.mark.usefixtures("poisoned_empty")
SIGNED = {"unsigned": False, "signed": True}


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def alpha_for(x: torch.Tensor, axis: int | None) -> torch.Tensor:
    """Return different, unround clipping levels."""
    dtype = cases.parameter_dtype(x.dtype)
    if axis is None:
        return torch.tensor(1.1, dtype=dtype)
    return 0.7 + 0.13 * torch.arange(x.shape[axis], dtype=dtype) ** 0.5


@pytest.mark.parametrize(
    ("bits", "value"),
    [(2, [0, 0, 0.333333, 0.666667, 1, 1]), (4, [0, 0, 0.2, 0.533333, 1, 1])],
)
def test_paper_vector(bits, value):
    inputs = double(-1, 0, 0.2, 0.5, 1, 2), torch.tensor(1.0, dtype=torch.float64)
    y, dx, dalpha = truth.with_gradients(pact, inputs, double(1, -1, 2, 1, -2, 1), bits=bits)
    torch.testing.assert_close(y, double(*value), rtol=0, atol=1e-6)
    assert dx.tolist() == [0, 0, 2, 1, 0, 0]
    assert float(dalpha) == -1


def test_signed_takes_the_gradient_away_below():
    inputs = double(-3, -1, -0.4, 0.4, 1, 3), torch.tensor(1.0, dtype=torch.float64)
    g = double(1, 2, 4, 8, 16, 32)
    y, dx, dalpha = truth.with_gradients(pact, inputs, g, bits=3, signed=True)
    torch.testing.assert_close(y * 3, double(-3, -3, -1, 1, 3, 3))
    assert dx.tolist() == [0, 0, 4, 8, 0, 0]
    assert float(dalpha) == 16 + 32 - 1 - 2


def check_against_truth(x, alpha, *, backend, **options):
    """Compare values within the boundary band and gradients at the op's own mask."""
    g = cases.like_in_other_strides(x)
    y, dx, dalpha = truth.with_gradients(partial(pact, backend=backend), (x, alpha), g, **options)
    wide = truth.in_double((x, alpha))
    exact, exact_dx, exact_dalpha = truth.with_gradients(truth.pact, wide, g.double(), **options)
    n = truth.level_count(options["bits"], options["signed"])
    levels = truth.along(wide[1], x, options["axis"]) / n
    v = wide[0] / levels
    distance = tolerance.distance_to_boundary(v, -n if options["signed"] else 0, n)
    near = distance <= tolerance.band_of(v, _ops.accumulation_dtype(x.dtype))
    tolerance.check_quantized(y, exact, near, levels)
    tolerance.check_close(dalpha, exact_dalpha)
    assert dalpha.dtype == alpha.dtype
    assert torch.equal(dx.double(), exact_dx)
    tolerance.check_layout(y, x)
    tolerance.check_layout(dx, x)


@each_combination(case={case.id: case for case in cases.CASES})
def test_agrees_with_truth(case, dtype, backend):
    cases.require("pact", backend, dtype)
    x = case.make(dtype)
    for axis in cases.axes(x):
        alpha = alpha_for(x, axis)
        check_against_truth(x, alpha, axis=axis, bits=3, signed=False, backend=backend)


@each_backend
@each_dtype
@pytest.mark.parametrize(
    ("bits", "signed"), [(1, False), (2, False), (2, True), (4, True), (8, False), (8, True)]
)
def test_agrees_with_truth_at_every_width(bits, signed, dtype, backend):
    cases.require("pact", backend, dtype)
    x = cases.Case("rows", (31, 33)).make(dtype)
    for axis in cases.axes(x):
        alpha = alpha_for(x, axis)
        check_against_truth(x, alpha, axis=axis, bits=bits, signed=signed, backend=backend)


@each_backend
@each_dtype
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_is_exact_at_the_clipping_level(signed, dtype, backend):
    cases.require("pact", backend, dtype)
    x = torch.tensor([-2, -1.5, -1, -0.0, 0.0, 1, 1.5, 2], dtype=dtype)
    inputs = x, torch.tensor(1.5, dtype=cases.parameter_dtype(dtype))
    g = 2.0 ** torch.arange(8).to(dtype)
    results = truth.with_gradients(partial(pact, backend=backend), inputs, g, bits=3, signed=signed)
    exact = truth.with_gradients(
        truth.pact, truth.in_double(inputs), g.double(), bits=3, signed=signed
    )
    tolerance.check_close(results[0], exact[0])
    assert torch.equal(results[1].double(), exact[1])
    assert float(results[2]) == float(exact[2])


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_alpha_gradient_is_the_slope_with_codes_frozen(signed):
    """The rounding residual is held while alpha moves: only clipped elements follow alpha."""
    x, g = torch.randn(99, dtype=torch.float64), torch.randn(99, dtype=torch.float64)
    alpha = torch.tensor(0.8, dtype=torch.float64)
    *_, dalpha = truth.with_gradients(pact, (x, alpha), g, bits=3, signed=signed)

    def clipped(a: float) -> torch.Tensor:
        return (g * x.clamp(-a if signed else 0.0, a)).sum()

    slope = (clipped(0.8 + 1e-7) - clipped(0.8 - 1e-7)) / 2e-7
    torch.testing.assert_close(dalpha, slope, rtol=1e-6, atol=1e-6)


@each_backend
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=cases.dtype_name)
def test_alpha_gradient_of_a_million_16_bit_values(dtype, backend):
    cases.require("pact", backend, dtype)
    inputs = torch.randn(2**20).to(dtype), torch.tensor(0.7)
    g = torch.randn(2**20).to(dtype)
    *_, dalpha = truth.with_gradients(partial(pact, backend=backend), inputs, g, bits=4)
    *_, exact = truth.with_gradients(truth.pact, truth.in_double(inputs), g.double(), bits=4)
    torch.testing.assert_close(dalpha.double(), exact, rtol=1e-3, atol=0)


def mask_of(x: torch.Tensor, backend: str, signed: bool = False) -> list[int]:
    return _ops.overload("pact_forward", backend)(x, torch.tensor(1.0), 4, signed, None)[1].tolist()


@each_backend
def test_mask_has_two_bits_per_element_low_bits_first(backend):
    cases.require("pact", backend)
    x = torch.tensor([-1.0, 0.5, 1.0, float("nan"), 2.0, 0.25])
    assert mask_of(x, backend) == [0b11_10_01_00, 0b00_00_01_10]
    assert mask_of(-x, backend, signed=True) == [0b11_00_01_10, 0b00_00_01_00]


@each_backend
def test_mask_is_in_memory_order(backend):
    cases.require("pact", backend)
    rows = torch.tensor([[0.5, 2.0, -1.0], [2.0, 2.0, 0.5]])
    in_order = [0b10_00_10_01, 0b00_00_01_10]
    assert mask_of(rows, backend) == in_order
    assert mask_of(rows.t(), backend) == in_order
    assert mask_of(rows.t().contiguous(), backend) == [0b10_10_10_01, 0b00_00_01_00]
    images = rows.reshape(1, 1, 2, 3).permute(0, 3, 1, 2)
    assert mask_of(images, backend) == in_order


@each_backend
def test_mask_of_an_expanded_input_has_every_element(backend):
    cases.require("pact", backend)
    assert mask_of(torch.tensor([[0.5], [2.0]]).expand(2, 3), backend) == [0b10_01_01_01, 0b10_10]


@each_backend
def test_mask_of_nothing_is_empty(backend):
    cases.require("pact", backend)
    assert mask_of(torch.zeros(0, 3), backend) == []


@each_backend
@each_dtype
def test_nan_stays_nan_without_input_gradient(dtype, backend):
    cases.require("pact", backend, dtype)
    x = torch.tensor([[0.5, float("nan")], [0.5, 1.0]], dtype=dtype)
    inputs = x, torch.ones(2, dtype=cases.parameter_dtype(dtype))
    y, dx, dalpha = truth.with_gradients(
        partial(pact, backend=backend), inputs, torch.ones_like(x), bits=3, axis=0
    )
    assert y.isnan().tolist() == [[False, True], [False, False]]
    assert dx.tolist() == [[1, 0], [1, 0]]
    assert dalpha.isnan().tolist() == [True, False]


@each_backend
@pytest.mark.parametrize(("signed", "low", "dalpha"), [(False, 0.0, 10), (True, -1.0, 9)])
def test_infinity_is_clipped(signed, low, dalpha, backend):
    cases.require("pact", backend)
    inputs = torch.tensor([float("-inf"), float("inf")]), torch.tensor(1.0)
    y, dx, result = truth.with_gradients(
        partial(pact, backend=backend), inputs, torch.tensor([1.0, 10.0]), bits=2, signed=signed
    )
    assert y.tolist() == [low, 1.0]
    assert dx.tolist() == [0, 0]
    assert float(result) == dalpha


@each_backend
@pytest.mark.parametrize("alpha", [0.0, -0.5, 2.0**-40], ids=["0", "negative", "tiny"])
def test_alpha_is_used_as_at_least_the_smallest(alpha, backend):
    cases.require("pact", backend)
    x, g = torch.tensor([-1.0, 2.0**-31, 2.0**-30, 1.0]), torch.tensor([1.0, 2.0, 4.0, 8.0])
    y, dx, dalpha = truth.with_gradients(
        partial(pact, backend=backend), (x, torch.tensor(alpha)), g, bits=1
    )
    assert y.tolist() == [0, 0, 2.0**-30, 2.0**-30]
    assert dx.tolist() == [0, 2, 0, 0]
    assert float(dalpha) == 12


@each_combination(case={case.id: case for case in cases.CASES}, signed=SIGNED)
def test_mask_has_the_references_bits(case, signed, dtype, backend):
    cases.require("pact", backend, dtype)
    x = case.make(dtype, scale=3.0)
    for axis in cases.axes(x):
        arguments = x, alpha_for(x, axis), 4, signed, axis
        mask = _ops.overload("pact_forward", backend)(*arguments)[1]
        assert torch.equal(mask, _ops.overload("pact_forward", "reference")(*arguments)[1])


def eager(x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Four bits by the chain of operations that the paper's equations are."""
    levels = 15 / alpha
    y = torch.minimum(torch.clamp(x, min=0), alpha) * levels
    return ((torch.round(y) - y).detach() + y) / levels


@each_backend
@each_dtype
def test_saves_a_twelfth_of_the_eager_chain(dtype, backend, record_property):
    cases.require("pact", backend, dtype)
    count = 2**14
    x = torch.randn(count).to(dtype).requires_grad_()
    alpha = torch.tensor(1.1, dtype=dtype, requires_grad=True)
    saved = cases.saved_bytes(lambda: pact(x, alpha, bits=4, backend=backend))
    chain = cases.saved_bytes(lambda: eager(x, alpha))
    record_property(f"saved bytes of {count} elements, PACT and the eager chain", (saved, chain))
    assert saved == count // 4 + alpha.element_size()
    assert saved * 12 <= chain


ROWS, ALPHA = torch.zeros(2, 3), torch.tensor(0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": ROWS.long()}, r"x: expected float16.*got torch\.int64"),
        ({"alpha": torch.tensor(True)}, r"alpha: expected float16.*got torch\.bool"),
        ({"alpha": torch.ones(2)}, r"alpha: expected one value, got shape \(2,\)"),
        ({"alpha": torch.ones(2), "axis": 1}, r"alpha: expected shape \(3,\) for axis=1"),
        ({"alpha": torch.ones(2), "axis": 5}, r"axis: .*got 5"),
        ({"bits": 0}, r"bits: expected an integer from 1 to 8, got 0"),
        ({"bits": 1, "signed": True}, r"bits: expected an integer from 2 to 8 for a signed range"),
        ({"bits": 9}, r"bits: .*got 9"),
        ({"backend": "refrence"}, r"unknown backend in backend= 'refrence'.*Did you mean 'refer"),
    ],
)
def test_error_names_the_argument(change, message):
    arguments = {"x": ROWS, "alpha": ALPHA, "bits": 3} | change
    with pytest.raises(InputError, match=message):
        pact(arguments.pop("x"), arguments.pop("alpha"), **arguments)

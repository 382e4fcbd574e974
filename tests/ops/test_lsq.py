import itertools
from functools import partial

import pytest
import torch

from daqakd import _ops
from daqakd._errors import InputError
from daqakd.functional import lsq

from ..helpers import cases, tolerance, truth
from ..helpers.cases import each_backend, each_case, each_combination, each_dtype

pytestmark = pytest.mark.usefixtures("poisoned_empty")
STES = tuple(_ops.STE_CODES)
PAIRS = ((1, False), (2, True), (2, False), (4, True), (8, True), (8, False))
WIDTHS = {f"{bits}-{'signed' if signed else 'unsigned'}": (bits, signed) for bits, signed in PAIRS}
X = (-1.5, -1.0, -0.25, 0.0, 0.2, 0.25, 0.5, 0.75, 1.0, 2.0)
G = (1.0, -1.0, 2.0, 1.0, -2.0, 1.0, 3.0, -1.0, 2.0, 1.0)


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def step_for(x: torch.Tensor, axis: int | None) -> torch.Tensor:
    """Return different, unround steps."""
    dtype = cases.parameter_dtype(x.dtype)
    if axis is None:
        return torch.tensor(0.37, dtype=dtype)
    return 0.31 + 0.07 * torch.arange(x.shape[axis], dtype=dtype) ** 0.5


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


def check_against_truth(x, step, *, backend, **options):
    """Compare values within the boundary band, and gradients at the op's own codes."""
    g = cases.like_in_other_strides(x)
    y, dx, ds = truth.with_gradients(
        partial(lsq, backend=backend), (x, step), g, grad_scale=0.25, **options
    )
    wide_x, wide_step, wide_g = truth.in_double((x, step, g))
    exact = truth.lsq(wide_x, wide_step, **options)
    decide = _ops.accumulation_dtype(x.dtype)
    _, exact_dx, exact_ds = truth.with_gradients(
        partial(truth.lsq, decide=decide), (wide_x, wide_step), wide_g, **options
    )
    levels = truth.along(wide_step, x, options["axis"])
    v = wide_x / levels
    low, high = truth.code_range(options["bits"], options["signed"])
    near = tolerance.distance_to_boundary(v, low, high) <= tolerance.band_of(v, decide)
    tolerance.check_quantized(y, exact, near, levels)
    tolerance.check_close(ds, exact_ds * 0.25)
    assert ds.dtype == step.dtype
    assert torch.equal(dx.double(), exact_dx)
    tolerance.check_layout(y, x)
    tolerance.check_layout(dx, x)


@each_combination(case={case.id: case for case in cases.CASES})
def test_agrees_with_truth(case, dtype, backend):
    """Each case, dtype, axis and backend meets each convention: the next one takes the next."""
    cases.require("lsq", backend, dtype)
    x = case.make(dtype)
    turn = cases.CASES.index(case) + cases.DTYPES.index(dtype)
    for place, axis in enumerate(cases.axes(x)):
        ste = STES[(turn + place) % len(STES)]
        options = {"bits": 3, "signed": True, "ste": ste, "backend": backend}
        check_against_truth(x, step_for(x, axis), axis=axis, **options)


@pytest.mark.slow
@each_backend
@each_dtype
@each_case
def test_agrees_with_truth_in_the_full_product(case, dtype, backend):
    cases.require("lsq", backend, dtype)
    x = case.make(dtype)
    for axis, ste, (bits, signed) in itertools.product(cases.axes(x), STES, PAIRS):
        options = {"bits": bits, "signed": signed, "ste": ste, "backend": backend}
        check_against_truth(x, step_for(x, axis), axis=axis, **options)


@each_combination(width=WIDTHS, ste=dict(zip(STES, STES, strict=True)))
def test_agrees_with_truth_at_every_width(width, ste, dtype, backend):
    cases.require("lsq", backend, dtype)
    bits, signed = width
    high = truth.code_range(bits, signed)[1]
    x = cases.Case("rows", (31, 33)).make(dtype, scale=0.3 * (high + 1))
    options = {"bits": bits, "signed": signed, "ste": ste, "backend": backend}
    check_against_truth(x, step_for(x, None), axis=None, **options)
    check_against_truth(x, step_for(x, 0), axis=0, **options)


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


def interpreted_slowly(dtype: torch.dtype, backend: str):
    late = (dtype, backend) == (torch.float16, "triton")
    name = f"{cases.dtype_name(dtype)}-{backend}"
    return pytest.param(dtype, backend, id=name, marks=pytest.mark.slow if late else ())


@pytest.mark.parametrize(
    ("dtype", "backend"),
    [interpreted_slowly(d, b) for d in (torch.bfloat16, torch.float16) for b in cases.BACKENDS],
)
def test_step_gradient_of_a_million_16_bit_values(dtype, backend):
    cases.require("lsq", backend, dtype)
    x = torch.randn(2**20).to(dtype)
    g = torch.randn(2**20).to(dtype)
    inputs = x, torch.tensor(0.21)
    *_, ds = truth.with_gradients(partial(lsq, backend=backend), inputs, g, bits=4, signed=True)
    *_, exact = truth.with_gradients(
        partial(truth.lsq, decide=torch.float32),
        truth.in_double(inputs),
        g.double(),
        bits=4,
        signed=True,
    )
    torch.testing.assert_close(ds.double(), exact, rtol=1e-3, atol=0)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_step_gradient_is_the_slope_with_codes_frozen(axis):
    x = cases.Case("rows", (8, 9)).make(torch.float64)
    step, g = step_for(x, axis), torch.randn_like(x)
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
def test_nan_stays_nan_without_input_gradient(dtype, backend):
    cases.require("lsq", backend, dtype)
    x = torch.tensor([[0.5, float("nan")], [0.5, 1.0]], dtype=dtype)
    inputs = x, torch.full((2,), 0.5, dtype=cases.parameter_dtype(dtype))
    y, dx, ds = truth.with_gradients(
        partial(lsq, backend=backend), inputs, torch.ones_like(x), bits=3, signed=True, axis=0
    )
    assert y.isnan().tolist() == [[False, True], [False, False]]
    assert dx.tolist() == [[1, 0], [1, 1]]
    assert ds.isnan().tolist() == [True, False]


@each_backend
@each_dtype
def test_a_code_of_zero_is_plus_zero(dtype, backend):
    cases.require("lsq", backend, dtype)
    x = torch.tensor([-0.2, -0.0, 0.0, 0.2], dtype=dtype)
    step = torch.tensor(0.5, dtype=cases.parameter_dtype(dtype))
    y = lsq(x, step, bits=3, signed=True, backend=backend)
    assert y.tolist() == [0.0] * 4
    assert not y.signbit().any()


@each_backend
@each_dtype
def test_infinity_is_clipped(dtype, backend):
    cases.require("lsq", backend, dtype)
    x = torch.tensor([float("-inf"), float("inf")], dtype=dtype)
    inputs = x, torch.tensor(0.5, dtype=cases.parameter_dtype(dtype))
    g = torch.tensor([1, 10], dtype=dtype)
    y, dx, ds = truth.with_gradients(partial(lsq, backend=backend), inputs, g, bits=3, signed=True)
    assert y.tolist() == [-2.0, 1.5]
    assert dx.tolist() == [0, 0]
    assert float(ds) == -4 + 30


@each_backend
@pytest.mark.parametrize("step", [0.0, -0.0, -0.5, 2.0**-40], ids=["0", "-0", "negative", "tiny"])
def test_step_is_used_as_at_least_the_smallest(step, backend):
    cases.require("lsq", backend)
    x, g = torch.tensor([-1.0, 0.0, 2.0**-30, 1.0]), torch.tensor([1.0, 2.0, 3.0, 5.0])
    options = {"bits": 3, "signed": True}
    results = truth.with_gradients(
        partial(lsq, backend=backend), (x, torch.tensor(step)), g, **options
    )
    at_smallest = truth.with_gradients(lsq, (x, torch.tensor(2.0**-30)), g, **options)
    assert results[0].tolist() == [-(2.0**-28), 0.0, 2.0**-30, 3 * 2.0**-30]
    for result, wanted in zip(results, at_smallest, strict=True):
        assert torch.equal(result, wanted)


ROWS, STEP = torch.zeros(2, 3), torch.tensor(0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": ROWS.int()}, r"x: expected float16.*got torch\.int32"),
        ({"step": torch.tensor(1)}, r"step: expected float16.*got torch\.int64"),
        ({"step": torch.ones(3)}, r"step: expected one value, got shape \(3,\).*axis="),
        ({"step": torch.ones(3), "axis": 0}, r"step: expected shape \(2,\) for axis=0, got \(3,\)"),
        ({"step": torch.ones(3), "axis": 2}, r"axis: expected a dimension of the 2-D input, got 2"),
        ({"step": torch.ones(3), "axis": -3}, r"axis: .*got -3"),
        ({"bits": 0}, r"bits: expected an integer from 2 to 8 for a signed range, got 0"),
        ({"bits": 1}, r"bits: .*got 1"),
        ({"bits": 0, "signed": False}, r"bits: expected an integer from 1 to 8, got 0"),
        ({"bits": 9}, r"bits: .*got 9"),
        ({"bits": 4.0}, r"bits: .*got 4\.0"),
        ({"bits": True}, r"bits: .*got True"),
        ({"ste": "close"}, r"ste: expected one of closed, open, rounded, got 'close'"),
        ({"backend": "cuda"}, r"unknown backend in backend= 'cuda'.*native, reference, triton"),
    ],
)
def test_error_names_the_argument(change, message):
    arguments = {"x": ROWS, "step": STEP, "bits": 3, "signed": True} | change
    with pytest.raises(InputError, match=message):
        lsq(arguments.pop("x"), arguments.pop("step"), **arguments)

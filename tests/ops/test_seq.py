from functools import partial

import pytest
import torch

from daqakd.functional import lsq, seq

from ..helpers import cases, tolerance, truth
from ..helpers.cases import double, each_backend, each_case, each_dtype
from ..helpers.quantizers import SEQ, check_against_truth

pytestmark = pytest.mark.usefixtures("poisoned_empty")


@each_backend
@each_dtype
def test_by_hand(dtype, backend):
    """A step of 1/2: levels -3/4, -1/4, 1/4, 3/4, and the gradient passes below 1."""
    cases.require("seq", backend, dtype)
    x = torch.tensor([-2, -1, -0.5, -0.125, 0, 0.5, 0.625, 1], dtype=dtype)
    inputs = x, torch.tensor(0.5, dtype=cases.parameter_dtype(dtype))
    run = partial(seq, levels=4, grad_scale=0.5, backend=backend)
    y, dx, dstep = truth.with_gradients(run, inputs, torch.full((8,), 2.0).to(dtype))
    assert y.tolist() == [-0.75, -0.75, -0.25, -0.25, 0.25, 0.75, 0.75, 0.75]
    assert dx.tolist() == [0, 0, 2, 2, 2, 2, 2, 0]
    # the end level outside: -3/2, -3/2, 3/2; level - position inside
    assert float(dstep) == 0.5 * 2 * (-1.5 + (0.5 - 0.25 + 0.5 + 0.5 + 0.25))


@each_backend
@each_dtype
def test_three_levels_by_hand(dtype, backend):
    """A step of 1/2: levels -1/2, 0, 1/2, ties to the even one; the gradient passes below 3/4."""
    cases.require("seq", backend, dtype)
    x = torch.tensor([-1, -0.75, -0.25, -0.125, 0, 0.25, 0.5, 0.625], dtype=dtype)
    inputs = x, torch.tensor(0.5, dtype=cases.parameter_dtype(dtype))
    run = partial(seq, levels=3, backend=backend)
    y, dx, dstep = truth.with_gradients(run, inputs, torch.ones(8).to(dtype))
    assert y.tolist() == [-0.5, -0.5, 0, 0, 0, 0, 0.5, 0.5]
    assert not y[2:6].signbit().any()
    assert dx.tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert float(dstep) == -1 - 1 + 0.5 + 0.25 + 0 - 0.5 + 0 - 0.25


@pytest.mark.parametrize("levels", [2, 3, 4, 8, 15])
def test_the_paper_writes_it_by_a_range(levels):
    """``alpha * (round(clip(w / alpha, -1, 1) * k / 2 - 1/2) + 1/2) * 2 / k``, inside its ends."""
    w, alpha = torch.randn(999, dtype=torch.float64), 1.3
    clipped = (w / alpha).clamp(-1 + 1e-9, 1 - 1e-9)
    shift = 0.5 if levels % 2 == 0 else 0.0
    wanted = alpha * (torch.round(clipped * levels / 2 - shift) + shift) * 2 / levels
    found = seq(w, double(2 * alpha / levels)[0], levels=levels)
    torch.testing.assert_close(found, wanted, rtol=1e-14, atol=0)
    assert len(found.unique()) == levels
    torch.testing.assert_close(found.unique(), -found.unique().flip(0))


@each_backend
@each_dtype
def test_the_sign_of_a_tiny_value_is_kept(dtype, backend):
    """A tiny number below 0 has the level below 0; 0 and -0 have the one above."""
    cases.require("seq", backend, dtype)
    tiny = max(torch.finfo(dtype).smallest_normal, 2.0**-100)
    x = torch.tensor([-tiny, -0.0, 0.0, tiny], dtype=dtype)
    step = torch.tensor(0.5, dtype=cases.parameter_dtype(dtype))
    y = seq(x, step, levels=4, backend=backend)
    assert y.tolist() == [-0.25, 0.25, 0.25, 0.25]


@each_backend
@each_dtype
@pytest.mark.parametrize("levels", [2, 3, 4, 5, 16])
def test_is_exact_on_boundaries_and_clip_edges(levels, dtype, backend):
    """A step that is a power of two leaves no boundary band."""
    cases.require("seq", backend, dtype)
    x = torch.arange(-80, 81).to(dtype) / 64
    inputs, g = (x, torch.tensor(0.125, dtype=cases.parameter_dtype(dtype))), torch.ones_like(x)
    run = partial(seq, levels=levels, backend=backend)
    results = truth.with_gradients(run, inputs, g)
    exact = truth.with_gradients(truth.seq, truth.in_double(inputs), g.double(), levels=levels)
    for result, wanted in zip(results, exact, strict=True):
        assert torch.equal(result.double(), wanted)


@each_backend
@each_dtype
@pytest.mark.parametrize("levels", [3, 15])
def test_around_0_it_is_lsq_without_the_lowest_code(levels, dtype, backend):
    """Up to half a step from the highest code, where LSQ's gradient ends before."""
    cases.require("seq", backend, dtype)
    step = torch.tensor(0.11, dtype=cases.parameter_dtype(dtype))
    x = (torch.rand(999) * 2 - 1).to(dtype) * 0.11 * (levels - 1) / 2
    g, bits = torch.randn(999).to(dtype), {3: 2, 15: 4}[levels]
    inputs = x.where(x.abs() <= 0.109 * (levels - 1) / 2, 0), step
    run = partial(seq, levels=levels, backend=backend)
    plain = partial(lsq, bits=bits, signed=True, backend=backend)
    found, wanted = (truth.with_gradients(one, inputs, g) for one in (run, plain))
    assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("levels", [3, 4])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_step_gradient_is_the_slope_with_levels_frozen(axis, levels):
    x = cases.Case("rows", (8, 9)).make(torch.float64)
    (step,), g = SEQ.parameters(x, axis), torch.randn_like(x)
    y, _, ds = truth.with_gradients(seq, (x, step), g, levels=levels, axis=axis)
    along = partial(truth.along, x=x, axis=axis)
    level, inside = y / along(step), (x / along(step)).abs() < levels / 2
    residual = level - x / along(step)

    def surrogate(s):
        return (g * torch.where(inside, x + along(s) * residual, along(s) * level)).sum()

    slope = (surrogate(step + 1e-4) - surrogate(step - 1e-4)) / 2e-4
    torch.testing.assert_close(ds.sum(), slope, rtol=1e-8, atol=1e-8)


@each_dtype
@pytest.mark.parametrize("levels", [2, 3, 4, 256])
def test_is_idempotent(levels, dtype):
    x = cases.Case("n", (1025,)).make(dtype)
    step = torch.tensor(0.25, dtype=cases.parameter_dtype(dtype))
    once = seq(x, step, levels=levels)
    assert torch.equal(seq(once, step, levels=levels), once)


@each_backend
def test_every_level_of_256(backend):
    cases.require("seq", backend, torch.float32)
    x = torch.arange(-140, 140).float() + 0.25
    y = seq(x, torch.tensor(1.0), levels=256, backend=backend)
    assert torch.equal(y, (x + 0.25).clamp(-127.5, 127.5))
    tolerance.check_layout(y, x)


@pytest.mark.slow
@each_backend
@each_dtype
@each_case
def test_agrees_with_truth_in_the_full_product(case, dtype, backend):
    cases.require("seq", backend, dtype)
    x = case.make(dtype)
    for axis in cases.axes(x):
        for levels in (2, 3, 4, 16, 255, 256):
            check_against_truth(SEQ, x, axis, backend, levels=levels)

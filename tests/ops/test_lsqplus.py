from functools import partial

import pytest
import torch

from daqakd.functional import lsq, lsqplus

from ..helpers import cases, truth
from ..helpers.cases import double, each_backend, each_dtype

pytestmark = pytest.mark.usefixtures("poisoned_empty")


@each_backend
@each_dtype
def test_by_hand(dtype, backend):
    """A step of 1/2 above -1/4: levels -1/4, 1/4, 3/4, 5/4, both ends inside."""
    cases.require("lsqplus", backend, dtype)
    parameter = cases.parameter_dtype(dtype)
    inputs = (
        torch.tensor([-1, -0.25, 0, 0.125, 0.5, 1.25, 2], dtype=dtype),
        torch.tensor(0.5, dtype=parameter),
        torch.tensor(-0.25, dtype=parameter),
    )
    run = partial(lsqplus, bits=2, grad_scale=0.5, backend=backend)
    y, dx, dstep, doffset = truth.with_gradients(run, inputs, torch.full((7,), 2.0).to(dtype))
    assert y.tolist() == [-0.25, -0.25, -0.25, 0.25, 0.75, 1.25, 1.25]
    assert dx.tolist() == [0, 2, 2, 2, 2, 2, 0]
    # code - position inside: 0, -1/2, 1/4, 1/2, 0; the code outside: 0 and 3
    assert float(dstep) == 0.5 * 2 * (0 - 0.5 + 0.25 + 0.5 + 0 + 3)
    assert float(doffset) == 0.5 * 2 * 2


def test_gradients_are_slopes_with_codes_frozen():
    """Beside the ends the value follows the offset, and the step by the code."""
    x, g = torch.randn(99, dtype=torch.float64), torch.randn(99, dtype=torch.float64)
    step, offset = double(0.21)[0], double(-0.7)[0]
    _, dx, dstep, doffset = truth.with_gradients(lsqplus, (x, step, offset), g, bits=3)
    position = (x - offset) / step
    frozen = (torch.round(position.clamp(0, 7)) - position.clamp(0, 7)).detach()
    inside = (position >= 0) & (position <= 7)

    def smooth(s, o):  # straight through: what is clipped moves with the grid
        return (g * (((x - o) / s).clamp(0, 7) * s + o + frozen * s)).sum()

    h = 1e-7
    slopes = (
        (smooth(step + h, offset) - smooth(step - h, offset)) / (2 * h),
        (smooth(step, offset + h) - smooth(step, offset - h)) / (2 * h),
    )
    torch.testing.assert_close(
        torch.stack([dstep, doffset]), torch.stack(slopes), rtol=1e-5, atol=1e-6
    )
    assert torch.equal(dx, torch.where(inside, g, 0.0))


@each_backend
@each_dtype
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_without_an_offset_it_is_lsq(bits, dtype, backend):
    cases.require("lsqplus", backend, dtype)
    step = torch.tensor(0.11, dtype=cases.parameter_dtype(dtype))
    x, g = torch.randn(999).to(dtype), torch.randn(999).to(dtype)
    run = partial(lsqplus, bits=bits, backend=backend)
    y, dx, dstep, _ = truth.with_gradients(run, (x, step, torch.zeros_like(step)), g)
    plain = partial(lsq, bits=bits, signed=False, backend=backend)
    for found, wanted in zip(
        (y, dx, dstep), truth.with_gradients(plain, (x, step), g), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)

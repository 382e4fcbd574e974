"""EWGS, forward and backward [EWGS equations 1 to 7]; float32 inside, whatever is stored."""

import triton
import triton.language as tl
from torch import Tensor

from ._maths import at_least_smallest, clip, half_even
from ._partition import OPTIONS, TILE, flat_of, flat_tile
from ._reduce import new_partials, reduce


@triton.jit
def _level(unit, levels):
    return tl.div_rn(half_even(unit * levels), levels)


@triton.jit
def ewgs_value(x, low, high, levels):
    """Return x quantized to [0, 1]."""
    return _level(clip(tl.div_rn(x - low, at_least_smallest(high - low)), 0.0, 1.0), levels)


@triton.jit
def ewgs_gradient(g, x, low, high, levels, delta):
    """Return dx and each element's terms of dlower and dupper."""
    width = at_least_smallest(high - low)
    position = tl.div_rn(x - low, width)
    unit = clip(position, 0.0, 1.0)
    error = unit - _level(unit, levels)
    through = tl.div_rn(g + delta * tl.abs(g) * error, width)
    gradient = tl.where((position >= 0.0) & (position <= 1.0), through, 0.0)
    return gradient, gradient * (unit - 1.0), -gradient * unit


@triton.jit
def ewgs_forward_flat_kernel(
    x,  # [numel]
    lower,  # []
    upper,  # []
    y,  # [numel]
    numel,
    levels,
    BLOCK: tl.constexpr,
):
    """One program: BLOCK elements."""
    at = flat_tile(BLOCK)
    inside = at < numel
    v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    value = ewgs_value(v, tl.load(lower), tl.load(upper), levels)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def ewgs_backward_flat_kernel(
    grad,  # [numel]
    x,  # [numel]
    lower,  # []
    upper,  # []
    delta_tensor,  # [], or None: then delta
    dx,  # [numel]
    lower_partials,  # [programs]
    upper_partials,  # [programs]
    numel,
    levels,
    delta,
    BLOCK: tl.constexpr,
):
    """One program: dx of BLOCK elements, and their partial sums of dlower and dupper."""
    at = flat_tile(BLOCK)
    inside = at < numel
    g = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
    v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if delta_tensor is not None:
        delta = tl.load(delta_tensor)
    gradient, low, high = ewgs_gradient(g, v, tl.load(lower), tl.load(upper), levels, delta)
    tl.store(dx + at, gradient.to(dx.dtype.element_ty), mask=inside)
    tl.store(lower_partials + tl.program_id(0), tl.sum(low, 0))
    tl.store(upper_partials + tl.program_id(0), tl.sum(high, 0))


def ewgs_forward(x: Tensor, lower: Tensor, upper: Tensor, y: Tensor, bits: int) -> None:
    """Quantize the dense ``x`` into ``y``, which has its strides; the range is float32."""
    plan = flat_of(x.numel())
    ewgs_forward_flat_kernel[(plan.programs,)](
        x, lower, upper, y, x.numel(), float(2**bits - 1), BLOCK=TILE, **OPTIONS
    )


def ewgs_backward(
    grad: Tensor,
    x: Tensor,
    lower: Tensor,
    upper: Tensor,
    dx: Tensor,
    dlower: Tensor,
    dupper: Tensor,
    bits: int,
    delta: float,
    delta_tensor: Tensor | None,
) -> None:
    """Write ``dx``, ``dlower`` and ``dupper``; big tensors are dense with the same strides."""
    plan = flat_of(x.numel())
    partials = new_partials(dlower, 2, plan.programs)
    ewgs_backward_flat_kernel[(plan.programs,)](
        grad, x, lower, upper, delta_tensor, dx, *partials, x.numel(), float(2**bits - 1), delta,
        BLOCK=TILE, **OPTIONS,
    )  # fmt: skip
    for partial, out in zip(partials, (dlower, dupper), strict=True):
        reduce(plan, partial, 1.0, out)

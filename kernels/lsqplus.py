"""LSQ+, forward and backward [LSQ+ equations 1 to 5]; float32 inside, whatever is stored."""

import triton
import triton.language as tl
from torch import Tensor

from ._maths import at_least_smallest, clip, half_even
from ._partition import OPTIONS, TILE, flat_of, flat_tile
from ._reduce import new_partials, reduce


@triton.jit
def _code(position, highest):
    return half_even(clip(position, 0.0, highest))


@triton.jit
def lsqplus_forward_flat_kernel(
    x,  # [numel]
    step,  # []
    offset,  # []
    y,  # [numel]
    numel,
    highest,
    BLOCK: tl.constexpr,
):
    """One program: BLOCK elements."""
    at = flat_tile(BLOCK)
    inside = at < numel
    s, low = at_least_smallest(tl.load(step)), tl.load(offset)
    v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    value = _code(tl.div_rn(v - low, s), highest) * s + low
    tl.store(y + at, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def lsqplus_backward_flat_kernel(
    grad,  # [numel]
    x,  # [numel]
    step,  # []
    offset,  # []
    dx,  # [numel]
    step_partials,  # [programs]
    offset_partials,  # [programs]
    numel,
    highest,
    BLOCK: tl.constexpr,
):
    """One program: dx of BLOCK elements, and their partial sums of dstep and doffset."""
    at = flat_tile(BLOCK)
    mask = at < numel
    s, low = at_least_smallest(tl.load(step)), tl.load(offset)
    g = tl.load(grad + at, mask=mask, other=0.0).to(tl.float32)
    position = tl.div_rn(tl.load(x + at, mask=mask, other=0.0).to(tl.float32) - low, s)
    inside = (position >= 0.0) & (position <= highest)
    gradient = tl.where(inside, g, 0.0)
    code = _code(position, highest)
    terms = g * (code - tl.where(inside, position, 0.0))
    tl.store(dx + at, gradient.to(dx.dtype.element_ty), mask=mask)
    tl.store(step_partials + tl.program_id(0), tl.sum(terms, 0))
    tl.store(offset_partials + tl.program_id(0), tl.sum(g - gradient + 0.0 * code, 0))


def lsqplus_forward(x: Tensor, step: Tensor, offset: Tensor, y: Tensor, bits: int) -> None:
    """Quantize the dense ``x`` into ``y``, which has its strides; step and offset are float32."""
    plan = flat_of(x.numel())
    lsqplus_forward_flat_kernel[(plan.programs,)](
        x, step, offset, y, x.numel(), float(2**bits - 1), BLOCK=TILE, **OPTIONS
    )


def lsqplus_backward(
    grad: Tensor,
    x: Tensor,
    step: Tensor,
    offset: Tensor,
    dx: Tensor,
    dstep: Tensor,
    doffset: Tensor,
    bits: int,
    grad_scale: float,
) -> None:
    """Write ``dx``, ``dstep`` and ``doffset``; big tensors are dense with the same strides."""
    plan = flat_of(x.numel())
    partials = new_partials(dstep, 2, plan.programs)
    lsqplus_backward_flat_kernel[(plan.programs,)](
        grad, x, step, offset, dx, *partials, x.numel(), float(2**bits - 1), BLOCK=TILE, **OPTIONS
    )
    for partial, out in zip(partials, (dstep, doffset), strict=True):
        reduce(plan, partial, grad_scale, out)

"""PACT, forward and backward [PACT equations 1 to 3]; float32 inside, whatever is stored."""

import triton
import triton.language as tl
from torch import Tensor

from ._maths import at_least_smallest, clip, half_even
from ._partition import (
    OPTIONS,
    TILE,
    Columns,
    View,
    column_tile,
    flat_of,
    flat_tile,
    load_codes,
    plan_of,
    run_tile,
    store_mask,
)
from ._reduce import reduce

BELOW, INSIDE, ABOVE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)  # codes of the mask
NOT_A_NUMBER = tl.constexpr(3)


@triton.jit
def pact_value(x, level, lowest, highest):
    """Return x quantized up to the clipping level."""
    step = tl.div_rn(level, highest)
    return half_even(clip(tl.div_rn(x, step), lowest, highest)) * step


@triton.jit
def pact_codes(x, level, lowest):
    """Return what backward needs to know of x."""
    low = tl.where(lowest < 0.0, -level, 0.0)
    codes = (x > low).to(tl.int32) + (x >= level).to(tl.int32)
    return tl.where(x == x, codes, NOT_A_NUMBER)  # NaN alone differs from itself


@triton.jit
def pact_forward_flat_kernel(
    x,  # [numel]
    alpha,  # [channels]
    y,  # [numel]
    mask,  # [numel / 4]
    numel,
    channels,
    inner,
    lowest,
    highest,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: BLOCK elements and their codes; CHANNELS says whether there are several."""
    at = flat_tile(BLOCK)
    inside = at < numel
    if CHANNELS:
        level = at_least_smallest(tl.load(alpha + at // inner % channels))
    else:
        level = at_least_smallest(tl.load(alpha))
    v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    value = pact_value(v, level, lowest, highest)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=inside)
    store_mask(mask, tl.where(inside, pact_codes(v, level, lowest), 0), numel, 2, BLOCK)


@triton.jit
def pact_gradient(g, codes, SIGNED: tl.constexpr):
    """Return dx and each element's term of dalpha."""
    terms = tl.where(codes == ABOVE, g, 0.0)
    if SIGNED:
        terms = tl.where(codes == BELOW, -g, terms)
    terms = tl.where(codes == NOT_A_NUMBER, float("nan"), terms)
    return tl.where(codes == INSIDE, g, 0.0), terms


@triton.jit
def pact_backward_runs_kernel(
    grad,  # [outer, channels, inner]
    mask,  # [numel / 4]
    dx,  # [outer, channels, inner]
    partials,  # [down, channels, blocks]
    outer,
    channels,
    inner,
    blocks,
    SIGNED: tl.constexpr,
    RUNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: dx of RUNS x BLOCK elements of one channel, and their partial sum of dalpha."""
    _, at, inside = run_tile(outer, channels, inner, blocks, RUNS, BLOCK)
    g = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
    gradient, terms = pact_gradient(g, load_codes(mask, at, inside, 2), SIGNED)
    tl.store(dx + at, gradient.to(dx.dtype.element_ty), mask=inside)
    tl.store(partials + tl.program_id(0), tl.sum(tl.sum(terms, 1), 0))


@triton.jit
def pact_backward_columns_kernel(
    grad,  # [numel]
    mask,  # [numel / 4]
    dx,  # [numel]
    partials,  # [down, width]
    numel,
    width,
    tiles,
    channels,
    inner,
    SIGNED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One program: dx of a tile of ROWS x COLUMNS, and each column's partial sum of dalpha."""
    column, _, tile, at = column_tile(width, tiles, channels, inner, ROWS, COLUMNS)
    inside = (column[None, :] < width) & (at < numel)
    g = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
    gradient, terms = pact_gradient(g, load_codes(mask, at, inside, 2), SIGNED)
    tl.store(dx + at, gradient.to(dx.dtype.element_ty), mask=inside)
    tl.store(partials + tile * width + column, tl.sum(terms, 0), mask=column < width)


def pact_forward(
    x: Tensor,
    alpha: Tensor,
    y: Tensor,
    mask: Tensor,
    shape: tuple[int, int, int],
    bits: int,
    signed: bool,
) -> None:
    """Quantize the dense ``x`` into ``y``, its codes into ``mask``; ``alpha`` is float32.

    ``shape`` is [outer, channels, inner], in memory order.
    """
    view = View(*shape)
    highest = float(2 ** (bits - 1) - 1 if signed else 2**bits - 1)
    pact_forward_flat_kernel[(flat_of(view.numel).programs,)](
        x, alpha, y, mask, view.numel, view.channels, view.inner, -highest if signed else 0.0,
        highest, CHANNELS=view.channels > 1, BLOCK=TILE, **OPTIONS,
    )  # fmt: skip


def pact_backward(
    grad: Tensor,
    mask: Tensor,
    dx: Tensor,
    dalpha: Tensor,
    shape: tuple[int, int, int],
    signed: bool,
) -> None:
    """Write ``dx`` and ``dalpha``; ``grad`` and ``dx`` are dense with the same strides."""
    plan = plan_of(*shape)
    narrow = isinstance(plan, Columns)
    kernel = pact_backward_columns_kernel if narrow else pact_backward_runs_kernel
    partials = dalpha.new_empty(plan.num_partials)
    kernel[(plan.programs,)](grad, mask, dx, partials, *plan.sizes, SIGNED=signed, **plan.options)
    reduce(plan, partials, 1.0, dalpha)

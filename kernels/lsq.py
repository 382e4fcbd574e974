"""LSQ, forward and backward [LSQ equations 1 to 3]; float32 inside, whatever is stored.

SEQ has the same kernels: with ``HALF`` levels lie in the middle of whole steps.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._maths import at_least_smallest, clip, half_even
from ._partition import Columns, Runs, column_tile, plan_of, run_tile
from ._reduce import reduce


@triton.jit
def _level(v, lowest, highest, HALF: tl.constexpr):
    clipped = clip(v, lowest, highest)
    rounded = half_even(clipped)
    if HALF:
        return tl.where(rounded > clipped, rounded - 0.5, rounded + 0.5)
    else:
        return rounded


@triton.jit
def lsq_value(x, s, lowest, highest, HALF: tl.constexpr = False):
    """Return x quantized with the step s."""
    return _level(tl.div_rn(x, s), lowest, highest, HALF) * s


@triton.jit
def lsq_gradient(g, x, s, lowest, highest, pass_low, pass_high, HALF: tl.constexpr = False):
    """Return dx and each element's term of ds."""
    v = tl.div_rn(x, s)
    inside = (v >= pass_low) & (v <= pass_high)
    terms = g * (_level(v, lowest, highest, HALF) - tl.where(inside, v, 0.0))
    return tl.where(inside, g, 0.0), terms


@triton.jit
def lsq_forward_runs_kernel(
    x,  # [outer, channels, inner]
    step,  # [channels]
    y,  # [outer, channels, inner]
    outer,
    channels,
    inner,
    blocks,
    lowest,
    highest,
    HALF: tl.constexpr,
    RUNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: RUNS x BLOCK elements of one channel."""
    channel, at, mask = run_tile(outer, channels, inner, blocks, RUNS, BLOCK)
    s = at_least_smallest(tl.load(step + channel))
    v = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    value = lsq_value(v, s, lowest, highest, HALF)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=mask)


@triton.jit
def lsq_backward_runs_kernel(
    grad,  # [outer, channels, inner]
    x,  # [outer, channels, inner]
    step,  # [channels]
    dx,  # [outer, channels, inner]
    partials,  # [down, channels, blocks]
    outer,
    channels,
    inner,
    blocks,
    lowest,
    highest,
    pass_low,
    pass_high,
    scale,
    HALF: tl.constexpr,
    RUNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: dx of RUNS x BLOCK elements of one channel, and their partial sum of ds."""
    channel, at, mask = run_tile(outer, channels, inner, blocks, RUNS, BLOCK)
    s = at_least_smallest(tl.load(step + channel))
    g = tl.load(grad + at, mask=mask, other=0.0).to(tl.float32)
    v = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    gradient, terms = lsq_gradient(g, v, s, lowest, highest, pass_low, pass_high, HALF)
    tl.store(dx + at, gradient.to(dx.dtype.element_ty), mask=mask)
    tl.store(partials + tl.program_id(0), tl.sum(tl.sum(terms, 1), 0) * scale)


@triton.jit
def lsq_forward_columns_kernel(
    x,  # [numel]
    step,  # [channels]
    y,  # [numel]
    numel,
    width,
    tiles,
    channels,
    inner,
    lowest,
    highest,
    HALF: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One program: a tile of ROWS x COLUMNS, a step per column."""
    column, channel, _, at = column_tile(width, tiles, channels, inner, ROWS, COLUMNS)
    mask = (column[None, :] < width) & (at < numel)
    s = at_least_smallest(tl.load(step + channel))[None, :]
    v = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    value = lsq_value(v, s, lowest, highest, HALF)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=mask)


@triton.jit
def lsq_backward_columns_kernel(
    grad,  # [numel]
    x,  # [numel]
    step,  # [channels]
    dx,  # [numel]
    partials,  # [down, width]
    numel,
    width,
    tiles,
    channels,
    inner,
    lowest,
    highest,
    pass_low,
    pass_high,
    HALF: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One program: dx of a tile of ROWS x COLUMNS, and each column's partial sum of ds."""
    column, channel, tile, at = column_tile(width, tiles, channels, inner, ROWS, COLUMNS)
    mask = (column[None, :] < width) & (at < numel)
    s = at_least_smallest(tl.load(step + channel))[None, :]
    g = tl.load(grad + at, mask=mask, other=0.0).to(tl.float32)
    v = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    gradient, terms = lsq_gradient(g, v, s, lowest, highest, pass_low, pass_high, HALF)
    tl.store(dx + at, gradient.to(dx.dtype.element_ty), mask=mask)
    tl.store(partials + tile * width + column, tl.sum(terms, 0), mask=column < width)


@cache
def pass_interval(qmin: int, qmax: int, ste: int) -> tuple[float, float]:
    """Return the closed interval of x / s where dx passes.

    An open end (``ste`` 1) is the neighbouring number; a code (``ste`` 2) rounds into the range up
    to the half step beyond it, ties going to the even code.
    """
    low, high = (qmin - 0.5, qmax + 0.5) if ste == 2 else (float(qmin), float(qmax))
    bounds, infinity = torch.tensor([low, high]), torch.tensor([torch.inf, -torch.inf])
    shift = torch.tensor([ste == 1 or (ste == 2 and q % 2 != 0) for q in (qmin, qmax)])
    low, high = torch.where(shift, torch.nextafter(bounds, infinity), bounds).tolist()
    return low, high


def forward(
    x: Tensor,
    step: Tensor,
    y: Tensor,
    shape: tuple[int, int, int],
    ends: tuple[float, float],
    half: bool = False,
) -> None:
    """Quantize to the levels between the ``ends``, with what else :func:`lsq_forward` takes."""
    plan = plan_of(*shape)
    narrow = isinstance(plan, Columns)
    kernel = lsq_forward_columns_kernel if narrow else lsq_forward_runs_kernel
    kernel[(plan.programs,)](x, step, y, *plan.sizes, *ends, HALF=half, **plan.options)


def backward(
    grad: Tensor,
    x: Tensor,
    step: Tensor,
    dx: Tensor,
    ds: Tensor,
    shape: tuple[int, int, int],
    ends: tuple[float, float],
    passing: tuple[float, float],
    grad_scale: float,
    half: bool = False,
) -> None:
    """Write ``dx``, which passes where ``x / step`` is within ``passing``, and ``ds``."""
    plan = plan_of(*shape)
    alone = isinstance(plan, Runs) and plan.num_partials == plan.view.channels
    partials = ds if alone else ds.new_empty(plan.num_partials)
    arguments = grad, x, step, dx, partials, *plan.sizes, *ends, *passing
    if isinstance(plan, Columns):
        lsq_backward_columns_kernel[(plan.programs,)](*arguments, HALF=half, **plan.options)
    else:
        scale = grad_scale if alone else 1.0
        lsq_backward_runs_kernel[(plan.programs,)](*arguments, scale, HALF=half, **plan.options)
    if not alone:
        reduce(plan, partials, grad_scale, ds)


def lsq_forward(
    x: Tensor, step: Tensor, y: Tensor, shape: tuple[int, int, int], qmin: int, qmax: int
) -> None:
    """Quantize the dense ``x`` into ``y``, which has its strides; ``step`` is float32.

    ``shape`` is [outer, channels, inner], in memory order.
    """
    forward(x, step, y, shape, (float(qmin), float(qmax)))


def lsq_backward(
    grad: Tensor,
    x: Tensor,
    step: Tensor,
    dx: Tensor,
    ds: Tensor,
    shape: tuple[int, int, int],
    qmin: int,
    qmax: int,
    ste: int,
    grad_scale: float,
) -> None:
    """Write ``dx`` and ``ds``; ``grad``, ``x`` and ``dx`` are dense with the same strides."""
    ends, passing = (float(qmin), float(qmax)), pass_interval(qmin, qmax, ste)
    backward(grad, x, step, dx, ds, shape, ends, passing, grad_scale)

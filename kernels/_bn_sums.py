"""Sums over each channel that bn_act_quant's backward pass needs, and the quantizer's."""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from ._bn_tile import Elements, gradient_tile, sum_inside
from ._norm import Norm
from ._partition import Columns, Runs, column_tile, run_tile
from ._quantizers import Quantizer
from ._reduce import channel_sum, new_partials, reducing


class Sums(NamedTuple):
    """Partial sums: of each channel's gradients, and of the quantizer's over a whole program."""

    bias: Any  # of du
    centred: Any  # of du * (x - mean)
    first: Any  # [programs], or None
    second: Any  # [programs], or None


class Gradients(NamedTuple):
    """What the sums give."""

    norm: Any  # [2, C]: of weight, of bias
    pulls: Any  # [2, C]: what dx loses for du's mean, and for each unit of x - mean; or None
    parameter: Any  # [], or None
    upper: Any  # [], or None


@triton.jit
def bn_backward_sums_runs_kernel(
    elements,  # [outer, channels, inner]
    norm,
    quantizer,
    partials,  # [down, channels, blocks]
    outer,
    channels,
    inner,
    blocks,
    ACTIVATION: tl.constexpr,
    METHOD: tl.constexpr,
    SIGNED: tl.constexpr,
    RUNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: partial sums of RUNS x BLOCK elements of one channel."""
    channel, at, inside = run_tile(outer, channels, inner, blocks, RUNS, BLOCK)
    centred, _, du, first, second = gradient_tile(
        elements, norm, quantizer, channel, channels, at, inside, ACTIVATION, METHOD, SIGNED
    )
    program = tl.program_id(0)
    tl.store(partials.bias + program, sum_inside(du, inside))
    tl.store(partials.centred + program, sum_inside(du * centred, inside))
    if partials.first is not None:
        tl.store(partials.first + program, sum_inside(first, inside))
    if partials.second is not None:
        tl.store(partials.second + program, sum_inside(second, inside))


@triton.jit
def bn_backward_sums_columns_kernel(
    elements,  # [numel]
    norm,
    quantizer,
    partials,  # [down, width]
    numel,
    width,
    tiles,
    channels,
    inner,
    steps,
    ACTIVATION: tl.constexpr,
    METHOD: tl.constexpr,
    SIGNED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One program: partial sums of each column of ``steps`` tiles."""
    column, channel, tile, at = column_tile(width, tiles, channels, inner, ROWS, COLUMNS)
    at += tile * (steps - 1) * ROWS * width
    zero = tl.zeros([ROWS, COLUMNS], tl.float32)
    bias, products = zero, zero
    firsts, seconds = tl.sum(zero, 0), tl.sum(zero, 0)  # narrow: registers are short
    for _ in range(steps):
        inside = (column[None, :] < width) & (at < numel)
        centred, _, du, first, second = gradient_tile(
            elements, norm, quantizer, channel[None, :], channels, at, inside,
            ACTIVATION, METHOD, SIGNED,
        )  # fmt: skip
        bias += tl.where(inside, du, 0.0)
        products += tl.where(inside, du * centred, 0.0)
        if partials.first is not None:
            firsts += tl.sum(tl.where(inside, first, 0.0), 0)
        if partials.second is not None:
            seconds += tl.sum(tl.where(inside, second, 0.0), 0)
        at += width.to(tl.int64) * ROWS
    place, own = tile * width + column, column < width
    tl.store(partials.bias + place, tl.sum(bias, 0), mask=own)
    tl.store(partials.centred + place, tl.sum(products, 0), mask=own)
    if partials.first is not None:
        tl.store(partials.first + tl.program_id(0), tl.sum(firsts, 0))
    if partials.second is not None:
        tl.store(partials.second + tl.program_id(0), tl.sum(seconds, 0))


@triton.jit
def _reduce_whole(partials, out, programs, scale, BLOCK: tl.constexpr):
    if out is not None:
        total = channel_sum(partials, 0, programs, 1, 1, 1, 1, BLOCK)
        tl.store(out, (total * scale).to(tl.float32))


@triton.jit
def bn_gradient_reduce_kernel(
    partials,
    statistics,  # [2, channels]
    outs,
    programs,
    down,
    across,
    repeats,
    channels,
    group,
    count,
    scale,
    BLOCK: tl.constexpr,
):
    """One program: the sums of one channel, or one after them: those of a parameter."""
    channel = tl.program_id(0).to(tl.int64)
    if channel < channels:
        sizes = down, across, repeats, channels, group
        bias = channel_sum(partials.bias, channel, *sizes, BLOCK)
        centred = channel_sum(partials.centred, channel, *sizes, BLOCK)
        invstd = tl.load(statistics + channels + channel).to(tl.float64)
        dweight = centred * invstd
        tl.store(outs.norm + channel, dweight.to(tl.float32))
        tl.store(outs.norm + channels + channel, bias.to(tl.float32))
        if outs.pulls is not None:
            tl.store(outs.pulls + channel, (bias / count).to(tl.float32))
            tl.store(outs.pulls + channels + channel, (dweight * invstd / count).to(tl.float32))
    elif channel == channels:
        _reduce_whole(partials.first, outs.parameter, programs, scale, BLOCK)
    else:
        _reduce_whole(partials.second, outs.upper, programs, 1.0, BLOCK)


def reduce_gradients(
    elements: Elements,
    norm: Norm,
    q: Quantizer,
    plan: Runs | Columns,
    activation: int,
    method: int,
    grad_scale: float,
    outs: Gradients,
) -> None:
    """Write what is summed over channels and over the whole tensor."""
    plan = plan.summing
    channels, narrow = plan.view.channels, isinstance(plan, Columns)
    like, given = norm.statistics, (q.parameter is not None, q.upper is not None)
    of_channels = new_partials(like, 2, plan.num_partials)
    of_programs = (*new_partials(like, sum(given), plan.programs), None, None)
    sums = Sums(*of_channels, *of_programs[:2])
    kernel = bn_backward_sums_columns_kernel if narrow else bn_backward_sums_runs_kernel
    codes = {"ACTIVATION": activation, "METHOD": method, "SIGNED": q.lowest < 0}
    arguments = elements, norm, q, sums, *plan.sizes
    kernel[(plan.programs,)](*arguments, **codes, **plan.summing_options)
    bn_gradient_reduce_kernel[(channels + sum(given),)](
        sums, norm.statistics, outs, plan.programs, *plan.partials,
        plan.view.outer * plan.view.inner, grad_scale, **reducing(plan.num_partials // channels),
    )  # fmt: skip

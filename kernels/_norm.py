"""Statistics of each channel and its norm: float32 elements, fp64 from tile to tile."""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._partition import Columns, Runs, column_tile, run_tile
from ._reduce import new_partials, partial_tile, reducing


class Norm(NamedTuple):
    """What the norm of a channel is made of."""

    statistics: Any  # [2, C]: mean, 1 / standard deviation
    weight: Any  # [C], None for ones
    bias: Any  # [C], None for zeros


class Moments(NamedTuple):
    """Of the elements of each channel that a program takes; fp64."""

    counts: Any
    means: Any
    squares: Any  # the sum of squared distances from the mean


class Running(NamedTuple):
    """Running statistics and the batch's weight in them."""

    mean: Any  # [C], or None
    var: Any  # [C], or None
    momentum_tensor: Any  # [], or None: then the number
    momentum: float


@triton.jit
def normalize(x, norm, channel, channels):
    """Return the centred x, the factor of its norm, and the norm."""
    centred = x - tl.load(norm.statistics + channel)
    factor = tl.load(norm.statistics + channels + channel)
    if norm.weight is not None:
        factor = tl.load(norm.weight + channel) * factor
    u = centred * factor
    if norm.bias is not None:
        u += tl.load(norm.bias + channel)
    return centred, factor, u


@triton.jit
def _store_moments(moments, place, inside, count, mean, total, square):
    """Store moments about the true mean, given sums about the rounded one."""
    count, total, square = count.to(tl.float64), total.to(tl.float64), square.to(tl.float64)
    shift = total / tl.maximum(count, 1.0)
    square -= total * shift
    tl.store(moments.counts + place, count, mask=inside)
    shift = tl.where(shift == shift, shift, 0.0)  # an infinite mean stays
    tl.store(moments.means + place, mean.to(tl.float64) + shift, mask=inside)
    tl.store(moments.squares + place, tl.where(square < 0.0, 0.0, square), mask=inside)


@triton.jit
def bn_moments_runs_kernel(
    x,  # [outer, channels, inner]
    moments,  # [down, channels, blocks]
    outer,
    channels,
    inner,
    blocks,
    RUNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: the moments of RUNS x BLOCK elements of one channel."""
    _, at, inside = run_tile(outer, channels, inner, blocks, RUNS, BLOCK)
    program = tl.program_id(0)
    row, block = program // (channels * blocks), program % blocks
    count = tl.minimum(outer - row * RUNS, RUNS) * tl.minimum(inner - block * BLOCK, BLOCK)
    v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(tl.sum(v, 1), 0) / count
    distance = tl.where(inside, v - mean, 0.0)
    total, square = tl.sum(tl.sum(distance, 1), 0), tl.sum(tl.sum(distance * distance, 1), 0)
    _store_moments(moments, program, count > 0, count, mean, total, square)


@triton.jit
def bn_moments_columns_kernel(
    x,  # [numel]
    moments,  # [down, width]
    numel,
    width,
    tiles,
    channels,
    inner,
    steps,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One program: the moments of each column of ``steps`` tiles, about the first one's mean.

    That tile is a part of them, so little is lost to a mean that is far from it.
    """
    column, _, tile, at = column_tile(width, tiles, channels, inner, ROWS, COLUMNS)
    own = column < width
    left = (numel - column.to(tl.int64) + width - 1) // width - tile * (
        ROWS * steps
    )  # rows from here on
    at += tile * (steps - 1) * ROWS * width
    inside = own[None, :] & (at < numel)
    v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(v, 0) / tl.maximum(tl.minimum(left, ROWS), 1)
    total = tl.where(inside, v - mean[None, :], 0.0)
    square = total * total
    for _ in range(1, steps):
        at += width.to(tl.int64) * ROWS
        inside = own[None, :] & (at < numel)
        v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        distance = tl.where(inside, v - mean[None, :], 0.0)
        total += distance
        square += distance * distance
    count = tl.maximum(tl.minimum(left, ROWS * steps), 0)
    total, square = tl.sum(total, 0), tl.sum(square, 0)
    _store_moments(moments, tile * width + column, own, count, mean, total, square)


@triton.jit
def _update(running, value, momentum):
    before = tl.load(running).to(tl.float64)
    tl.store(running, ((1.0 - momentum) * before + momentum * value).to(tl.float32))


@triton.jit
def bn_statistics_reduce_kernel(
    moments,  # [down, repeats, channels, group], None for the running statistics
    running,
    statistics,  # [2, channels]
    down,
    across,
    repeats,
    channels,
    group,
    eps,
    BLOCK: tl.constexpr,
):
    """One program: the statistics of one channel, by the running ones or updating them."""
    channel = tl.program_id(0).to(tl.int64)
    if moments is None:
        mean = tl.load(running.mean + channel).to(tl.float64)
        var = tl.load(running.var + channel).to(tl.float64)
    else:
        counts, sums = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
        for first in range(0, down * repeats * group, BLOCK):
            at, inside = partial_tile(first, channel, down, across, repeats, channels, group, BLOCK)
            count = tl.load(moments.counts + at, mask=inside, other=0.0)
            counts += count
            sums += count * tl.load(moments.means + at, mask=inside, other=0.0)
        count = tl.sum(counts, 0)
        mean = tl.sum(sums, 0) / count
        squares = tl.zeros([BLOCK], tl.float64)
        for first in range(0, down * repeats * group, BLOCK):
            at, inside = partial_tile(first, channel, down, across, repeats, channels, group, BLOCK)
            shift = tl.load(moments.means + at, mask=inside, other=0.0) - mean
            squares += tl.load(moments.squares + at, mask=inside, other=0.0)
            weight = tl.load(moments.counts + at, mask=inside, other=0.0)
            squares += tl.where(weight > 0.0, weight * shift * shift, 0.0)
        square = tl.sum(squares, 0)
        var = square / count
        if running.mean is not None:
            momentum = running.momentum
            if running.momentum_tensor is not None:
                momentum = tl.load(running.momentum_tensor)
            momentum = momentum.to(tl.float64)
            _update(running.mean + channel, mean, momentum)
            _update(running.var + channel, square / tl.maximum(count - 1.0, 1.0), momentum)
    tl.store(statistics + channel, mean.to(tl.float32))
    tl.store(statistics + channels + channel, (1.0 / tl.sqrt(var + eps)).to(tl.float32))


def _moments(x: Tensor, plan: Runs | Columns) -> Moments:
    moments = Moments(*new_partials(x, 3, plan.num_partials, torch.float64))
    narrow = isinstance(plan, Columns)
    kernel = bn_moments_columns_kernel if narrow else bn_moments_runs_kernel
    kernel[(plan.programs,)](x, moments, *plan.sizes, **plan.summing_options)
    return moments


def make_statistics(
    x: Tensor,
    plan: Runs | Columns,
    training: bool,
    running: Running,
    eps: float,
    statistics: Tensor,
) -> None:
    """Write ``statistics`` and, where training, update the running ones."""
    plan, channels = plan.summing, plan.view.channels
    moments = _moments(x, plan) if training else None
    options = reducing(plan.num_partials // channels)
    bn_statistics_reduce_kernel[(channels,)](
        moments, running, statistics, *plan.partials, eps, **options
    )

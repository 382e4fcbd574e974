"""Partial results of each channel become one: in fp64, and in an order fixed by shape."""

from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl

from ._partition import Columns, Flat, Runs


@triton.jit
def partial_tile(first, channel, down, across, repeats, channels, group, BLOCK: tl.constexpr):
    """Return where BLOCK partial results of a channel lie, from ``first`` on, and which exist."""
    i = first + tl.arange(0, BLOCK).to(tl.int64)
    row, rest = i // (repeats * group), i % (repeats * group)
    column = (rest // group * channels + channel) * group + rest % group
    return row * across + column, row < down


@triton.jit
def channel_sum(partials, channel, down, across, repeats, channels, group, BLOCK: tl.constexpr):
    """Return the sum of a channel's partial sums, in fp64: it costs nothing at this size."""
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, down * repeats * group, BLOCK):
        at, inside = partial_tile(first, channel, down, across, repeats, channels, group, BLOCK)
        total += tl.load(partials + at, mask=inside, other=0.0).to(tl.float64)
    return tl.sum(total, 0)


@triton.jit
def reduce_kernel(
    partials,  # [down, repeats, channels, group]
    out,  # [channels]
    down,
    across,
    repeats,
    channels,
    group,
    scale,
    BLOCK: tl.constexpr,
):
    """One program: the sum of one channel."""
    channel = tl.program_id(0).to(tl.int64)
    total = channel_sum(partials, channel, down, across, repeats, channels, group, BLOCK)
    tl.store(out + channel, (total * scale).to(tl.float32))


def new_partials(
    like: torch.Tensor, sums: int, count: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, ...]:
    """Return an empty tensor of ``count`` partial results for each sum.

    All start on 16 bytes: a kernel is compiled anew for one that does not.
    """
    return like.new_empty(sums, triton.cdiv(count, 16) * 16, dtype=dtype).unbind()


@lru_cache(maxsize=4096)
def reducing(num_partials: int) -> dict[str, Any]:
    """Return how a reduction of so many partial results a channel is launched."""
    block = min(1024, triton.next_power_of_2(num_partials))
    return {"BLOCK": block, "num_warps": 4, "enable_fp_fusion": False}


def reduce(
    plan: Runs | Columns | Flat, partials: torch.Tensor, scale: float, out: torch.Tensor
) -> torch.Tensor:
    """Reduce ``partials`` to one sum per channel, times ``scale``, into ``out``."""
    *_, channels, _ = plan.partials
    options = reducing(plan.num_partials // channels)
    reduce_kernel[(channels,)](partials, out, *plan.partials, scale, **options)
    return out

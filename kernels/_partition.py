"""How a dense tensor ``[outer, channels, inner]`` is cut into programs, by shape alone."""

from dataclasses import dataclass
from math import gcd
from typing import NamedTuple

import torch
import triton
import triton.language as tl

TILE = 4096  # elements of one channel that make one partial sum
NARROW = 32  # runs of a channel shorter than this are walked as columns
ROWS, COLUMNS = 32, 128  # a tile of columns
ACROSS = 512  # narrower matrices are widened to about this
WARPS = 8
OPTIONS = {"num_warps": WARPS, "enable_fp_fusion": False}


class View(NamedTuple):
    """A dense tensor in memory order; ``channels`` have a parameter each."""

    outer: int
    channels: int
    inner: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        return self.outer * self.channels * self.inner

    @property
    def is_narrow(self) -> bool:
        """Whether the runs of a channel are too short for a program."""
        return self.channels > 1 and self.inner < NARROW


@dataclass(frozen=True)
class Runs:
    """One program: a block of a long run, or several whole short runs, of one channel."""

    view: View

    @property
    def block(self) -> int:
        """Elements of a run that a program takes."""
        return min(TILE, triton.next_power_of_2(self.view.inner))

    @property
    def runs(self) -> int:
        """Runs that a program takes."""
        return min(TILE // self.block, triton.next_power_of_2(self.view.outer))

    @property
    def blocks(self) -> int:
        """Programs of one run."""
        return triton.cdiv(self.view.inner, self.block)

    @property
    def down(self) -> int:
        """Rows of the matrix of partial sums."""
        return triton.cdiv(self.view.outer, self.runs)

    @property
    def across(self) -> int:
        """Columns of the matrix of partial sums."""
        return self.view.channels * self.blocks

    @property
    def partials(self) -> tuple[int, int, int, int, int]:
        """Sizes of the partial sums, as :func:`reduce_kernel` takes them."""
        return self.down, self.across, 1, self.view.channels, self.blocks


@dataclass(frozen=True)
class Flat:
    """One program: TILE elements in memory order, of any channels."""

    view: View

    @property
    def down(self) -> int:
        """Number of programs."""
        return triton.cdiv(self.view.numel, TILE)

    @property
    def partials(self) -> tuple[int, int, int, int, int]:
        """Sizes of the partial sums, as :func:`reduce_kernel` takes them."""
        return self.down, 1, 1, 1, 1


@dataclass(frozen=True)
class Columns:
    """Memory as a matrix whose columns have one channel each; one program: a tile of it."""

    view: View

    @property
    def repeats(self) -> int:
        """How often the channels repeat along a row; makes rows start on 16-byte addresses."""
        period = self.view.channels * self.view.inner
        step = 16 // gcd(period, 16)
        return triton.cdiv(max(1, ACROSS // period), step) * step

    @property
    def width(self) -> int:
        """Columns of the matrix."""
        return self.view.channels * self.view.inner * self.repeats

    @property
    def tiles(self) -> int:
        """Programs side by side."""
        return triton.cdiv(self.width, COLUMNS)

    @property
    def down(self) -> int:
        """Programs below each other."""
        return triton.cdiv(triton.cdiv(self.view.numel, self.width), ROWS)

    @property
    def partials(self) -> tuple[int, int, int, int, int]:
        """Sizes of the partial sums, as :func:`reduce_kernel` takes them."""
        return self.down, self.width, self.repeats, self.view.channels, self.view.inner


@triton.jit
def run_tile(outer, channels, inner, blocks, RUNS: tl.constexpr, BLOCK: tl.constexpr):
    """Return the channel of this program, and the offsets and mask of its elements."""
    program = tl.program_id(0).to(tl.int64)
    row, column = program // (channels * blocks), program % (channels * blocks)
    channel = column // blocks
    run = row * RUNS + tl.arange(0, RUNS)[:, None]
    i = column % blocks * BLOCK + tl.arange(0, BLOCK)[None, :]
    return channel, (run * channels + channel) * inner + i, (run < outer) & (i < inner)


@triton.jit
def column_tile(width, tiles, channels, inner, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return this program's columns, their channels, its row of tiles, its elements' offsets."""
    program = tl.program_id(0).to(tl.int64)
    tile = program // tiles
    column = program % tiles * COLUMNS + tl.arange(0, COLUMNS)
    row = tile * ROWS + tl.arange(0, ROWS)
    return column, column // inner % channels, tile, row[:, None] * width + column[None, :]


@triton.jit
def flat_tile(BLOCK: tl.constexpr):
    """Return the offsets of this program's elements, cut without regard to channels."""
    return tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def store_mask(mask, codes, numel, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """Pack the tile's codes, the first in the lowest bits; codes beyond ``numel`` must be 0."""
    PER: tl.constexpr = 8 // BITS
    shifts = tl.arange(0, PER) * BITS
    packed = tl.sum(tl.reshape(codes.to(tl.int32), [BLOCK // PER, PER]) << shifts[None, :], 1)
    at = tl.program_id(0).to(tl.int64) * (BLOCK // PER) + tl.arange(0, BLOCK // PER)
    tl.store(mask + at, packed.to(tl.uint8), mask=at < (numel + PER - 1) // PER)


@triton.jit
def load_codes(mask, at, inside, BITS: tl.constexpr):
    """Return the codes of the elements ``at``."""
    PER: tl.constexpr = 8 // BITS
    packed = tl.load(mask + at // PER, mask=inside, other=0).to(tl.int32)
    return (packed >> ((at % PER).to(tl.int32) * BITS)) & (2**BITS - 1)


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
    """Sum the partial sums of one channel, in fp64: it costs nothing at this size."""
    channel = tl.program_id(0).to(tl.int64)
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, down * repeats * group, BLOCK):
        i = first + tl.arange(0, BLOCK).to(tl.int64)
        row, rest = i // (repeats * group), i % (repeats * group)
        column = (rest // group * channels + channel) * group + rest % group
        found = tl.load(partials + row * across + column, mask=row < down, other=0.0)
        total += found.to(tl.float64)
    tl.store(out + channel, (tl.sum(total, 0) * scale).to(tl.float32))


def reduce(
    plan: Runs | Columns | Flat, partials: torch.Tensor, scale: float, out: torch.Tensor
) -> torch.Tensor:
    """Reduce ``partials`` to one sum per channel, times ``scale``, into ``out``."""
    block = min(1024, triton.next_power_of_2(partials.numel() // plan.view.channels))
    reduce_kernel[(plan.view.channels,)](
        partials, out, *plan.partials, scale, BLOCK=block, num_warps=4, enable_fp_fusion=False
    )
    return out

"""How a dense tensor ``[outer, channels, inner]`` is cut into programs, by shape alone."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import gcd
from typing import Any, NamedTuple

import triton
import triton.language as tl

TILE = 4096  # elements of one channel that make one partial sum
NARROW = 32  # runs of a channel shorter than this are walked as columns
ROWS, COLUMNS = 32, 128  # a tile of columns
ACROSS = 512  # narrower matrices are widened to about this
ENOUGH = 1024  # programs that keep any GPU busy
SUMMED_ROWS, MOST_STEPS = 16, 16  # of a program that only sums: its tile, and how many
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

    @cached_property
    def block(self) -> int:
        """Elements of a run that a program takes."""
        return min(TILE, triton.next_power_of_2(self.view.inner))

    @cached_property
    def runs(self) -> int:
        """Runs that a program takes."""
        return min(TILE // self.block, triton.next_power_of_2(self.view.outer))

    @cached_property
    def blocks(self) -> int:
        """Programs of one run."""
        return triton.cdiv(self.view.inner, self.block)

    @cached_property
    def down(self) -> int:
        """Rows of the matrix of partial sums."""
        return triton.cdiv(self.view.outer, self.runs)

    @cached_property
    def across(self) -> int:
        """Columns of the matrix of partial sums."""
        return self.view.channels * self.blocks

    @cached_property
    def programs(self) -> int:
        """Number of programs, each with one partial sum."""
        return self.down * self.across

    @cached_property
    def sizes(self) -> tuple[int, int, int, int]:
        """Sizes, as :func:`run_tile` takes them."""
        return *self.view, self.blocks

    @cached_property
    def options(self) -> dict[str, Any]:
        """The tile, as :func:`run_tile` takes it, and how it is launched."""
        return {"RUNS": self.runs, "BLOCK": self.block, **OPTIONS}

    @property
    def summing(self) -> "Runs":
        """The plan of a kernel that only sums: the same."""
        return self

    @property
    def summing_options(self) -> dict[str, Any]:
        """The same for a kernel that only sums."""
        return self.options

    @cached_property
    def partials(self) -> tuple[int, int, int, int, int]:
        """Sizes of the partial sums, as :func:`reduce_kernel` takes them."""
        return self.down, self.across, 1, self.view.channels, self.blocks

    @cached_property
    def num_partials(self) -> int:
        """Number of partial sums."""
        return self.programs


@dataclass(frozen=True)
class Flat:
    """One program: TILE elements in memory order, of any channels."""

    numel: int

    @cached_property
    def programs(self) -> int:
        """Number of programs, each with one partial sum."""
        return triton.cdiv(self.numel, TILE)

    @property
    def num_partials(self) -> int:
        """Number of partial sums."""
        return self.programs

    @cached_property
    def partials(self) -> tuple[int, int, int, int, int]:
        """Sizes of the partial sums, as :func:`reduce_kernel` takes them."""
        return self.programs, 1, 1, 1, 1


@dataclass(frozen=True)
class Columns:
    """Memory as a matrix whose columns have one channel each; one program: tiles of it.

    The tiles of a program, ``steps`` of them with ``rows`` each, lie below each other.
    """

    view: View
    rows: int = ROWS
    steps: int = 1

    @cached_property
    def repeats(self) -> int:
        """How often the channels repeat along a row; makes rows start on 16-byte addresses."""
        period = self.view.channels * self.view.inner
        step = 16 // gcd(period, 16)
        return triton.cdiv(max(1, ACROSS // period), step) * step

    @cached_property
    def width(self) -> int:
        """Columns of the matrix."""
        return self.view.channels * self.view.inner * self.repeats

    @cached_property
    def tiles(self) -> int:
        """Programs side by side."""
        return triton.cdiv(self.width, COLUMNS)

    @cached_property
    def down(self) -> int:
        """Programs below each other."""
        return triton.cdiv(triton.cdiv(self.view.numel, self.width), self.rows * self.steps)

    @cached_property
    def programs(self) -> int:
        """Number of programs."""
        return self.down * self.tiles

    @cached_property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """Sizes: of all elements, and as :func:`column_tile` takes them."""
        return self.view.numel, self.width, self.tiles, self.view.channels, self.view.inner

    @cached_property
    def options(self) -> dict[str, Any]:
        """The tile, as :func:`column_tile` takes it, and how it is launched."""
        return {"ROWS": self.rows, "COLUMNS": COLUMNS, **OPTIONS}

    @cached_property
    def partials(self) -> tuple[int, int, int, int, int]:
        """Sizes of the partial sums, as :func:`reduce_kernel` takes them."""
        return self.down, self.width, self.repeats, self.view.channels, self.view.inner

    @cached_property
    def num_partials(self) -> int:
        """Number of partial sums: one for each column of a program."""
        return self.down * self.width

    @cached_property
    def summing(self) -> "Columns":
        """The plan of a kernel that only sums: small tiles, for it holds a sum of each element.

        A program takes several, where enough programs are left.
        """
        steps = Columns(self.view, SUMMED_ROWS).programs // ENOUGH
        return Columns(self.view, SUMMED_ROWS, max(1, min(MOST_STEPS, steps)))

    @cached_property
    def summing_options(self) -> dict[str, Any]:
        """The same for a kernel that only sums."""
        return {"steps": self.steps, **self.options}


# A plan costs more than a launch: there is one for each shape.
flat_of = lru_cache(maxsize=4096)(Flat)


@lru_cache(maxsize=4096)
def plan_of(outer: int, channels: int, inner: int) -> Runs | Columns:
    """Return how a tensor with a parameter for each channel is cut."""
    view = View(outer, channels, inner)
    return Columns(view) if view.is_narrow else Runs(view)


@triton.jit
def run_tile(outer, channels, inner, blocks, RUNS: tl.constexpr, BLOCK: tl.constexpr):
    """Return the channel of this program, and the offsets and mask of its elements."""
    program = tl.program_id(0)  # a grid has less than 2^31; 64-bit division is slow
    row = (program // (channels * blocks)).to(tl.int64)
    column = program % (channels * blocks)
    channel = (column // blocks).to(tl.int64)
    run = row * RUNS + tl.arange(0, RUNS)[:, None]
    i = (column % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[None, :]
    return channel, (run * channels + channel) * inner + i, (run < outer) & (i < inner)


@triton.jit
def column_tile(width, tiles, channels, inner, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return this program's columns, their channels, its row of tiles, its elements' offsets."""
    program = tl.program_id(0)
    tile = (program // tiles).to(tl.int64)
    column = (program % tiles).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    row = tile * ROWS + tl.arange(0, ROWS)
    channel = column.to(width.dtype) // inner % channels
    return column, channel, tile, row[:, None] * width + column[None, :]


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
def store_tile_mask(mask, codes, at, inside, BITS: tl.constexpr):
    """Pack the codes of a tile whose rows begin and end with bytes; ``inside`` may end a byte."""
    PER: tl.constexpr = 8 // BITS
    ROWS: tl.constexpr = codes.shape[0]
    BYTES: tl.constexpr = codes.shape[1] // PER
    shifts = tl.arange(0, PER) * BITS
    codes = tl.reshape(tl.where(inside, codes, 0), [ROWS, BYTES, PER]) << shifts[None, None, :]
    place = tl.min(tl.reshape(at, [ROWS, BYTES, PER]), 2) // PER
    some = tl.max(tl.reshape(inside.to(tl.int32), [ROWS, BYTES, PER]), 2) > 0
    tl.store(mask + place, tl.sum(codes, 2).to(tl.uint8), mask=some)


@triton.jit
def load_codes(mask, at, inside, BITS: tl.constexpr):
    """Return the codes of the elements ``at``."""
    PER: tl.constexpr = 8 // BITS
    packed = tl.load(mask + at // PER, mask=inside, other=0).to(tl.int32)
    return (packed >> ((at % PER).to(tl.int32) * BITS)) & (2**BITS - 1)

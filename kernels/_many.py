"""The tensors of a model in one launch: tuples of addresses and sizes, one entry per tensor.

A tensor is rows of one parameter each; a program takes one piece of one row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 1024  # elements of a program
CHUNK = 32  # tensors of a launch: each adds a few selections to every program
OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}


@triton.jit
def member(values, firsts, COUNT: tl.constexpr):
    """Return this program's entry of ``values``; ``firsts`` are the entries' first programs."""
    found = values[0]
    for i in tl.static_range(1, COUNT):
        found = tl.where(tl.program_id(0) >= firsts[i], values[i], found)
    return found


@triton.jit
def piece(inners, firsts, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """Return the row of this program, the offsets and mask of its elements, and its unit."""
    unit = (tl.program_id(0) - member(firsts, firsts, COUNT)).to(tl.int64)
    inner = member(inners, firsts, COUNT)
    pieces = tl.maximum((inner + BLOCK - 1) // BLOCK, 1)
    row = unit // pieces
    i = unit % pieces * BLOCK + tl.arange(0, BLOCK)
    return row, row * inner + i, i < inner, unit


@triton.jit
def fold_many_kernel(
    partials,  # all tensors' partial sums
    outs,  # per sum: [rows]
    starts,  # per sum: where its partials begin
    pieces,  # per sum: partials of a row
    scales,  # per sum
    firsts,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: one row of one sum, in fp64 and in one order."""
    row = (tl.program_id(0) - member(firsts, firsts, COUNT)).to(tl.int64)
    count = member(pieces, firsts, COUNT)
    start = member(starts, firsts, COUNT) + row * count
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, count, BLOCK):
        i = first + tl.arange(0, BLOCK)
        total += tl.load(partials + start + i, mask=i < count, other=0.0).to(tl.float64)
    scaled = tl.sum(total, 0) * member(scales, firsts, COUNT)
    tl.store(member(outs, firsts, COUNT) + row, scaled.to(tl.float32))


@dataclass(frozen=True)
class Chunk:
    """Tensors of one launch: which, how many rows, how long a row, and where programs begin."""

    places: range
    rows: tuple[int, ...]
    inners: tuple[int, ...]
    pieces: tuple[int, ...]
    firsts: tuple[int, ...]
    programs: int

    @property
    def sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What :func:`piece` takes."""
        return self.inners, self.firsts

    def take(self, values: Sequence) -> tuple:
        """Return the entries of a list that belong to this chunk."""
        return tuple(values[i] for i in self.places)


def starts_of(counts: Sequence[int]) -> tuple[int, ...]:
    """Return the sum of all counts before each."""
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    return tuple(starts)


def chunks(tensors: Sequence[Tensor], rows: Sequence[int]) -> Iterator[Chunk]:
    """Cut the tensors, each with its number of rows, into launches."""
    for first in range(0, len(tensors), CHUNK):
        places = range(first, min(first + CHUNK, len(tensors)))
        counts = tuple(rows[i] for i in places)
        inners = tuple(tensors[i].numel() // max(rows[i], 1) for i in places)
        pieces = tuple(max(-(-inner // TILE), 1) for inner in inners)
        starts = starts_of([a * b for a, b in zip(counts, pieces, strict=True)])
        yield Chunk(places, counts, inners, pieces, starts[:-1], starts[-1])


def fold_many(
    partials: Tensor, chunk: Chunk, outs: Sequence[Sequence[Tensor]], scales: Sequence[float]
) -> None:
    """Reduce a chunk's ``partials`` ``[sums, programs]`` to one value per row: ``outs[sum][i]``."""
    sums, count = len(outs), len(chunk.rows)
    starts = [s * chunk.programs + first for s in range(sums) for first in chunk.firsts]
    programs = starts_of(chunk.rows * sums)
    fold_many_kernel[(programs[-1],)](
        partials,
        tuple(out[i] for out in outs for i in chunk.places),
        tuple(starts),
        chunk.pieces * sums,
        chunk.take(scales) * sums,
        programs[:-1],
        COUNT=sums * count,
        BLOCK=128,
        num_warps=1,
        enable_fp_fusion=False,
    )


def new_partials(model: Tensor, chunk: Chunk, sums: int) -> Tensor:
    """Return room for a chunk's partial sums, float32."""
    return torch.empty(sums * chunk.programs, dtype=torch.float32, device=model.device)

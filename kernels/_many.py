"""The tensors of a model in one launch: tuples of addresses and sizes, one entry per tensor.

A tensor consists of rows with one parameter each; a program takes one block of one row.
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
def entry(values, offsets, COUNT: tl.constexpr):
    """Return the entry of ``values`` for this program's tensor.

    ``offsets``: for each tensor the programs before its first.
    """
    found = values[0]
    for i in tl.static_range(1, COUNT):
        found = tl.where(tl.program_id(0) >= offsets[i], values[i], found)
    return found


@triton.jit
def row_block(inner_sizes, offsets, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """Return this program's row, its elements' offsets and mask, and its number in the tensor."""
    block = (tl.program_id(0) - entry(offsets, offsets, COUNT)).to(tl.int64)
    inner = entry(inner_sizes, offsets, COUNT)
    blocks = tl.maximum((inner + BLOCK - 1) // BLOCK, 1)
    row = block // blocks
    i = block % blocks * BLOCK + tl.arange(0, BLOCK)
    return row, row * inner + i, i < inner, block


@triton.jit
def reduce_many_kernel(
    partials,  # all tensors' partial sums
    outs,  # per sum: [rows]
    partial_offsets,  # per sum: of its first partial
    blocks,  # per sum: partials of a row
    scales,  # per sum
    offsets,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: one row of one sum, in fp64 and in a fixed order."""
    row = (tl.program_id(0) - entry(offsets, offsets, COUNT)).to(tl.int64)
    count = entry(blocks, offsets, COUNT)
    start = entry(partial_offsets, offsets, COUNT) + row * count
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, count, BLOCK):
        i = first + tl.arange(0, BLOCK)
        total += tl.load(partials + start + i, mask=i < count, other=0.0).to(tl.float64)
    scaled = tl.sum(total, 0) * entry(scales, offsets, COUNT)
    tl.store(entry(outs, offsets, COUNT) + row, scaled.to(tl.float32))


@dataclass(frozen=True)
class Chunk:
    """Tensors of one launch."""

    indices: range  # in the list of all tensors
    rows: tuple[int, ...]
    inner_sizes: tuple[int, ...]  # elements of a row
    blocks: tuple[int, ...]  # programs of a row
    offsets: tuple[int, ...]  # programs before a tensor's first
    programs: int  # of all

    @property
    def sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The sizes that :func:`row_block` takes."""
        return self.inner_sizes, self.offsets

    def take(self, values: Sequence) -> tuple:
        """Return the entries of a list that belong to this chunk."""
        return tuple(values[i] for i in self.indices)


def offsets_of(counts: Sequence[int]) -> tuple[int, ...]:
    """Return the exclusive sums of ``counts``, and their total."""
    offsets = [0]
    for count in counts:
        offsets.append(offsets[-1] + count)
    return tuple(offsets)


def chunks(tensors: Sequence[Tensor], rows: Sequence[int]) -> Iterator[Chunk]:
    """Cut the tensors, each with its number of rows, into launches."""
    for first in range(0, len(tensors), CHUNK):
        indices = range(first, min(first + CHUNK, len(tensors)))
        counts = tuple(rows[i] for i in indices)
        inner_sizes = tuple(tensors[i].numel() // max(rows[i], 1) for i in indices)
        blocks = tuple(max(-(-inner // TILE), 1) for inner in inner_sizes)
        sizes = zip(counts, blocks, strict=True)
        offsets = offsets_of([count * number for count, number in sizes])
        programs = offsets[-1]
        yield Chunk(indices, counts, inner_sizes, blocks, offsets[:-1], programs)


def reduce_many(
    partials: Tensor, chunk: Chunk, outs: Sequence[Sequence[Tensor]], scales: Sequence[float]
) -> None:
    """Reduce a chunk's ``partials`` ``[sums, programs]`` to one value per row: ``outs[sum][i]``."""
    sums, count = len(outs), len(chunk.rows)
    offsets = [s * chunk.programs + first for s in range(sums) for first in chunk.offsets]
    programs = offsets_of(chunk.rows * sums)
    reduce_many_kernel[(programs[-1],)](
        partials,
        tuple(out[i] for out in outs for i in chunk.indices),
        tuple(offsets),
        chunk.blocks * sums,
        chunk.take(scales) * sums,
        programs[:-1],
        COUNT=sums * count,
        BLOCK=128,
        num_warps=1,
        enable_fp_fusion=False,
    )


def new_partials(
    model: Tensor, chunk: Chunk, sums: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return an empty tensor for a chunk's partial sums."""
    return torch.empty(sums * chunk.programs, dtype=dtype, device=model.device)

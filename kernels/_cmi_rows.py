"""Rows of logits for CMI; float64 inside, whatever is stored.

One program takes ROWS rows, BLOCK classes at a time.
"""

import triton
import triton.language as tl
from torch import Tensor

from ._maths import exp64, log1p64

WIDEST, ELEMENTS = 1024, 512  # classes of a tile; elements, where several rows fit
# without a limit the compiler aims at fewer registers and spills some
OPTIONS = {"num_warps": 4, "maxnreg": 168, "enable_fp_fusion": False}


@triton.jit
def program_rows(rows, ROWS: tl.constexpr):
    """Return this program's rows, and which of them exist."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    return row, row < rows


@triton.jit
def tile(logits, row, alive, classes, first, BLOCK: tl.constexpr):
    """Return logits from class ``first`` on, -inf where there are none, and their classes."""
    k = first + tl.arange(0, BLOCK)[None, :]
    inside = alive[:, None] & (k < classes)
    z = tl.load(logits + row[:, None] * classes + k, mask=inside, other=float("-inf"))
    return tl.where(alive[:, None], z.to(tl.float64), 0.0), k


@triton.jit
def tile_at(whole, logits, row, alive, classes, first, WHOLE: tl.constexpr, BLOCK: tl.constexpr):
    """Return the tile from class ``first`` on: ``whole`` if WHOLE, else read."""
    if WHOLE:
        z, k = whole, tl.arange(0, BLOCK)[None, :]
    else:
        z, k = tile(logits, row, alive, classes, first, BLOCK)
    return z, k


@triton.jit
def summary(logits, whole, row, alive, classes, BLOCK: tl.constexpr, WHOLE: tl.constexpr):
    """Return peak, its first class, 1 / total weight, its logarithm and the entropy of rows.

    ``whole`` is the tile of whole rows if WHOLE, so that they are read once.
    """
    peak = tl.max(whole, 1)
    if not WHOLE:
        for first in range(BLOCK, classes, BLOCK):
            peak = tl.maximum(peak, tl.max(tile(logits, row, alive, classes, first, BLOCK)[0], 1))
    rest, terms = tl.zeros_like(peak), tl.zeros_like(peak)
    at, peaks = tl.zeros_like(row) + classes, tl.zeros_like(peak)
    for first in range(0, classes, BLOCK):
        z, k = tile_at(whole, logits, row, alive, classes, first, WHOLE, BLOCK)
        shifted, highest = z - peak[:, None], (z == peak[:, None]) & (k < classes)
        weight = exp64(shifted)
        terms += tl.sum(tl.where(weight == 0, 0.0, weight * shifted), 1)
        rest += tl.sum(tl.where(highest, 0.0, weight), 1)
        peaks += tl.sum(highest.to(tl.float64), 1)
        at = tl.minimum(at, tl.min(tl.where(highest, k, classes), 1))
    rest += peaks - 1.0
    reciprocal, log_total = 1.0 / (1.0 + rest), log1p64(rest)
    return peak, at, reciprocal, log_total, log_total - terms * reciprocal


def plan_for(logits: Tensor) -> dict[str, int]:
    """Return the tile: whole rows up to WIDEST classes; bits depend on the classes alone."""
    classes = logits.shape[1]
    block = min(WIDEST, triton.next_power_of_2(classes))
    return {"WHOLE": classes <= block, "ROWS": max(1, ELEMENTS // block), "BLOCK": block}


def split_labels(labels: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Return integer labels and soft labels, one of them None."""
    return (None, labels) if labels.is_floating_point() else (labels, None)

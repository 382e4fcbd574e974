"""Quantized values as packed codes and back: a value is code * step / levels; float32 inside.

A method has a step or levels, the other is 1; ``parts`` is PACT's number of steps, else 1.
"""

import triton
import triton.language as tl
from torch import Tensor

from ._maths import at_least_smallest, clip, half_even
from ._partition import OPTIONS, TILE, flat_of, flat_tile, load_codes, store_mask


@triton.jit
def _step(parameter, parts):
    step = 1.0
    if parameter is not None:
        step = tl.div_rn(at_least_smallest(tl.load(parameter)), parts)
    return step


@triton.jit
def _bits(v):
    return v.to(tl.float32).to(tl.int32, bitcast=True)


@triton.jit
def codes_of(y, step, lowest, highest, levels):
    """Return the codes of values in the dtype they are stored in, from the lowest on."""
    v = y.to(tl.float32)
    position = tl.div_rn(v * levels, step)
    code = half_even(clip(tl.where(position == position, position, lowest), lowest, highest))
    if y.dtype != tl.float32:
        # 16 bits are too few for 256 levels: where the nearest is another number, v is the next
        value = tl.div_rn(code * step, levels).to(y.dtype).to(tl.float32)
        toward = tl.where(_bits(v - value) < 0, -1.0, 1.0)
        other = clip(code + toward, lowest, highest)
        found = _bits(tl.div_rn(other * step, levels).to(y.dtype)) == _bits(v)
        code = tl.where(found & (_bits(value) != _bits(v)), other, code)
    return (code - lowest).to(tl.int32)


@triton.jit
def codes_pack_flat_kernel(
    y,  # [numel]
    parameter,  # [], or None
    mask,  # [numel * SLOT / 8]
    numel,
    lowest,
    highest,
    parts,
    levels,
    SLOT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: the codes of BLOCK elements."""
    at = flat_tile(BLOCK)
    inside = at < numel
    values = tl.load(y + at, mask=inside, other=0.0)
    code = codes_of(values, _step(parameter, parts), lowest, highest, levels)
    store_mask(mask, tl.where(inside, code, 0), numel, SLOT, BLOCK)


@triton.jit
def codes_unpack_flat_kernel(
    mask,  # [numel * SLOT / 8]
    parameter,  # [], or None
    y,  # [numel]
    numel,
    lowest,
    parts,
    levels,
    SLOT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: the values of BLOCK codes."""
    at = flat_tile(BLOCK)
    inside = at < numel
    code = load_codes(mask, at, inside, SLOT).to(tl.float32) + lowest
    value = tl.div_rn(code * _step(parameter, parts), levels)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=inside)


def codes_pack(
    y: Tensor,
    parameter: Tensor | None,
    codes: Tensor,
    slot: int,
    lowest: int,
    highest: int,
    parts: int,
    levels: int,
) -> None:
    """Write the codes of the dense ``y``, in memory order; ``parameter`` is float32."""
    codes_pack_flat_kernel[(flat_of(y.numel()).programs,)](
        y, parameter, codes, y.numel(), float(lowest), float(highest), float(parts), float(levels),
        SLOT=slot, BLOCK=TILE, **OPTIONS,
    )  # fmt: skip


def codes_unpack(
    codes: Tensor,
    parameter: Tensor | None,
    y: Tensor,
    slot: int,
    lowest: int,
    parts: int,
    levels: int,
) -> None:
    """Write the values of ``codes`` into ``y``, one-dimensional; ``parameter`` is float32."""
    codes_unpack_flat_kernel[(flat_of(y.numel()).programs,)](
        codes, parameter, y, y.numel(), float(lowest), float(parts), float(levels),
        SLOT=slot, BLOCK=TILE, **OPTIONS,
    )  # fmt: skip

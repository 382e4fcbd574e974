"""EWGS on all the weights of a model in one launch; the formulas are ``ewgs``'s."""

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from ._many import OPTIONS, TILE, chunks, entry, new_partials, reduce_many, row_block
from .ewgs import ewgs_gradient, ewgs_value

Tensors = Sequence[Tensor]


@triton.jit
def ewgs_many_forward_kernel(
    x,  # each [inner]
    lower,  # each []
    upper,  # each []
    y,  # each [inner]
    levels,
    inner,
    offsets,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: a block of one tensor."""
    _, at, mask, _ = row_block(inner, offsets, COUNT, BLOCK)
    target = entry(y, offsets, COUNT)
    low = tl.load(entry(lower, offsets, COUNT))
    high = tl.load(entry(upper, offsets, COUNT))
    v = tl.load(entry(x, offsets, COUNT) + at, mask=mask, other=0.0).to(tl.float32)
    value = ewgs_value(v, low, high, entry(levels, offsets, COUNT))
    tl.store(target + at, value.to(target.dtype.element_ty), mask=mask)


@triton.jit
def ewgs_many_backward_kernel(
    grad,  # each [inner]
    x,  # each [inner]
    lower,  # each []
    upper,  # each []
    delta_tensor,  # [], or None: then delta
    dx,  # each [inner]
    partials,  # [2, programs]
    levels,
    delta,
    programs,
    inner,
    offsets,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: dx of a block of one tensor, and its partial sums of dlower and dupper."""
    _, at, mask, _ = row_block(inner, offsets, COUNT, BLOCK)
    target = entry(dx, offsets, COUNT)
    if delta_tensor is not None:
        delta = tl.load(delta_tensor)
    low = tl.load(entry(lower, offsets, COUNT))
    high = tl.load(entry(upper, offsets, COUNT))
    g = tl.load(entry(grad, offsets, COUNT) + at, mask=mask, other=0.0).to(tl.float32)
    v = tl.load(entry(x, offsets, COUNT) + at, mask=mask, other=0.0).to(tl.float32)
    count = entry(levels, offsets, COUNT)
    gradient, below, above = ewgs_gradient(g, v, low, high, count, delta)
    tl.store(target + at, gradient.to(target.dtype.element_ty), mask=mask)
    tl.store(partials + tl.program_id(0), tl.sum(below, 0))
    tl.store(partials + programs + tl.program_id(0), tl.sum(above, 0))


def ewgs_many_forward(
    x: Tensors, lower: Tensors, upper: Tensors, y: Tensors, bits: Sequence[int]
) -> None:
    """Quantize every dense ``x`` into ``y``, laid out alike; the ranges are float32."""
    levels = [2.0**b - 1 for b in bits]
    for chunk in chunks(x, [1] * len(x)):
        ewgs_many_forward_kernel[(chunk.programs,)](
            *(chunk.take(values) for values in (x, lower, upper, y, levels)),
            *chunk.sizes, COUNT=len(chunk.rows), BLOCK=TILE, **OPTIONS,
        )  # fmt: skip


def ewgs_many_backward(
    grad: Tensors,
    x: Tensors,
    lower: Tensors,
    upper: Tensors,
    dx: Tensors,
    dlower: Tensors,
    dupper: Tensors,
    bits: Sequence[int],
    delta: float,
    delta_tensor: Tensor | None,
) -> None:
    """Write every ``dx``, laid out as ``grad`` and ``x``, ``dlower`` and ``dupper``."""
    levels = [2.0**b - 1 for b in bits]
    for chunk in chunks(x, [1] * len(x)):
        partials = new_partials(x[0], chunk, 2)
        ewgs_many_backward_kernel[(chunk.programs,)](
            *(chunk.take(values) for values in (grad, x, lower, upper)), delta_tensor,
            chunk.take(dx), partials, chunk.take(levels), delta, chunk.programs, *chunk.sizes,
            COUNT=len(chunk.rows), BLOCK=TILE, **OPTIONS,
        )  # fmt: skip
        reduce_many(partials, chunk, [dlower, dupper], [1.0] * len(x))

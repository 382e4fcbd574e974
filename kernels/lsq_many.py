"""LSQ on all the weights of a model in one launch; the formulas are ``lsq``'s."""

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from ._many import OPTIONS, TILE, chunks, entry, new_partials, reduce_many, row_block
from ._maths import at_least_smallest
from .lsq import lsq_gradient, lsq_value, pass_interval

Tensors = Sequence[Tensor]


@triton.jit
def lsq_many_forward_kernel(
    x,  # each [rows, inner]
    step,  # each [rows]
    y,  # each [rows, inner]
    qmin,
    qmax,
    inner,
    offsets,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: a block of one row of one tensor."""
    row, at, mask, _ = row_block(inner, offsets, COUNT, BLOCK)
    source, target = entry(x, offsets, COUNT), entry(y, offsets, COUNT)
    s = at_least_smallest(tl.load(entry(step, offsets, COUNT) + row))
    low, high = entry(qmin, offsets, COUNT), entry(qmax, offsets, COUNT)
    value = lsq_value(tl.load(source + at, mask=mask, other=0.0).to(tl.float32), s, low, high)
    tl.store(target + at, value.to(target.dtype.element_ty), mask=mask)


@triton.jit
def lsq_many_backward_kernel(
    grad,  # each [rows, inner]
    x,  # each [rows, inner]
    step,  # each [rows]
    dx,  # each [rows, inner]
    partials,  # [programs]
    qmin,
    qmax,
    pass_low,
    pass_high,
    inner,
    offsets,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: dx of a block of one row, and its partial sum of ds."""
    row, at, mask, _ = row_block(inner, offsets, COUNT, BLOCK)
    target = entry(dx, offsets, COUNT)
    g = tl.load(entry(grad, offsets, COUNT) + at, mask=mask, other=0.0).to(tl.float32)
    v = tl.load(entry(x, offsets, COUNT) + at, mask=mask, other=0.0).to(tl.float32)
    s = at_least_smallest(tl.load(entry(step, offsets, COUNT) + row))
    low, high = entry(qmin, offsets, COUNT), entry(qmax, offsets, COUNT)
    first, last = entry(pass_low, offsets, COUNT), entry(pass_high, offsets, COUNT)
    gradient, terms = lsq_gradient(g, v, s, low, high, first, last)
    tl.store(target + at, gradient.to(target.dtype.element_ty), mask=mask)
    tl.store(partials + tl.program_id(0), tl.sum(terms, 0))


def lsq_many_forward(
    x: Tensors, step: Tensors, y: Tensors, qmin: Sequence[int], qmax: Sequence[int]
) -> None:
    """Quantize every ``x``, its rows one after the other in memory, into ``y``, laid out alike."""
    low, high = [float(q) for q in qmin], [float(q) for q in qmax]
    for chunk in chunks(x, [s.numel() for s in step]):
        lsq_many_forward_kernel[(chunk.programs,)](
            *(chunk.take(values) for values in (x, step, y, low, high)),
            *chunk.sizes, COUNT=len(chunk.rows), BLOCK=TILE, **OPTIONS,
        )  # fmt: skip


def lsq_many_backward(
    grad: Tensors,
    x: Tensors,
    step: Tensors,
    dx: Tensors,
    ds: Tensors,
    qmin: Sequence[int],
    qmax: Sequence[int],
    ste: int,
    grad_scale: Sequence[float],
) -> None:
    """Write every ``dx``, laid out as ``grad`` and ``x``, and ``ds``."""
    low, high = [float(q) for q in qmin], [float(q) for q in qmax]
    intervals = [pass_interval(*range_, ste) for range_ in zip(qmin, qmax, strict=True)]
    first, last = [a for a, _ in intervals], [b for _, b in intervals]
    for chunk in chunks(x, [s.numel() for s in step]):
        partials = new_partials(x[0], chunk, 1)
        lsq_many_backward_kernel[(chunk.programs,)](
            *(chunk.take(values) for values in (grad, x, step, dx)), partials,
            *(chunk.take(values) for values in (low, high, first, last)),
            *chunk.sizes, COUNT=len(chunk.rows), BLOCK=TILE, **OPTIONS,
        )  # fmt: skip
        reduce_many(partials, chunk, [ds], grad_scale)

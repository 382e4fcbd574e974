"""DoReFa on all the weights of a model in two launches; the formulas are ``dorefa``'s."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._dorefa import (
    dorefa_gradient,
    dorefa_maximum_gradient,
    dorefa_sign,
    dorefa_value,
    mean,
    wide_sum,
)
from ._many import OPTIONS, TILE, chunks, entry, new_partials, row_block
from ._maths import tanh

Tensors = Sequence[Tensor]


@triton.jit
def dorefa_weight_many_magnitude_kernel(
    w,  # each [inner]
    wide_partials,  # [programs]
    levels,
    inner,
    offsets,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: the largest |w| of a block as bits, NaN above everything; at 1 bit sum|w|."""
    _, at, mask, _ = row_block(inner, offsets, COUNT, BLOCK)
    size = tl.abs(tl.load(entry(w, offsets, COUNT) + at, mask=mask, other=0.0).to(tl.float32))
    largest = tl.max(size.to(tl.int32, bitcast=True), 0).to(tl.float32, bitcast=True)
    binary = entry(levels, offsets, COUNT) == 1.0
    found = tl.where(binary, wide_sum(size), largest.to(tl.float64))
    tl.store(wide_partials + tl.program_id(0), found)


@triton.jit
def _sum_and_largest(partials, start, count, BLOCK: tl.constexpr):
    """Return the fp64 sum of ``count`` partials and the largest by their bits."""
    total, most = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.int32)
    for first in range(0, count, BLOCK):
        i = first + tl.arange(0, BLOCK)
        found = tl.load(partials + start + i, mask=i < count, other=0.0)
        total += found
        most = tl.maximum(most, found.to(tl.float32).to(tl.int32, bitcast=True))
    return tl.sum(total, 0), tl.max(most, 0).to(tl.float32, bitcast=True)


@triton.jit
def dorefa_weight_many_forward_kernel(
    w,  # each [inner]
    wide_partials,  # [programs]: of the magnitude kernel
    y,  # each [inner]
    maximum,  # each []: max|tanh(w)|, or mean|w|
    levels,
    blocks,
    inner,
    offsets,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: a block of one tensor; the first of a tensor stores its maximum."""
    _, at, mask, block = row_block(inner, offsets, COUNT, BLOCK)
    target, count = entry(y, offsets, COUNT), entry(levels, offsets, COUNT)
    start, length = entry(offsets, offsets, COUNT), entry(blocks, offsets, COUNT)
    total, largest = _sum_and_largest(wide_partials, start, length, 128)
    average = mean(total, tl.maximum(entry(inner, offsets, COUNT), 1))
    size = tl.where(count == 1.0, average, tanh(largest))
    tl.store(entry(maximum, offsets, COUNT), size, mask=block == 0)
    v = tl.load(entry(w, offsets, COUNT) + at, mask=mask, other=0.0).to(tl.float32)
    value = tl.where(count == 1.0, dorefa_sign(v) * size, dorefa_value(v, size, count))
    tl.store(target + at, value.to(target.dtype.element_ty), mask=mask)


@triton.jit
def dorefa_weight_many_maximum_backward_kernel(
    grad,  # each [inner]
    w,  # each [inner]
    maximum,  # each []
    wide_partials,  # [2, programs]
    levels,
    programs,
    inner,
    offsets,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: partial sums of grad * tanh(w) and of the number of largest weights.

    At 1 bit: of grad * sign(w).
    """
    _, at, mask, _ = row_block(inner, offsets, COUNT, BLOCK)
    g = tl.load(entry(grad, offsets, COUNT) + at, mask=mask, other=0.0).to(tl.float32)
    v = tl.load(entry(w, offsets, COUNT) + at, mask=mask, other=0.0).to(tl.float32)
    binary, t = entry(levels, offsets, COUNT) == 1.0, tanh(v)
    largest = mask & (tl.abs(t) == tl.load(entry(maximum, offsets, COUNT)))
    terms = g * tl.where(binary, dorefa_sign(v), t)
    tl.store(wide_partials + tl.program_id(0), wide_sum(terms))
    tl.store(wide_partials + programs + tl.program_id(0), wide_sum(largest))


@triton.jit
def dorefa_weight_many_backward_kernel(
    grad,  # each [inner]
    w,  # each [inner]
    maximum,  # each []
    wide_partials,  # [2, programs] of the maximum kernel; None when detached
    dx,  # each [inner]
    levels,
    blocks,
    programs,
    inner,
    offsets,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: dw of a block of one tensor."""
    _, at, mask, _ = row_block(inner, offsets, COUNT, BLOCK)
    target, size = entry(dx, offsets, COUNT), tl.load(entry(maximum, offsets, COUNT))
    binary = entry(levels, offsets, COUNT) == 1.0
    extra = 0.0
    if wide_partials is not None:
        start, length = entry(offsets, offsets, COUNT), entry(blocks, offsets, COUNT)
        total, _ = _sum_and_largest(wide_partials, start, length, 128)
        number, _ = _sum_and_largest(wide_partials, programs + start, length, 128)
        average = mean(total, tl.maximum(entry(inner, offsets, COUNT), 1))
        number = tl.where(number == 0.0, 1.0, number)  # not counted at 1 bit
        each = dorefa_maximum_gradient(total.to(tl.float32), number.to(tl.float32), size)
        extra = tl.where(binary, average, each)
    g = tl.load(entry(grad, offsets, COUNT) + at, mask=mask, other=0.0).to(tl.float32)
    v = tl.load(entry(w, offsets, COUNT) + at, mask=mask, other=0.0).to(tl.float32)
    plain, graded = g + dorefa_sign(v) * extra, dorefa_gradient(g, v, size, extra)
    gradient = tl.where(binary, plain, graded)
    tl.store(target + at, gradient.to(target.dtype.element_ty), mask=mask)


def dorefa_weight_many_forward(
    w: Tensors, y: Tensors, maximum: Tensor, bits: Sequence[int]
) -> None:
    """Write every max|tanh(w)| (1 bit: mean|w|) to ``maximum``, and ``y``, laid out as ``w``."""
    levels, maxima = [2.0**b - 1 for b in bits], maximum.unbind()
    for chunk in chunks(w, [1] * len(w)):
        partials, scales = new_partials(w[0], chunk, 1, torch.float64), chunk.take(levels)
        sizes = {"COUNT": len(chunk.rows), "BLOCK": TILE}
        dorefa_weight_many_magnitude_kernel[(chunk.programs,)](
            chunk.take(w), partials, scales, *chunk.sizes, **sizes, **OPTIONS
        )
        dorefa_weight_many_forward_kernel[(chunk.programs,)](
            chunk.take(w), partials, chunk.take(y), chunk.take(maxima), scales, chunk.blocks,
            *chunk.sizes, **sizes, **OPTIONS,
        )  # fmt: skip


def dorefa_weight_many_backward(
    grad: Tensors, w: Tensors, maximum: Tensor, dw: Tensors, bits: Sequence[int], detach_max: bool
) -> None:
    """Write every ``dw``, laid out as ``grad`` and ``w``."""
    levels, maxima = [2.0**b - 1 for b in bits], maximum.unbind()
    for chunk in chunks(w, [1] * len(w)):
        partials, scales = None, chunk.take(levels)
        sizes = {"COUNT": len(chunk.rows), "BLOCK": TILE}
        inputs = [chunk.take(values) for values in (grad, w, maxima)]
        if not detach_max:
            partials = new_partials(w[0], chunk, 2, torch.float64)
            dorefa_weight_many_maximum_backward_kernel[(chunk.programs,)](
                *inputs, partials, scales, chunk.programs, *chunk.sizes, **sizes, **OPTIONS
            )
        dorefa_weight_many_backward_kernel[(chunk.programs,)](
            *inputs, partials, chunk.take(dw), scales, chunk.blocks, chunk.programs, *chunk.sizes,
            **sizes, **OPTIONS,
        )  # fmt: skip

"""DoReFa, weights and activations [DoReFa equations 5 to 11]; float32 inside."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._dorefa import (
    dorefa_activation_value,
    dorefa_gradient,
    dorefa_maximum_gradient,
    dorefa_sign,
    dorefa_value,
    mean,
    wide_sum,
)
from ._maths import tanh
from ._partition import OPTIONS, TILE, Flat, flat_of, flat_tile, load_codes, store_mask
from ._reduce import reduce


@triton.jit
def dorefa_activation_forward_flat_kernel(
    x,  # [numel]
    y,  # [numel]
    mask,  # [numel / 8]
    numel,
    low,
    levels,
    BLOCK: tl.constexpr,
):
    """One program: BLOCK elements, and whether their gradients pass."""
    at = flat_tile(BLOCK)
    inside = at < numel
    v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    value = dorefa_activation_value(v, low, levels)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=inside)
    store_mask(mask, inside & (v >= low) & (v <= 1.0), numel, 1, BLOCK)


@triton.jit
def dorefa_activation_backward_flat_kernel(
    grad,  # [numel]
    mask,  # [numel / 8]
    dx,  # [numel]
    numel,
    BLOCK: tl.constexpr,
):
    """One program: dx of BLOCK elements."""
    at = flat_tile(BLOCK)
    inside = at < numel
    g = tl.load(grad + at, mask=inside, other=0.0)
    tl.store(dx + at, tl.where(load_codes(mask, at, inside, 1) != 0, g, 0.0), mask=inside)


@triton.jit
def dorefa_largest_flat_kernel(
    w,  # [numel]
    largest,  # int32 [programs]
    numel,
    BLOCK: tl.constexpr,
):
    """One program: the largest |w| as bits, which are ordered alike, NaN above everything."""
    at = flat_tile(BLOCK)
    value = tl.load(w + at, mask=at < numel, other=0.0).to(tl.float32)
    bits = value.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    tl.store(largest + tl.program_id(0), tl.max(bits, 0))


@triton.jit
def dorefa_maximum_reduce_kernel(
    largest,  # int32 [programs]
    out,  # []
    down,
    BLOCK: tl.constexpr,
):
    """Write max|tanh(w)| = tanh(max|w|), which the largest weights then equal exactly."""
    most = tl.zeros([BLOCK], tl.int32)
    for first in range(0, down, BLOCK):
        i = first + tl.arange(0, BLOCK)
        most = tl.maximum(most, tl.load(largest + i, mask=i < down, other=0))
    tl.store(out, tanh(tl.max(most, 0).to(tl.float32, bitcast=True)))


@triton.jit
def dorefa_signed_sum_flat_kernel(
    grad,  # [numel]
    w,  # [numel]
    wide_partials,  # [programs]
    numel,
    BLOCK: tl.constexpr,
):
    """One program: a partial sum of grad * sign(w); with grad = w it is that of |w|."""
    at = flat_tile(BLOCK)
    g = tl.load(grad + at, mask=at < numel, other=0.0).to(tl.float32)
    v = tl.load(w + at, mask=at < numel, other=0.0).to(tl.float32)
    tl.store(wide_partials + tl.program_id(0), wide_sum(g * dorefa_sign(v)))


@triton.jit
def dorefa_mean_reduce_kernel(
    wide_partials,  # [programs]
    out,  # []
    down,
    numel,
    BLOCK: tl.constexpr,
):
    """Write the mean of ``numel`` elements."""
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, down, BLOCK):
        i = first + tl.arange(0, BLOCK)
        total += tl.load(wide_partials + i, mask=i < down, other=0.0)
    tl.store(out, mean(tl.sum(total, 0), numel))


@triton.jit
def dorefa_weight_forward_flat_kernel(
    w,  # [numel]
    maximum,  # []: max|tanh(w)|, or mean|w|
    y,  # [numel]
    numel,
    levels,
    BINARY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: BLOCK elements."""
    at = flat_tile(BLOCK)
    v = tl.load(w + at, mask=at < numel, other=0.0).to(tl.float32)
    size = tl.load(maximum)
    value = dorefa_sign(v) * size if BINARY else dorefa_value(v, size, levels)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=at < numel)


@triton.jit
def dorefa_maximum_backward_flat_kernel(
    grad,  # [numel]
    w,  # [numel]
    maximum,  # []
    wide_partials,  # [programs]
    counts,  # [programs]
    numel,
    BLOCK: tl.constexpr,
):
    """One program: partial sums of grad * tanh(w) and of the number of largest weights."""
    at = flat_tile(BLOCK)
    inside = at < numel
    g = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
    t = tanh(tl.load(w + at, mask=inside, other=0.0).to(tl.float32))
    largest = inside & (tl.abs(t) == tl.load(maximum))
    tl.store(wide_partials + tl.program_id(0), wide_sum(g * t))
    tl.store(counts + tl.program_id(0), tl.sum(largest.to(tl.float32), 0))


@triton.jit
def dorefa_weight_backward_flat_kernel(
    grad,  # [numel]
    w,  # [numel]
    maximum,  # []
    sums,  # []: sum(grad * tanh(w)), or of grad * sign(w) over the number; None when detached
    counts,  # []: the number of largest weights
    dx,  # [numel]
    numel,
    BINARY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: dw of BLOCK elements."""
    at = flat_tile(BLOCK)
    g = tl.load(grad + at, mask=at < numel, other=0.0).to(tl.float32)
    v = tl.load(w + at, mask=at < numel, other=0.0).to(tl.float32)
    extra = 0.0
    if sums is not None:
        extra = tl.load(sums)
    if BINARY:
        gradient = g + dorefa_sign(v) * extra
    else:
        size = tl.load(maximum)
        if sums is not None:
            extra = dorefa_maximum_gradient(extra, tl.load(counts), size)
        gradient = dorefa_gradient(g, v, size, extra)
    tl.store(dx + at, gradient.to(dx.dtype.element_ty), mask=at < numel)


def dorefa_activation_forward(x: Tensor, y: Tensor, mask: Tensor, bits: int, signed: bool) -> None:
    """Quantize the dense ``x`` into ``y``, which has its strides, its bits into ``mask``."""
    low, levels = (-1.0, 2 ** (bits - 1) - 1) if signed else (0.0, 2**bits - 1)
    dorefa_activation_forward_flat_kernel[(_plan(x).programs,)](
        x, y, mask, x.numel(), low, float(levels), BLOCK=TILE, **OPTIONS
    )


def dorefa_activation_backward(grad: Tensor, mask: Tensor, dx: Tensor) -> None:
    """Write ``dx``; ``grad`` and ``dx`` are dense with the same strides."""
    dorefa_activation_backward_flat_kernel[(_plan(grad).programs,)](
        grad, mask, dx, grad.numel(), BLOCK=TILE, **OPTIONS
    )


def _plan(x: Tensor) -> Flat:
    return flat_of(x.numel())


def _signed_mean(grad: Tensor, w: Tensor, out: Tensor) -> Tensor:
    plan = _plan(w)
    partials = out.new_empty(plan.programs, dtype=torch.float64)
    dorefa_signed_sum_flat_kernel[(plan.programs,)](
        grad, w, partials, w.numel(), BLOCK=TILE, **OPTIONS
    )
    dorefa_mean_reduce_kernel[(1,)](
        partials, out, plan.programs, w.numel(), BLOCK=1024, num_warps=4, enable_fp_fusion=False
    )
    return out


def _maximum(w: Tensor, out: Tensor) -> None:
    plan = _plan(w)
    largest = w.new_empty(plan.programs, dtype=torch.int32)
    dorefa_largest_flat_kernel[(plan.programs,)](w, largest, w.numel(), BLOCK=TILE, **OPTIONS)
    dorefa_maximum_reduce_kernel[(1,)](
        largest, out, plan.programs, BLOCK=1024, num_warps=4, enable_fp_fusion=False
    )


def dorefa_weight_forward(w: Tensor, y: Tensor, scale: Tensor, bits: int) -> None:
    """Write max|tanh(w)| (1 bit: mean|w|) to ``scale`` and the quantized weights to ``y``."""
    if bits == 1:
        _signed_mean(w, w, scale)
    else:
        _maximum(w, scale)
    dorefa_weight_forward_flat_kernel[(_plan(w).programs,)](
        w, scale, y, w.numel(), float(2**bits - 1), BINARY=bits == 1, BLOCK=TILE, **OPTIONS
    )


def _maximum_sums(grad: Tensor, w: Tensor, maximum: Tensor) -> tuple[Tensor, Tensor]:
    plan = _plan(w)
    sums = maximum.new_empty(plan.programs, dtype=torch.float64)
    counts = maximum.new_empty(plan.programs)
    dorefa_maximum_backward_flat_kernel[(plan.programs,)](
        grad, w, maximum, sums, counts, w.numel(), BLOCK=TILE, **OPTIONS
    )
    sums = reduce(plan, sums, 1.0, maximum.new_empty(()))
    return sums, reduce(plan, counts, 1.0, maximum.new_empty(()))


def dorefa_weight_backward(
    grad: Tensor, w: Tensor, maximum: Tensor, dw: Tensor, bits: int, detach_max: bool
) -> None:
    """Write ``dw``; ``grad``, ``w`` and ``dw`` are dense with the same strides."""
    sums = counts = None
    if bits == 1 and not detach_max:
        sums = _signed_mean(grad, w, maximum.new_empty(()))
    elif not detach_max:
        sums, counts = _maximum_sums(grad, w, maximum)
    dorefa_weight_backward_flat_kernel[(_plan(w).programs,)](
        grad, w, maximum, sums, counts, dw, w.numel(), BINARY=bits == 1, BLOCK=TILE, **OPTIONS
    )

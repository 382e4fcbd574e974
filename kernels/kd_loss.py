"""Distillation loss and its gradient, one launch [KD]; float32 inside, whatever is stored."""

import triton
import triton.language as tl
from torch import Tensor

from ._kd_rows import (
    count_rows,
    cross_terms,
    load_logits,
    reduce_losses,
    row_losses,
    settings,
    targets,
    upstream_factor,
    weighted,
)

LONGEST = 8192  # classes of a row that a program holds; longer rows are read twice
TILE = 1024  # elements that short rows fill a program with
LONG_BLOCK = 2048
NONE, MEAN = tl.constexpr(0), tl.constexpr(1)  # codes of reductions
LOWEST = tl.constexpr(-3.4028234663852886e38)  # below every logit but -inf


@triton.jit
def kd_loss_tile_kernel(
    student,  # [B, C]
    teacher,  # [B, C]
    labels,  # int64 [B], or None
    weights,  # [B, C], or None
    temperature_tensor,  # [], or None
    ce_weight_tensor,  # [], or None
    kd_weight_tensor,  # [], or None
    counted,  # int64 []: rows that are not ignored, None to count them here
    upstream,  # [] or [B], None in the forward pass
    row_sums,  # fp64 [programs, 2]
    counter,  # int32 [], 0
    loss,  # [] or [B], None in the backward pass
    parts,  # [2]
    ce,  # [B]
    kl,  # [B]
    grad,  # [B, C], or None
    temperature,
    ce_weight,
    kd_weight,
    smoothing,
    scale,
    ignore,
    rows,
    classes,
    REDUCTION: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: ROWS whole rows."""
    inverse, a, bt = settings(
        temperature, ce_weight, kd_weight, temperature_tensor, ce_weight_tensor, kd_weight_tensor
    )
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    k = tl.arange(0, BLOCK)[None, :]
    own = row < rows
    inside = own[:, None] & (k < classes)
    at = row[:, None] * classes + k
    z, t = load_logits(student, at, inside), load_logits(teacher, at, inside)
    z -= tl.where(own, tl.max(z, 1), 0.0)[:, None]
    t -= tl.where(own, tl.max(t, 1), 0.0)[:, None]
    e, f = tl.exp(z * inverse), tl.exp(t * inverse)
    cross = tl.sum(cross_terms(f, z, t, inverse), 1)
    soft, teach = tl.sum(e, 1), tl.sum(f, 1)
    hard, weight, logit = tl.full([ROWS], 1.0, tl.float32), 0.0 * soft, 0.0 * soft
    count = 1.0
    if labels is not None or weights is not None:
        count = count_rows(labels, counted, ignore, rows, REDUCTION == MEAN)
        w = targets(labels, weights, row[:, None], k, inside, rows, classes, smoothing, ignore)
        h = tl.exp(z)
        hard, weight, logit = tl.sum(h, 1), tl.sum(w, 1), tl.sum(weighted(w, z), 1)
    found_ce, found_kl = row_losses(hard, soft, teach, cross, weight, logit)
    if loss is not None:
        tl.store(ce + row, found_ce, mask=own)
        tl.store(kl + row, found_kl, mask=own)
        bt2 = bt / inverse
        if REDUCTION == NONE:
            tl.store(loss + row, a * found_ce + bt2 * found_kl, mask=own)
        else:
            ces = tl.sum(tl.where(own, found_ce, 0.0).to(tl.float64), 0)
            kls = tl.sum(tl.where(own, found_kl, 0.0).to(tl.float64), 0)
            reduce_losses(
                ces, kls, row_sums, counter, loss, parts, count, rows, a, bt2,
                REDUCTION == MEAN, 256,
            )  # fmt: skip
    if grad is not None:
        g = e * (bt / soft)[:, None] - f * (bt / teach)[:, None]
        if labels is not None or weights is not None:
            share = a
            if REDUCTION == MEAN:
                share *= rows / count
            target = tl.where(weight == 0.0, 0.0, share)[:, None]
            g = h * (share * weight / hard)[:, None] + g - target * w
        if upstream is not None:
            g *= upstream_factor(upstream, row, own, scale, REDUCTION == NONE)[:, None]
        tl.store(grad + at, g.to(grad.dtype.element_ty), mask=inside)


@triton.jit
def kd_loss_long_kernel(
    student,  # [B, C]
    teacher,  # [B, C]
    labels,  # int64 [B], or None
    weights,  # [B, C], or None
    temperature_tensor,  # [], or None
    ce_weight_tensor,  # [], or None
    kd_weight_tensor,  # [], or None
    counted,  # int64 []: rows that are not ignored, None to count them here
    upstream,  # [] or [B], None in the forward pass
    row_sums,  # fp64 [programs, 2]
    counter,  # int32 [], 0
    loss,  # [] or [B], None in the backward pass
    parts,  # [2]
    ce,  # [B]
    kl,  # [B]
    grad,  # [B, C], or None
    temperature,
    ce_weight,
    kd_weight,
    smoothing,
    scale,
    ignore,
    rows,
    classes,
    REDUCTION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: one row, read twice; sums follow the largest logit seen so far."""
    inverse, a, bt = settings(
        temperature, ce_weight, kd_weight, temperature_tensor, ce_weight_tensor, kd_weight_tensor
    )
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    zero = tl.full([], 0.0, tl.float32)
    top_z, top_t = zero + LOWEST, zero + LOWEST
    hard, soft, teach, cross, weight, logit = zero, zero, zero, zero, zero, zero
    for first in range(0, classes, BLOCK):
        k = first + lane
        z, t = (
            load_logits(student, row * classes + k, k < classes),
            load_logits(teacher, row * classes + k, k < classes),
        )
        new_z, new_t = tl.maximum(top_z, tl.max(z, 0)), tl.maximum(top_t, tl.max(t, 0))
        down_z, down_t = top_z - new_z, top_t - new_t
        top_z, top_t = new_z, new_t
        z, t = z - top_z, t - top_t
        shift = tl.where(teach == 0.0, 0.0, teach * ((down_t - down_z) * inverse))
        f = tl.exp(t * inverse)
        lower = tl.exp(down_t * inverse)
        cross = (cross + shift) * lower + tl.sum(cross_terms(f, z, t, inverse), 0)
        teach = teach * lower + tl.sum(f, 0)
        soft = soft * tl.exp(down_z * inverse) + tl.sum(tl.exp(z * inverse), 0)
        hard = hard * tl.exp(down_z) + tl.sum(tl.exp(z), 0)
        if labels is not None or weights is not None:
            logit += tl.where(weight == 0.0, 0.0, weight * down_z)
            w = targets(
                labels, weights, row + tl.zeros([1, 1], tl.int64), k[None, :],
                (k < classes)[None, :], rows, classes, smoothing, ignore,
            )  # fmt: skip
            w = tl.reshape(w, [BLOCK])
            weight += tl.sum(w, 0)
            logit += tl.sum(weighted(w, z), 0)
    found_ce, found_kl = row_losses(hard, soft, teach, cross, weight, logit)
    count = 1.0
    if labels is not None or weights is not None:
        count = count_rows(labels, counted, ignore, rows, REDUCTION == MEAN)
    if loss is not None:
        tl.store(ce + row, found_ce)
        tl.store(kl + row, found_kl)
        bt2 = bt / inverse
        if REDUCTION == NONE:
            tl.store(loss + row, a * found_ce + bt2 * found_kl)
        else:
            reduce_losses(
                found_ce.to(tl.float64), found_kl.to(tl.float64), row_sums, counter, loss, parts,
                count, rows, a, bt2, REDUCTION == MEAN, 256,
            )  # fmt: skip
    if grad is not None:
        share = a
        if REDUCTION == MEAN:
            share *= rows / count
        factor = 1.0
        if upstream is not None:
            factor = upstream_factor(upstream, row, row < rows, scale, REDUCTION == NONE)
        from_hard, from_soft, from_teacher = share * weight / hard, bt / soft, bt / teach
        for first in range(0, classes, BLOCK):
            k = first + lane
            at = row * classes + k
            z, t = (
                load_logits(student, at, k < classes) - top_z,
                load_logits(teacher, at, k < classes) - top_t,
            )
            g = tl.exp(z * inverse) * from_soft - tl.exp(t * inverse) * from_teacher
            if labels is not None or weights is not None:
                w = targets(
                    labels, weights, row + tl.zeros([1, 1], tl.int64), k[None, :],
                    (k < classes)[None, :], rows, classes, smoothing, ignore,
                )  # fmt: skip
                target = tl.where(weight == 0.0, 0.0, share)
                g = tl.exp(z) * from_hard + g - target * tl.reshape(w, [BLOCK])
            if upstream is not None:
                g *= factor
            tl.store(grad + at, g.to(grad.dtype.element_ty), mask=k < classes)


def programs(rows: int, classes: int) -> int:
    """Return how many programs share the rows."""
    return triton.cdiv(rows, _tile(classes)[0])


def _tile(classes: int) -> tuple[int, int]:
    """Return the rows of a program, and the classes of a row that it takes at a time."""
    if classes > LONGEST:
        return 1, LONG_BLOCK
    block = triton.next_power_of_2(classes)
    return max(1, TILE // block), block


def kd_loss(tensors: tuple[Tensor | None, ...], numbers: tuple[float, ...], reduction: int) -> None:
    """Launch on contiguous tensors and numbers in the order of the kernels' arguments."""
    rows, classes = tensors[0].shape
    height, block = _tile(classes)
    grid, options = (programs(rows, classes),), {"enable_fp_fusion": False}
    arguments = (*tensors, *numbers, rows, classes)
    if classes > LONGEST:
        kd_loss_long_kernel[grid](*arguments, reduction, BLOCK=block, num_warps=8, **options)
        return
    warps = max(4, block // 512)
    kd_loss_tile_kernel[grid](*arguments, reduction, height, block, num_warps=warps, **options)

"""Distillation loss and its gradient, one launch [KD]; float32 inside, whatever is stored."""

import triton
import triton.language as tl

from ._kd_rows import (
    Numbers,
    Tensors,
    centre,
    centred_difference,
    count_rows,
    cross_terms,
    divergence_scales,
    is_centred,
    load_logits,
    reduce_losses,
    row_losses,
    spread_terms,
    targets,
    upstream_factor,
    weighted,
    weights,
)

LONGEST = 8192  # classes of a row that a program holds; longer rows are read twice
TILE = 1024  # elements that short rows fill a program with
LONG_BLOCK = 2048
NONE, MEAN = tl.constexpr(0), tl.constexpr(1)  # codes of reductions
LOWEST = tl.constexpr(-3.4028234663852886e38)  # below every logit but -inf


@triton.jit
def _store_tile_losses(
    tensors, row, inside, ce, kl, count, rows, ce_weight, kl_weight, REDUCTION: tl.constexpr
):
    tl.store(tensors.ce + row, ce, mask=inside)
    tl.store(tensors.kl + row, kl, mask=inside)
    if REDUCTION == NONE:
        tl.store(tensors.loss + row, ce_weight * ce + kl_weight * kl, mask=inside)
    else:
        ce_sum = tl.sum(tl.where(inside, ce, 0.0).to(tl.float64), 0)
        kl_sum = tl.sum(tl.where(inside, kl, 0.0).to(tl.float64), 0)
        reduce_losses(
            tensors, ce_sum, kl_sum, count, rows, ce_weight, kl_weight, REDUCTION == MEAN, 256
        )


@triton.jit
def kd_loss_tile_kernel(
    tensors,
    numbers,
    rows,
    classes,
    REDUCTION: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: ROWS whole rows."""
    labelled: tl.constexpr = tensors.labels is not None or tensors.soft_labels is not None
    inverse, ce_weight, kd_weight = weights(tensors, numbers)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    k = tl.arange(0, BLOCK)[None, :]
    own = row < rows
    inside = own[:, None] & (k < classes)
    at = row[:, None] * classes + k
    z, t = load_logits(tensors.student, at, inside), load_logits(tensors.teacher, at, inside)
    z -= tl.where(own, tl.max(z, 1), 0.0)[:, None]
    t -= tl.where(own, tl.max(t, 1), 0.0)[:, None]
    student, teacher = tl.exp(z * inverse), tl.exp(t * inverse)
    cross_sum = tl.sum(cross_terms(teacher, z, t, inverse), 1)
    student_sum, teacher_sum = tl.sum(student, 1), tl.sum(teacher, 1)
    spread = tl.full([ROWS], float("inf"), tl.float32)
    if is_centred(inverse):
        mean, outside = centre(teacher_sum, cross_sum)
        x = (z - t) * inverse - mean[:, None]
        spread = tl.sum(spread_terms(student, teacher, x, outside[:, None]), 1) / teacher_sum
        student = centred_difference(student, teacher, x, outside[:, None], spread[:, None])
    exp_sum, target_sum, target_logit = (
        tl.full([ROWS], 1.0, tl.float32),
        0.0 * student_sum,
        0.0 * student_sum,
    )
    count = 1.0
    if labelled:
        count = count_rows(tensors, numbers.ignore, rows, REDUCTION == MEAN)
        target = targets(tensors, numbers, row[:, None], k, inside, rows, classes)
        exp = tl.exp(z)
        exp_sum, target_sum = tl.sum(exp, 1), tl.sum(target, 1)
        target_logit = tl.sum(weighted(target, z), 1)
    if tensors.loss is not None:
        ce, kl = row_losses(
            exp_sum, student_sum, teacher_sum, cross_sum, spread, target_sum, target_logit
        )
        kl_weight = kd_weight / inverse
        _store_tile_losses(tensors, row, own, ce, kl, count, rows, ce_weight, kl_weight, REDUCTION)
    if tensors.grad is not None:
        of_student, of_teacher = divergence_scales(kd_weight, student_sum, teacher_sum, spread)
        g = student * of_student[:, None]
        g -= teacher * of_teacher[:, None]
        if labelled:
            if REDUCTION == MEAN:
                ce_weight *= rows / count
            factor = tl.where(target_sum == 0.0, 0.0, ce_weight)[:, None]
            g = exp * (ce_weight * target_sum / exp_sum)[:, None] + g - factor * target
        if tensors.upstream is not None:
            g *= upstream_factor(tensors.upstream, row, own, numbers.scale, REDUCTION == NONE)[
                :, None
            ]
        tl.store(tensors.grad + at, g.to(tensors.grad.dtype.element_ty), mask=inside)


@triton.jit
def _block_targets(tensors, numbers, row, k, rows, classes, BLOCK: tl.constexpr):
    """Return the targets of one row's classes ``k``: ``[BLOCK]``."""
    row = row + tl.zeros([1, 1], tl.int64)
    inside = (k < classes)[None, :]
    return tl.reshape(targets(tensors, numbers, row, k[None, :], inside, rows, classes), [BLOCK])


@triton.jit
def _read_long_row(tensors, numbers, row, rows, classes, inverse, BLOCK: tl.constexpr):
    """Return the largest logits of a row and its sums, as :func:`row_losses` names them."""
    zero = tl.full([], 0.0, tl.float32)
    top_z, top_t = zero + LOWEST, zero + LOWEST
    exp_sum, student_sum, teacher_sum, cross_sum = zero, zero, zero, zero
    target_sum, target_logit = zero, zero
    for first in range(0, classes, BLOCK):
        k = first + tl.arange(0, BLOCK)
        z = load_logits(tensors.student, row * classes + k, k < classes)
        t = load_logits(tensors.teacher, row * classes + k, k < classes)
        new_z, new_t = tl.maximum(top_z, tl.max(z, 0)), tl.maximum(top_t, tl.max(t, 0))
        down_z, down_t = top_z - new_z, top_t - new_t
        top_z, top_t = new_z, new_t
        z, t = z - top_z, t - top_t
        shift = tl.where(teacher_sum == 0.0, 0.0, teacher_sum * ((down_t - down_z) * inverse))
        teacher = tl.exp(t * inverse)
        lower = tl.exp(down_t * inverse)
        cross = tl.sum(cross_terms(teacher, z, t, inverse), 0)
        cross_sum = (cross_sum + shift) * lower + cross
        teacher_sum = teacher_sum * lower + tl.sum(teacher, 0)
        student_sum = student_sum * tl.exp(down_z * inverse) + tl.sum(tl.exp(z * inverse), 0)
        exp_sum = exp_sum * tl.exp(down_z) + tl.sum(tl.exp(z), 0)
        if tensors.labels is not None or tensors.soft_labels is not None:
            target_logit += tl.where(target_sum == 0.0, 0.0, target_sum * down_z)
            target = _block_targets(tensors, numbers, row, k, rows, classes, BLOCK)
            target_sum += tl.sum(target, 0)
            target_logit += tl.sum(weighted(target, z), 0)
    return top_z, top_t, exp_sum, student_sum, teacher_sum, cross_sum, target_sum, target_logit


@triton.jit
def _long_spread(tensors, row, classes, inverse, top_z, top_t, mean, outside, BLOCK: tl.constexpr):
    """Read a row once more and return its spread times the teacher's sum."""
    total = tl.full([], 0.0, tl.float32)
    for first in range(0, classes, BLOCK):
        k = first + tl.arange(0, BLOCK)
        z = load_logits(tensors.student, row * classes + k, k < classes) - top_z
        t = load_logits(tensors.teacher, row * classes + k, k < classes) - top_t
        x = (z - t) * inverse - mean
        total += tl.sum(spread_terms(tl.exp(z * inverse), tl.exp(t * inverse), x, outside), 0)
    return total


@triton.jit
def _store_long_gradient(
    tensors, numbers, row, rows, classes, inverse, top_z, top_t, mean, outside, spread, ce_weight,
    target_sum, from_exp, from_student, from_teacher, factor, BLOCK: tl.constexpr,
):  # fmt: skip
    """Read a row once more and store its gradient."""
    for first in range(0, classes, BLOCK):
        k = first + tl.arange(0, BLOCK)
        at = row * classes + k
        z = load_logits(tensors.student, at, k < classes) - top_z
        t = load_logits(tensors.teacher, at, k < classes) - top_t
        student, teacher = tl.exp(z * inverse), tl.exp(t * inverse)
        if is_centred(inverse):
            x = (z - t) * inverse - mean
            student = centred_difference(student, teacher, x, outside, spread)
        g = student * from_student - teacher * from_teacher
        if tensors.labels is not None or tensors.soft_labels is not None:
            target = _block_targets(tensors, numbers, row, k, rows, classes, BLOCK)
            weight = tl.where(target_sum == 0.0, 0.0, ce_weight)
            g = tl.exp(z) * from_exp + g - weight * target
        if tensors.upstream is not None:
            g *= factor
        tl.store(tensors.grad + at, g.to(tensors.grad.dtype.element_ty), mask=k < classes)


@triton.jit
def kd_loss_long_kernel(
    tensors, numbers, rows, classes, REDUCTION: tl.constexpr, BLOCK: tl.constexpr
):
    """One program: one row, read twice; sums follow the largest logit seen so far."""
    inverse, ce_weight, kd_weight = weights(tensors, numbers)
    row = tl.program_id(0).to(tl.int64)
    top_z, top_t, exp_sum, student_sum, teacher_sum, cross_sum, target_sum, target_logit = (
        _read_long_row(tensors, numbers, row, rows, classes, inverse, BLOCK)
    )
    mean, outside = centre(teacher_sum, cross_sum)
    spread = tl.full([], float("inf"), tl.float32)
    if is_centred(inverse):
        spread = (
            _long_spread(tensors, row, classes, inverse, top_z, top_t, mean, outside, BLOCK)
            / teacher_sum
        )
    count = 1.0
    if tensors.labels is not None or tensors.soft_labels is not None:
        count = count_rows(tensors, numbers.ignore, rows, REDUCTION == MEAN)
    if tensors.loss is not None:
        ce, kl = row_losses(
            exp_sum, student_sum, teacher_sum, cross_sum, spread, target_sum, target_logit
        )
        tl.store(tensors.ce + row, ce)
        tl.store(tensors.kl + row, kl)
        kl_weight = kd_weight / inverse
        if REDUCTION == NONE:
            tl.store(tensors.loss + row, ce_weight * ce + kl_weight * kl)
        else:
            ce, kl = ce.to(tl.float64), kl.to(tl.float64)
            reduce_losses(
                tensors, ce, kl, count, rows, ce_weight, kl_weight, REDUCTION == MEAN, 256
            )
    if tensors.grad is not None:
        if REDUCTION == MEAN:
            ce_weight *= rows / count
        factor = 1.0
        if tensors.upstream is not None:
            factor = upstream_factor(
                tensors.upstream, row, row < rows, numbers.scale, REDUCTION == NONE
            )
        of_student, of_teacher = divergence_scales(kd_weight, student_sum, teacher_sum, spread)
        _store_long_gradient(
            tensors, numbers, row, rows, classes, inverse, top_z, top_t, mean, outside, spread,
            ce_weight, target_sum, ce_weight * target_sum / exp_sum, of_student, of_teacher, factor,
            BLOCK,
        )  # fmt: skip


def programs(rows: int, classes: int) -> int:
    """Return how many programs take the rows."""
    return triton.cdiv(rows, _tile(classes)[0])


def _tile(classes: int) -> tuple[int, int]:
    """Return the rows of a program, and the classes of a row that it takes at a time."""
    if classes > LONGEST:
        return 1, LONG_BLOCK
    block = triton.next_power_of_2(classes)
    return max(1, TILE // block), block


def kd_loss(tensors: Tensors, numbers: Numbers, reduction: int) -> None:
    """Launch on contiguous tensors."""
    rows, classes = tensors.student.shape
    height, block = _tile(classes)
    grid, options = (programs(rows, classes),), {"enable_fp_fusion": False}
    arguments = tensors, numbers, rows, classes, reduction
    if classes > LONGEST:
        kd_loss_long_kernel[grid](*arguments, BLOCK=block, num_warps=8, **options)
        return
    warps = max(4, block // 512)
    kd_loss_tile_kernel[grid](*arguments, height, block, num_warps=warps, **options)

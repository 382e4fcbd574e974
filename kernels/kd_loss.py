"""Distillation loss and its gradient, one launch [KD]; float32 inside, whatever is stored."""

import triton
import triton.language as tl
from torch import Tensor

LONGEST = 8192  # classes of a row that a program holds; longer rows are read twice
TILE = 1024  # elements that short rows fill a program with
LONG_BLOCK = 2048
NONE, MEAN = 0, 1  # codes of reductions
LOWEST = tl.constexpr(-3.4028234663852886e38)  # below every logit but -inf


@triton.jit
def _setting(number, tensor):
    if tensor is not None:
        number = tl.load(tensor).to(tl.float32)
    return number


@triton.jit
def _settings(
    temperature, ce_weight, kd_weight, temperature_tensor, ce_weight_tensor, kd_weight_tensor
):
    """Return 1 / T, a, and b * T."""
    heat = _setting(temperature, temperature_tensor)
    return (
        1.0 / heat,
        _setting(ce_weight, ce_weight_tensor),
        _setting(kd_weight, kd_weight_tensor) * heat,
    )


@triton.jit
def _count(labels, counted, ignore, rows, MEAN: tl.constexpr):
    """Return the rows of the mean of the cross-entropy, at least 1."""
    count = tl.maximum(rows, 1).to(tl.int64)
    if MEAN and labels is not None:
        if counted is not None:
            count = tl.load(counted)
        else:
            found = tl.zeros([1024], tl.int32)
            for first in range(0, rows, 1024):
                at = first + tl.arange(0, 1024)
                found += tl.load(labels + at, mask=at < rows, other=ignore) != ignore
            count = tl.sum(found, 0).to(tl.int64)
        count = tl.maximum(count, 1)
    return count.to(tl.float32)


@triton.jit
def _weights(labels, weights, row, k, inside, rows, classes, smoothing, ignore):
    """Return the targets of classes ``k``: 0 for ignored rows, NaN for labels beyond the classes.

    ``row [R, 1]``, ``k [1, K]``, ``inside [R, K]``.
    """
    even = smoothing / classes
    if weights is not None:
        w = tl.load(weights + row * classes + k, mask=inside, other=0.0).to(tl.float32)
        w = w * (1.0 - smoothing) + even
    else:
        y = tl.load(labels + row, mask=row < rows, other=ignore)
        w = tl.where(k == y, 1.0 - smoothing, 0.0) + even
        w = tl.where((y < 0) | (y >= classes), float("nan"), w)
        w = tl.where(y == ignore, 0.0, w)
    return tl.where(inside, w, 0.0)


@triton.jit
def _weighted(w, z):
    return tl.where(w == 0.0, 0.0, w * z)


@triton.jit
def _cross(teacher, z, t, inverse):
    return tl.where(teacher == 0.0, 0.0, teacher * ((t - z) * inverse))


@triton.jit
def _row(hard, soft, teacher, cross, weight, logit):
    """Return the CE and KL of rows from their sums."""
    kl = cross / teacher + (tl.log(soft) - tl.log(teacher))
    return tl.where(weight == 0.0, 0.0, weight * tl.log(hard) - logit), kl


@triton.jit
def _load(x, at, inside):
    return tl.load(x + at, mask=inside, other=-float("inf")).to(tl.float32)


@triton.jit
def _factor(upstream, row, inside, scale, EACH: tl.constexpr):
    """Return what multiplies the gradient of a row; ``scale`` is 1 / B for a mean."""
    if EACH:
        return tl.load(upstream + row, mask=inside, other=0.0).to(tl.float32)
    return tl.where(inside, tl.load(upstream).to(tl.float32) * scale, 0.0)


@triton.jit
def _reduce(
    ce, kl, row_sums, counter, loss, parts, count, rows, a, bt2, MEAN: tl.constexpr,
    FOLD: tl.constexpr,
):  # fmt: skip
    """Store this program's sums; the last program to come adds all up, always in one order."""
    own, programs = tl.program_id(0), tl.num_programs(0)
    tl.store(row_sums + 2 * own, ce)
    tl.store(row_sums + 2 * own + 1, kl)
    tl.debug_barrier()
    if tl.atomic_add(counter, 1, sem="acq_rel") == programs - 1:
        ces, kls = tl.zeros([FOLD], tl.float64), tl.zeros([FOLD], tl.float64)
        for first in range(0, programs, FOLD):
            i = first + tl.arange(0, FOLD)
            found = row_sums + 2 * i
            ces += tl.load(found, mask=i < programs, other=0.0, cache_modifier=".cg")
            kls += tl.load(found + 1, mask=i < programs, other=0.0, cache_modifier=".cg")
        mean_ce, mean_kl = tl.sum(ces, 0).to(tl.float32), tl.sum(kls, 0).to(tl.float32)
        if MEAN:
            mean_ce /= count
            mean_kl /= rows
        tl.store(parts, mean_ce)
        tl.store(parts + 1, mean_kl)
        tl.store(loss, a * mean_ce + bt2 * mean_kl)
        tl.store(counter, 0)  # as the next launch wants it


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
    inverse, a, bt = _settings(
        temperature, ce_weight, kd_weight, temperature_tensor, ce_weight_tensor, kd_weight_tensor
    )
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    k = tl.arange(0, BLOCK)[None, :]
    own = row < rows
    inside = own[:, None] & (k < classes)
    at = row[:, None] * classes + k
    z, t = _load(student, at, inside), _load(teacher, at, inside)
    z -= tl.where(own, tl.max(z, 1), 0.0)[:, None]
    t -= tl.where(own, tl.max(t, 1), 0.0)[:, None]
    e, f = tl.exp(z * inverse), tl.exp(t * inverse)
    cross = tl.sum(_cross(f, z, t, inverse), 1)
    soft, teach = tl.sum(e, 1), tl.sum(f, 1)
    hard, weight, logit = tl.full([ROWS], 1.0, tl.float32), 0.0 * soft, 0.0 * soft
    count = 1.0
    if labels is not None or weights is not None:
        count = _count(labels, counted, ignore, rows, REDUCTION == 1)
        w = _weights(labels, weights, row[:, None], k, inside, rows, classes, smoothing, ignore)
        h = tl.exp(z)
        hard, weight, logit = tl.sum(h, 1), tl.sum(w, 1), tl.sum(_weighted(w, z), 1)
    found_ce, found_kl = _row(hard, soft, teach, cross, weight, logit)
    if loss is not None:
        tl.store(ce + row, found_ce, mask=own)
        tl.store(kl + row, found_kl, mask=own)
        bt2 = bt / inverse
        if REDUCTION == 0:
            tl.store(loss + row, a * found_ce + bt2 * found_kl, mask=own)
        else:
            ces = tl.sum(tl.where(own, found_ce, 0.0).to(tl.float64), 0)
            kls = tl.sum(tl.where(own, found_kl, 0.0).to(tl.float64), 0)
            _reduce(
                ces, kls, row_sums, counter, loss, parts, count, rows, a, bt2,
                REDUCTION == 1, 256,
            )  # fmt: skip
    if grad is not None:
        g = e * (bt / soft)[:, None] - f * (bt / teach)[:, None]
        if labels is not None or weights is not None:
            share = a
            if REDUCTION == 1:
                share *= rows / count
            target = tl.where(weight == 0.0, 0.0, share)[:, None]
            g = h * (share * weight / hard)[:, None] + g - target * w
        if upstream is not None:
            g *= _factor(upstream, row, own, scale, REDUCTION == 0)[:, None]
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
    inverse, a, bt = _settings(
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
            _load(student, row * classes + k, k < classes),
            _load(teacher, row * classes + k, k < classes),
        )
        new_z, new_t = tl.maximum(top_z, tl.max(z, 0)), tl.maximum(top_t, tl.max(t, 0))
        down_z, down_t = top_z - new_z, top_t - new_t
        top_z, top_t = new_z, new_t
        z, t = z - top_z, t - top_t
        shift = tl.where(teach == 0.0, 0.0, teach * ((down_t - down_z) * inverse))
        f = tl.exp(t * inverse)
        lower = tl.exp(down_t * inverse)
        cross = (cross + shift) * lower + tl.sum(_cross(f, z, t, inverse), 0)
        teach = teach * lower + tl.sum(f, 0)
        soft = soft * tl.exp(down_z * inverse) + tl.sum(tl.exp(z * inverse), 0)
        hard = hard * tl.exp(down_z) + tl.sum(tl.exp(z), 0)
        if labels is not None or weights is not None:
            logit += tl.where(weight == 0.0, 0.0, weight * down_z)
            w = _weights(
                labels, weights, row + tl.zeros([1, 1], tl.int64), k[None, :],
                (k < classes)[None, :], rows, classes, smoothing, ignore,
            )  # fmt: skip
            w = tl.reshape(w, [BLOCK])
            weight += tl.sum(w, 0)
            logit += tl.sum(_weighted(w, z), 0)
    found_ce, found_kl = _row(hard, soft, teach, cross, weight, logit)
    count = 1.0
    if labels is not None or weights is not None:
        count = _count(labels, counted, ignore, rows, REDUCTION == 1)
    if loss is not None:
        tl.store(ce + row, found_ce)
        tl.store(kl + row, found_kl)
        bt2 = bt / inverse
        if REDUCTION == 0:
            tl.store(loss + row, a * found_ce + bt2 * found_kl)
        else:
            _reduce(
                found_ce.to(tl.float64), found_kl.to(tl.float64), row_sums, counter, loss, parts,
                count, rows, a, bt2, REDUCTION == 1, 256,
            )  # fmt: skip
    if grad is not None:
        share = a
        if REDUCTION == 1:
            share *= rows / count
        factor = 1.0
        if upstream is not None:
            factor = _factor(upstream, row, row < rows, scale, REDUCTION == 0)
        from_hard, from_soft, from_teacher = share * weight / hard, bt / soft, bt / teach
        for first in range(0, classes, BLOCK):
            k = first + lane
            at = row * classes + k
            z, t = _load(student, at, k < classes) - top_z, _load(teacher, at, k < classes) - top_t
            g = tl.exp(z * inverse) * from_soft - tl.exp(t * inverse) * from_teacher
            if labels is not None or weights is not None:
                w = _weights(
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

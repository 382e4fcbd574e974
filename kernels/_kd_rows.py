"""What the rows of a distillation loss have in common; float32 inside, whatever is stored."""

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Tensors(NamedTuple):
    """What a launch reads and writes, contiguous; None for what is not there."""

    student: Any  # [B, C]
    teacher: Any  # [B, C]
    labels: Any  # int64 [B], or None
    soft_labels: Any  # [B, C], or None
    temperature: Any  # [], or None: then the number
    ce_weight: Any  # [], or None
    kd_weight: Any  # [], or None
    counted: Any  # int64 []: rows that are not ignored, None to count them here
    upstream: Any  # [] or [B], None in the forward pass
    row_sums: Any  # fp64 [programs, 2]
    counter: Any  # int32 [], 0
    loss: Any = None  # [] or [B], None in the backward pass
    reduced: Any = None  # [2]: CE and KL
    ce: Any = None  # [B]
    kl: Any = None  # [B]
    grad: Any = None  # [B, C], or None


class Numbers(NamedTuple):
    """Scalars of a launch."""

    temperature: float
    ce_weight: float
    kd_weight: float
    smoothing: float
    scale: float  # of the gradient: 1 / B for a mean
    ignore: int


@triton.jit
def _value(number, tensor):
    if tensor is not None:
        number = tl.load(tensor).to(tl.float32)
    return number


@triton.jit
def weights(tensors, numbers):
    """Return 1 / T, ``ce_weight`` and ``kd_weight`` * T."""
    temperature = _value(numbers.temperature, tensors.temperature)
    ce_weight = _value(numbers.ce_weight, tensors.ce_weight)
    return 1.0 / temperature, ce_weight, _value(numbers.kd_weight, tensors.kd_weight) * temperature


@triton.jit
def count_rows(tensors, ignore, rows, MEAN: tl.constexpr):
    """Return the rows of the mean of the cross-entropy, at least 1."""
    count = tl.maximum(rows, 1).to(tl.int64)
    if MEAN and tensors.labels is not None:
        if tensors.counted is not None:
            count = tl.load(tensors.counted)
        else:
            found = tl.zeros([1024], tl.int32)
            for first in range(0, rows, 1024):
                at = first + tl.arange(0, 1024)
                found += tl.load(tensors.labels + at, mask=at < rows, other=ignore) != ignore
            count = tl.sum(found, 0).to(tl.int64)
        count = tl.maximum(count, 1)
    return count.to(tl.float32)


@triton.jit
def targets(tensors, numbers, row, k, inside, rows, classes):
    """Return the targets of classes ``k``: 0 for ignored rows, NaN for labels beyond the classes.

    ``row [R, 1]``, ``k [1, K]``, ``inside [R, K]``.
    """
    ignore, uniform = numbers.ignore, numbers.smoothing / classes
    if tensors.soft_labels is not None:
        given = tl.load(tensors.soft_labels + row * classes + k, mask=inside, other=0.0)
        target = given.to(tl.float32) * (1.0 - numbers.smoothing) + uniform
    else:
        y = tl.load(tensors.labels + row, mask=row < rows, other=ignore)
        target = tl.where(k == y, 1.0 - numbers.smoothing, 0.0) + uniform
        target = tl.where((y < 0) | (y >= classes), float("nan"), target)
        target = tl.where(y == ignore, 0.0, target)
    return tl.where(inside, target, 0.0)


@triton.jit
def weighted(target, z):
    """Return the product, 0 where the target is 0 and the logit infinite."""
    return tl.where(target == 0.0, 0.0, target * z)


@triton.jit
def cross_terms(teacher, z, t, inverse):
    """Return the terms of the KL without their logarithms: teacher * (t - z) / T."""
    return tl.where(teacher == 0.0, 0.0, teacher * ((t - z) * inverse))


@triton.jit
def is_centred(inverse):
    """Return whether T is so high that a KL may be far below the logarithms it is made of."""
    return inverse <= 0.03125


@triton.jit
def excess(x):
    """Return e^x - 1 - x, by a series where the difference would lose digits."""
    series = 1.0
    for n in tl.static_range(12, 2, -1):
        series = series * (x * (1.0 / n)) + 1.0
    return tl.where(tl.abs(x) <= 1.0, 0.5 * x * x * series, (tl.exp(x) - 1.0) - x)


@triton.jit
def centre(teacher_sum, cross_sum):
    """Return the mean of (z - t) / T under the teacher and its e^-mean, as ``KDCentre`` does."""
    mean = -cross_sum / teacher_sum
    return mean, tl.where(tl.abs(mean) < 80.0, tl.exp(-mean), float("inf"))


@triton.jit
def spread_terms(student, teacher, x, outside):
    """Return the terms of a spread; ``x`` is (z - t) / T from its mean."""
    return tl.where(teacher == 0.0, student * outside, teacher * excess(x))


@triton.jit
def centred_difference(student, teacher, x, outside, spread):
    """Return what stands for e^(z/T) in the gradient of rows whose spread is small."""
    difference = teacher * ((x + excess(x)) - spread)
    difference = tl.where(teacher == 0.0, student * outside, difference)
    return tl.where(spread < 0.5, difference, student)


@triton.jit
def divergence_scales(kd_weight, student_sum, teacher_sum, spread):
    """Return what multiplies e^(z/T), or what stands for it, and e^(t/T) in the gradient."""
    small = spread < 0.5
    total = tl.where(small, teacher_sum * (1.0 + spread), student_sum)
    return kd_weight / total, tl.where(small, 0.0, kd_weight / teacher_sum)


@triton.jit
def row_losses(exp_sum, student_sum, teacher_sum, cross_sum, spread, target_sum, target_logit):
    """Return the CE and KL of rows.

    ``exp_sum`` is the sum of e^z; ``student_sum``, ``teacher_sum`` are those of e^(z/T), e^(t/T).
    """
    kl = cross_sum / teacher_sum + (tl.log(student_sum) - tl.log(teacher_sum))
    one_more = 1.0 + spread
    log1p = tl.log(one_more) + (spread - (one_more - 1.0)) / one_more
    kl = tl.where(spread < 0.5, log1p, kl)
    return tl.where(target_sum == 0.0, 0.0, target_sum * tl.log(exp_sum) - target_logit), kl


@triton.jit
def load_logits(x, at, inside):
    """Return logits as float32, -inf beyond the classes."""
    return tl.load(x + at, mask=inside, other=-float("inf")).to(tl.float32)


@triton.jit
def upstream_factor(upstream, row, inside, scale, PER_ROW: tl.constexpr):
    """Return what multiplies the gradient of a row; ``scale`` is 1 / B for a mean."""
    if PER_ROW:
        return tl.load(upstream + row, mask=inside, other=0.0).to(tl.float32)
    return tl.where(inside, tl.load(upstream).to(tl.float32) * scale, 0.0)


@triton.jit
def reduce_losses(
    tensors, ce, kl, count, rows, ce_weight, kl_weight, MEAN: tl.constexpr, BLOCK: tl.constexpr
):
    """Store this program's sums; the last program to come adds all up, always in one order."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    row_sums, counter = tensors.row_sums, tensors.counter
    tl.store(row_sums + 2 * program, ce)
    tl.store(row_sums + 2 * program + 1, kl)
    tl.debug_barrier()
    if tl.atomic_add(counter, 1, sem="acq_rel") == programs - 1:
        ces, kls = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
        for first in range(0, programs, BLOCK):
            i = first + tl.arange(0, BLOCK)
            found = row_sums + 2 * i
            ces += tl.load(found, mask=i < programs, other=0.0, cache_modifier=".cg")
            kls += tl.load(found + 1, mask=i < programs, other=0.0, cache_modifier=".cg")
        mean_ce, mean_kl = tl.sum(ces, 0).to(tl.float32), tl.sum(kls, 0).to(tl.float32)
        if MEAN:
            mean_ce /= count
            mean_kl /= rows
        tl.store(tensors.reduced, mean_ce)
        tl.store(tensors.reduced + 1, mean_kl)
        tl.store(tensors.loss, ce_weight * mean_ce + kl_weight * mean_kl)
        tl.store(counter, 0)  # as the next launch wants it

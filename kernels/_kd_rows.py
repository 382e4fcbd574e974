"""What the rows of a distillation loss have in common; float32 inside, whatever is stored."""

import triton
import triton.language as tl


@triton.jit
def _setting(number, tensor):
    if tensor is not None:
        number = tl.load(tensor).to(tl.float32)
    return number


@triton.jit
def settings(
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
def count_rows(labels, counted, ignore, rows, MEAN: tl.constexpr):
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
def targets(labels, weights, row, k, inside, rows, classes, smoothing, ignore):
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
def weighted(w, z):
    return tl.where(w == 0.0, 0.0, w * z)


@triton.jit
def cross_terms(teacher, z, t, inverse):
    return tl.where(teacher == 0.0, 0.0, teacher * ((t - z) * inverse))


@triton.jit
def row_losses(hard, soft, teacher, cross, weight, logit):
    """Return the CE and KL of rows from their sums."""
    kl = cross / teacher + (tl.log(soft) - tl.log(teacher))
    return tl.where(weight == 0.0, 0.0, weight * tl.log(hard) - logit), kl


@triton.jit
def load_logits(x, at, inside):
    return tl.load(x + at, mask=inside, other=-float("inf")).to(tl.float32)


@triton.jit
def upstream_factor(upstream, row, inside, scale, EACH: tl.constexpr):
    """Return what multiplies the gradient of a row; ``scale`` is 1 / B for a mean."""
    if EACH:
        return tl.load(upstream + row, mask=inside, other=0.0).to(tl.float32)
    return tl.where(inside, tl.load(upstream).to(tl.float32) * scale, 0.0)


@triton.jit
def reduce_losses(
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

"""Sums behind CMI, and its divergence [MCMI]; float64 inside, whatever is stored.

One program takes ROWS rows, BLOCK classes at a time. Sums of rows are integers, so they add up to
the same bits in any order; a row adds nothing to a class whose share of it is below 2^-73.
"""

import triton
import triton.language as tl
from torch import Tensor

from ._maths import INTEGERS, exp64, log1p64, log64

EXTRA = tl.constexpr(5)  # mass, entropy, cross-entropy, correct, invalid
EXTRA_BLOCK = tl.constexpr(8)
LARGEST_CROSS_ENTROPY = tl.constexpr(4096.0)
WIDEST, ELEMENTS = 1024, 512  # classes of a tile; elements, where several rows fit
# without a limit the compiler aims at fewer registers and spills some
OPTIONS = {"num_warps": 4, "maxnreg": 168, "enable_fp_fusion": False}


@triton.jit
def _rows(rows, ROWS: tl.constexpr):
    """Return this program's rows, and which of them there are."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    return row, row < rows


@triton.jit
def _tile(logits, row, alive, classes, first, BLOCK: tl.constexpr):
    """Return logits from class ``first`` on, -inf where there are none, and their classes."""
    k = first + tl.arange(0, BLOCK)[None, :]
    inside = alive[:, None] & (k < classes)
    z = tl.load(logits + row[:, None] * classes + k, mask=inside, other=float("-inf"))
    return tl.where(alive[:, None], z.to(tl.float64), 0.0), k


@triton.jit
def _part(whole, logits, row, alive, classes, first, WHOLE: tl.constexpr, BLOCK: tl.constexpr):
    """Return the tile from class ``first`` on: ``whole`` rows are at hand already."""
    if WHOLE:
        z, k = whole, tl.arange(0, BLOCK)[None, :]
    else:
        z, k = _tile(logits, row, alive, classes, first, BLOCK)
    return z, k


@triton.jit
def _summary(logits, whole, row, alive, classes, BLOCK: tl.constexpr, WHOLE: tl.constexpr):
    """Return peak, its first class, 1 / total weight, its logarithm and the entropy of rows.

    ``whole`` is the tile of whole rows if WHOLE, so that they are read once.
    """
    peak = tl.max(whole, 1)
    if not WHOLE:
        for first in range(BLOCK, classes, BLOCK):
            peak = tl.maximum(peak, tl.max(_tile(logits, row, alive, classes, first, BLOCK)[0], 1))
    rest, terms = tl.zeros_like(peak), tl.zeros_like(peak)
    at, peaks = tl.zeros_like(row) + classes, tl.zeros_like(peak)
    for first in range(0, classes, BLOCK):
        z, k = _part(whole, logits, row, alive, classes, first, WHOLE, BLOCK)
        shifted, highest = z - peak[:, None], (z == peak[:, None]) & (k < classes)
        weight = exp64(shifted)
        terms += tl.sum(tl.where(weight == 0, 0.0, weight * shifted), 1)
        rest += tl.sum(tl.where(highest, 0.0, weight), 1)
        peaks += tl.sum(highest.to(tl.float64), 1)
        at = tl.minimum(at, tl.min(tl.where(highest, k, classes), 1))
    rest += peaks - 1.0
    reciprocal, log_total = 1.0 / (1.0 + rest), log1p64(rest)
    return peak, at, reciprocal, log_total, log_total - terms * reciprocal


@triton.jit
def _add(address, value, mask):
    """Add a number as integers in units of 2^-36 and 2^-72; zeros are left out."""
    scaled = value * 2.0**36
    high = scaled.to(tl.int64)
    high -= (high.to(tl.float64) > scaled).to(tl.int64)  # down, not towards zero
    low = (((scaled - high.to(tl.float64)) * 2.0**36 + INTEGERS) - INTEGERS).to(tl.int64)
    tl.atomic_add(address, high, mask=mask & (high != 0), sem="relaxed")
    tl.atomic_add(address + 1, low, mask=mask & (low != 0), sem="relaxed")


@triton.jit
def _extra(label, at, entropy, cross_entropy, valid):
    """Return what rows add to a class beside their probabilities, ``[ROWS, EXTRA_BLOCK]``."""
    column = tl.arange(0, EXTRA_BLOCK)[None, :]
    value = tl.where(column == 0, 1.0, tl.where(column == 1, entropy[:, None], 0.0))
    value = tl.where(column == 2, cross_entropy[:, None], value)
    value = tl.where(column == 3, (at == label).to(tl.float64)[:, None], value)
    return tl.where(valid[:, None], value, (column == 4).to(tl.float64)), column


@triton.jit
def _add_class(
    state, logits, whole, row, counted, valid, part, label, share, peak, at, reciprocal,
    log_total, entropy, classes, WHOLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add the ``counted`` rows, each times its share, to the sums of each one's label."""
    sums = state + (part * classes + label) * ((classes + EXTRA) * 2)
    own = tl.load(logits + row * classes + label, mask=counted, other=0.0).to(tl.float64)
    surprise = log_total - (own - peak)
    surprise = tl.where(surprise > LARGEST_CROSS_ENTROPY, LARGEST_CROSS_ENTROPY, surprise)
    extra, column = _extra(label, at, entropy, surprise, valid)
    place = sums[:, None] + 2 * (classes + column)
    _add(place, extra * share[:, None], counted[:, None] & (column < EXTRA))
    for first in range(0, classes, BLOCK):
        z, k = _part(whole, logits, row, counted, classes, first, WHOLE, BLOCK)
        p = exp64(z - peak[:, None]) * reciprocal[:, None]
        inside = (counted & valid)[:, None] & (k < classes)
        _add(sums[:, None] + 2 * k, p * share[:, None], inside)


@triton.jit
def cmi_update_rows_kernel(
    state,  # [groups, C, C + 5, 2]
    logits,  # [B, C]
    hard,  # [B], or None
    soft,  # [B, C], or None
    weight,  # [B], or None
    group_of,  # [B], or None
    rows,
    classes,
    groups,
    SOFT: tl.constexpr,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add ROWS rows to the sums of their classes; a label out of range makes a row invalid."""
    row, alive = _rows(rows, ROWS)
    whole, _ = _tile(logits, row, alive, classes, 0, BLOCK)
    peak, at, reciprocal, log_total, entropy = _summary(
        logits, whole, row, alive, classes, BLOCK, WHOLE
    )
    part, mass = tl.zeros_like(row), tl.zeros_like(peak) + 1.0
    if group_of is not None:
        part = tl.load(group_of + row, mask=alive, other=0)
    if weight is not None:
        mass = tl.load(weight + row, mask=alive, other=0.0)
    known = (part >= 0) & (part < groups)
    part, valid = tl.where(known, part, 0), known & (entropy == entropy)
    if SOFT:
        for y in range(classes):
            share = mass * tl.load(soft + row * classes + y, mask=alive, other=0.0)
            counted = alive & (share != 0)
            if tl.max(counted.to(tl.int32), 0) > 0:
                _add_class(
                    state, logits, whole, row, counted, valid, part, tl.zeros_like(row) + y, share,
                    peak, at, reciprocal, log_total, entropy, classes, WHOLE, BLOCK,
                )  # fmt: skip
    else:
        label = tl.load(hard + row, mask=alive, other=0)
        known = (label >= 0) & (label < classes)
        _add_class(
            state, logits, whole, row, alive, valid & known, part, tl.where(known, label, 0), mass,
            peak, at, reciprocal, log_total, entropy, classes, WHOLE, BLOCK,
        )  # fmt: skip


@triton.jit
def _centroid(centroids, alive, label, classes, stride, first, BLOCK: tl.constexpr):
    """Return the centroids of the rows' labels from class ``first`` on, 0 beyond the classes."""
    k = first + tl.arange(0, BLOCK)[None, :]
    inside = alive[:, None] & (k < classes)
    return tl.load(centroids + label[:, None] * stride + k, mask=inside, other=0.0)


@triton.jit
def _reference(
    soft, centroids, row, alive, label, classes, stride, first,
    SOFT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Return the rows' reference distributions from class ``first`` on, 0 beyond the classes."""
    if SOFT:
        k = first + tl.arange(0, BLOCK)[None, :]
        mix = tl.zeros([ROWS, BLOCK], tl.float64)
        for y in range(classes):
            share = tl.load(soft + row * classes + y, mask=alive, other=0.0)
            if tl.max((share != 0).to(tl.int32), 0) > 0:
                q = tl.load(centroids + y * stride + k, mask=k < classes, other=0.0)
                mix += share[:, None] * q
    else:
        mix = _centroid(centroids, alive, label, classes, stride, first, BLOCK)
    return mix


@triton.jit
def _peak(centroids, alive, label, classes, stride, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Return the largest share of a centroid and its ln: 1 - rest would lose a small rest."""
    # reduced after the loops: Triton 3.8 fails on a reduction in a loop that is used twice
    most, others = tl.zeros([ROWS, BLOCK], tl.float64), tl.zeros([ROWS, BLOCK], tl.float64)
    for first in range(0, classes, BLOCK):
        q = _centroid(centroids, alive, label, classes, stride, first, BLOCK)
        most = tl.maximum(most, q)
    peak = tl.max(most, 1)
    for first in range(0, classes, BLOCK):
        q = _centroid(centroids, alive, label, classes, stride, first, BLOCK)
        others += tl.where(q == peak[:, None], 0.0, q)
    rest = tl.sum(others, 1)
    normalised = tl.abs(peak + rest - 1.0) < 1e-9
    return peak, tl.where(normalised & (rest < peak), log1p64(-rest), log64(peak))


@triton.jit
def _shares_and_gaps(
    logits, soft, centroids, row, alive, label, most, log_most, peak, reciprocal, log_total,
    classes, stride, first, SOFT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Return p and ln p - ln r from class ``first`` on; the gap is 0 where p is."""
    z, _ = _tile(logits, row, alive, classes, first, BLOCK)
    r = _reference(soft, centroids, row, alive, label, classes, stride, first, SOFT, ROWS, BLOCK)
    log_r = log64(r)
    if not SOFT:
        log_r = tl.where(r == most[:, None], log_most[:, None], log_r)
    shifted = z - peak[:, None]
    p = exp64(shifted) * reciprocal[:, None]
    return p, tl.where(p == 0, 0.0, (shifted - log_total[:, None]) - log_r)


@triton.jit
def _divergence(
    logits, hard, soft, centroids, row, alive, classes, stride,
    SOFT: tl.constexpr, WHOLE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Return the divergence of rows and what :func:`_shares_and_gaps` needs to know of them."""
    whole, _ = _tile(logits, row, alive, classes, 0, BLOCK)
    peak, _, reciprocal, log_total, _ = _summary(logits, whole, row, alive, classes, BLOCK, WHOLE)
    label, most, log_most = tl.zeros_like(row), tl.zeros_like(peak), tl.zeros_like(peak)
    if not SOFT:
        label = tl.load(hard + row, mask=alive, other=0)
        known = (label >= 0) & (label < classes)
        label = tl.where(known, label, 0)
        log_total = tl.where(known, log_total, float("nan"))
        most, log_most = _peak(centroids, alive, label, classes, stride, ROWS, BLOCK)
    result = tl.zeros_like(peak)
    for first in range(0, classes, BLOCK):
        p, gap = _shares_and_gaps(
            logits, soft, centroids, row, alive, label, most, log_most, peak, reciprocal, log_total,
            classes, stride, first, SOFT, ROWS, BLOCK,
        )  # fmt: skip
        result += tl.sum(p * gap, 1)
    return result, label, most, log_most, peak, reciprocal, log_total


@triton.jit
def cmi_divergence_rows_kernel(
    logits,  # [B, C]
    hard,  # [B], or None
    soft,  # [B, C], or None
    centroids,  # [C, C]
    divergence,  # [B]
    rows,
    classes,
    stride,
    SOFT: tl.constexpr,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the divergence of ROWS rows to their references; NaN for a label out of range."""
    row, alive = _rows(rows, ROWS)
    result, _, _, _, _, _, _ = _divergence(
        logits, hard, soft, centroids, row, alive, classes, stride, SOFT, WHOLE, ROWS, BLOCK
    )
    tl.store(divergence + row, result, mask=alive)


@triton.jit
def cmi_divergence_backward_rows_kernel(
    row_grad,  # [B]
    logits,  # [B, C]
    hard,  # [B], or None
    soft,  # [B, C], or None
    centroids,  # [C, C]
    dx,  # [B, C]
    rows,
    classes,
    stride,
    SOFT: tl.constexpr,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write dL/dz = g * p * (gap - divergence) of ROWS rows."""
    row, alive = _rows(rows, ROWS)
    result, label, most, log_most, peak, reciprocal, log_total = _divergence(
        logits, hard, soft, centroids, row, alive, classes, stride, SOFT, WHOLE, ROWS, BLOCK
    )
    g = tl.load(row_grad + row, mask=alive, other=0.0)
    for first in range(0, classes, BLOCK):
        p, gap = _shares_and_gaps(
            logits, soft, centroids, row, alive, label, most, log_most, peak, reciprocal, log_total,
            classes, stride, first, SOFT, ROWS, BLOCK,
        )  # fmt: skip
        value = (g[:, None] * p * (gap - result[:, None])).to(tl.float32)
        k = first + tl.arange(0, BLOCK)[None, :]
        inside = alive[:, None] & (k < classes)
        tl.store(dx + row[:, None] * classes + k, value.to(dx.dtype.element_ty), mask=inside)


def _plan(logits: Tensor) -> dict[str, int]:
    """Return the tile: whole rows up to WIDEST classes; bits depend on the classes alone."""
    classes = logits.shape[1]
    block = min(WIDEST, triton.next_power_of_2(classes))
    return {"WHOLE": classes <= block, "ROWS": max(1, ELEMENTS // block), "BLOCK": block}


def _labels(labels: Tensor) -> tuple[Tensor | None, Tensor | None]:
    return (None, labels) if labels.is_floating_point() else (labels, None)


def cmi_update(
    state: Tensor, logits: Tensor, labels: Tensor, weight: Tensor | None, group: Tensor | None
) -> None:
    """Add contiguous ``logits`` to ``state``; soft labels and weights are float64."""
    rows, classes = logits.shape
    hard, soft = _labels(labels)
    plan = _plan(logits)
    cmi_update_rows_kernel[(triton.cdiv(rows, plan["ROWS"]),)](
        state, logits, hard, soft, weight, group, rows, classes, state.shape[0],
        SOFT=soft is not None, **plan, **OPTIONS,
    )  # fmt: skip


def cmi_divergence(logits: Tensor, labels: Tensor, centroids: Tensor, divergence: Tensor) -> None:
    """Write float64 ``divergence`` of contiguous ``logits``; rows of ``centroids`` may be apart."""
    rows, classes = logits.shape
    hard, soft = _labels(labels)
    plan = _plan(logits)
    cmi_divergence_rows_kernel[(triton.cdiv(rows, plan["ROWS"]),)](
        logits, hard, soft, centroids, divergence, rows, classes, centroids.stride(0),
        SOFT=soft is not None, **plan, **OPTIONS,
    )  # fmt: skip


def cmi_divergence_backward(
    row_grad: Tensor, logits: Tensor, labels: Tensor, centroids: Tensor, dx: Tensor
) -> None:
    """Write ``dx`` of contiguous ``logits`` for the float64 gradient ``row_grad`` of each row."""
    rows, classes = logits.shape
    hard, soft = _labels(labels)
    plan = _plan(logits)
    cmi_divergence_backward_rows_kernel[(triton.cdiv(rows, plan["ROWS"]),)](
        row_grad, logits, hard, soft, centroids, dx, rows, classes, centroids.stride(0),
        SOFT=soft is not None, **plan, **OPTIONS,
    )  # fmt: skip

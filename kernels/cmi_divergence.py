"""Divergence of predictions from centroids, and its gradient [MCMI]."""

import triton
import triton.language as tl
from torch import Tensor

from ._cmi_rows import OPTIONS, plan_for, program_rows, split_labels, summary, tile
from ._maths import exp64, log1p64, log64


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
            weight = tl.load(soft + row * classes + y, mask=alive, other=0.0)
            if tl.max((weight != 0).to(tl.int32), 0) > 0:
                q = tl.load(centroids + y * stride + k, mask=k < classes, other=0.0)
                mix += weight[:, None] * q
    else:
        mix = _centroid(centroids, alive, label, classes, stride, first, BLOCK)
    return mix


@triton.jit
def _peak(centroids, alive, label, classes, stride, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Return a centroid's largest probability and its ln; 1 - rest would lose a small rest."""
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
def _probabilities_and_gaps(
    logits, soft, centroids, row, alive, label, most, log_most, peak, reciprocal, log_total,
    classes, stride, first, SOFT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Return p and ln p - ln r from class ``first`` on; the gap is 0 where p is."""
    z, _ = tile(logits, row, alive, classes, first, BLOCK)
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
    """Return the divergence of rows and what :func:`_probabilities_and_gaps` needs."""
    whole, _ = tile(logits, row, alive, classes, 0, BLOCK)
    peak, _, reciprocal, log_total, _ = summary(logits, whole, row, alive, classes, BLOCK, WHOLE)
    label, most, log_most = tl.zeros_like(row), tl.zeros_like(peak), tl.zeros_like(peak)
    if not SOFT:
        label = tl.load(hard + row, mask=alive, other=0)
        known = (label >= 0) & (label < classes)
        label = tl.where(known, label, 0)
        log_total = tl.where(known, log_total, float("nan"))
        most, log_most = _peak(centroids, alive, label, classes, stride, ROWS, BLOCK)
    result = tl.zeros_like(peak)
    for first in range(0, classes, BLOCK):
        p, gap = _probabilities_and_gaps(
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
    row, alive = program_rows(rows, ROWS)
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
    row, alive = program_rows(rows, ROWS)
    result, label, most, log_most, peak, reciprocal, log_total = _divergence(
        logits, hard, soft, centroids, row, alive, classes, stride, SOFT, WHOLE, ROWS, BLOCK
    )
    g = tl.load(row_grad + row, mask=alive, other=0.0)
    for first in range(0, classes, BLOCK):
        p, gap = _probabilities_and_gaps(
            logits, soft, centroids, row, alive, label, most, log_most, peak, reciprocal, log_total,
            classes, stride, first, SOFT, ROWS, BLOCK,
        )  # fmt: skip
        value = (g[:, None] * p * (gap - result[:, None])).to(tl.float32)
        k = first + tl.arange(0, BLOCK)[None, :]
        inside = alive[:, None] & (k < classes)
        tl.store(dx + row[:, None] * classes + k, value.to(dx.dtype.element_ty), mask=inside)


def cmi_divergence(logits: Tensor, labels: Tensor, centroids: Tensor, divergence: Tensor) -> None:
    """Write float64 ``divergence`` of contiguous ``logits``; rows of ``centroids`` may be apart."""
    rows, classes = logits.shape
    hard, soft = split_labels(labels)
    plan = plan_for(logits)
    cmi_divergence_rows_kernel[(triton.cdiv(rows, plan["ROWS"]),)](
        logits, hard, soft, centroids, divergence, rows, classes, centroids.stride(0),
        SOFT=soft is not None, **plan, **OPTIONS,
    )  # fmt: skip


def cmi_divergence_backward(
    row_grad: Tensor, logits: Tensor, labels: Tensor, centroids: Tensor, dx: Tensor
) -> None:
    """Write ``dx`` of contiguous ``logits`` for the float64 gradient ``row_grad`` of each row."""
    rows, classes = logits.shape
    hard, soft = split_labels(labels)
    plan = plan_for(logits)
    cmi_divergence_backward_rows_kernel[(triton.cdiv(rows, plan["ROWS"]),)](
        row_grad, logits, hard, soft, centroids, dx, rows, classes, centroids.stride(0),
        SOFT=soft is not None, **plan, **OPTIONS,
    )  # fmt: skip

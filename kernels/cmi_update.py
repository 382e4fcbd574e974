"""Sums behind CMI [MCMI].

Sums of rows are integers, so they add up to the same bits in any order; a row adds nothing to a
class whose probability times the row's weight is below 2^-73.
"""

import triton
import triton.language as tl
from torch import Tensor

from ._cmi_rows import OPTIONS, plan_for, program_rows, split_labels, summary, tile, tile_at
from ._maths import INTEGERS, exp64

EXTRA = tl.constexpr(5)  # mass, entropy, cross-entropy, correct, invalid
EXTRA_BLOCK = tl.constexpr(8)
LARGEST_CROSS_ENTROPY = tl.constexpr(4096.0)


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
    state, logits, whole, row, counted, valid, group, label, weight, peak, at, reciprocal,
    log_total, entropy, classes, WHOLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add the ``counted`` rows, each times its weight, to the sums of each one's label."""
    sums = state + (group * classes + label) * ((classes + EXTRA) * 2)
    logit = tl.load(logits + row * classes + label, mask=counted, other=0.0).to(tl.float64)
    cross_entropy = log_total - (logit - peak)
    too_large = cross_entropy > LARGEST_CROSS_ENTROPY
    cross_entropy = tl.where(too_large, LARGEST_CROSS_ENTROPY, cross_entropy)
    extra, column = _extra(label, at, entropy, cross_entropy, valid)
    address = sums[:, None] + 2 * (classes + column)
    _add(address, extra * weight[:, None], counted[:, None] & (column < EXTRA))
    for first in range(0, classes, BLOCK):
        z, k = tile_at(whole, logits, row, counted, classes, first, WHOLE, BLOCK)
        p = exp64(z - peak[:, None]) * reciprocal[:, None]
        inside = (counted & valid)[:, None] & (k < classes)
        _add(sums[:, None] + 2 * k, p * weight[:, None], inside)


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
    row, alive = program_rows(rows, ROWS)
    whole, _ = tile(logits, row, alive, classes, 0, BLOCK)
    peak, at, reciprocal, log_total, entropy = summary(
        logits, whole, row, alive, classes, BLOCK, WHOLE
    )
    group, row_weight = tl.zeros_like(row), tl.zeros_like(peak) + 1.0
    if group_of is not None:
        group = tl.load(group_of + row, mask=alive, other=0)
    if weight is not None:
        row_weight = tl.load(weight + row, mask=alive, other=0.0)
    known = (group >= 0) & (group < groups)
    group, valid = tl.where(known, group, 0), known & (entropy == entropy)
    if SOFT:
        for y in range(classes):
            class_weight = row_weight * tl.load(soft + row * classes + y, mask=alive, other=0.0)
            counted = alive & (class_weight != 0)
            if tl.max(counted.to(tl.int32), 0) > 0:
                _add_class(
                    state, logits, whole, row, counted, valid, group, tl.zeros_like(row) + y,
                    class_weight, peak, at, reciprocal, log_total, entropy, classes, WHOLE, BLOCK,
                )  # fmt: skip
    else:
        label = tl.load(hard + row, mask=alive, other=0)
        known = (label >= 0) & (label < classes)
        _add_class(
            state, logits, whole, row, alive, valid & known, group, tl.where(known, label, 0),
            row_weight, peak, at, reciprocal, log_total, entropy, classes, WHOLE, BLOCK,
        )  # fmt: skip


def cmi_update(
    state: Tensor, logits: Tensor, labels: Tensor, weight: Tensor | None, group: Tensor | None
) -> None:
    """Add contiguous ``logits`` to ``state``; soft labels and weights are float64."""
    rows, classes = logits.shape
    hard, soft = split_labels(labels)
    plan = plan_for(logits)
    cmi_update_rows_kernel[(triton.cdiv(rows, plan["ROWS"]),)](
        state, logits, hard, soft, weight, group, rows, classes, state.shape[0],
        SOFT=soft is not None, **plan, **OPTIONS,
    )  # fmt: skip

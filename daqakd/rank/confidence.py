"""Jackknife intervals over folds (Tukey 1958; delete-a-group form: Kott 2001)."""

import math
from collections.abc import Sequence

FOLDS = 10
T_975 = 2.2621571628  # Student's t with FOLDS - 1 degrees of freedom, 97.5 %


def jackknife_error(left_out: Sequence[float]) -> float:
    """Return the standard error of a statistic, given its values with each fold left out."""
    n = len(left_out)
    mean = sum(left_out) / n
    return math.sqrt((n - 1) / n * sum((v - mean) ** 2 for v in left_out))


def interval(value: float, left_out: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a statistic with ``FOLDS`` folds, its bias removed."""
    centre = len(left_out) * value - (len(left_out) - 1) * sum(left_out) / len(left_out)
    half = T_975 * jackknife_error(left_out)
    return centre - half, centre + half


def tied(a: float, b: float, a_left_out: Sequence[float], b_left_out: Sequence[float]) -> bool:
    """Whether the 95 % interval of the paired difference holds 0 (same images, same folds)."""
    differences = [x - y for x, y in zip(a_left_out, b_left_out, strict=True)]
    low, high = interval(a - b, differences)
    return low <= 0 <= high

"""Jackknife intervals over folds (Tukey 1958; delete-a-group form: Kott 2001)."""

import math
from collections.abc import Sequence

FOLDS = 10
T_975 = 2.2621571628  # Student's t with FOLDS - 1 degrees of freedom, 97.5 %


def upper_tail(t: float) -> float:
    """Return P(T > t) for Student's t with ``FOLDS - 1`` = 9 degrees of freedom."""
    angle = math.atan(t / 3)
    square = math.cos(angle) ** 2
    series = 1 + square * (2 / 3 + square * (8 / 15 + square * 16 / 35))
    return 0.5 - (angle + math.sin(angle) * math.cos(angle) * series) / math.pi


def two_sided(error: float) -> float:
    """Return the t that an interval of confidence ``1 - error`` needs, by bisection."""
    low, high = 0.0, 1e3
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if upper_tail(middle) > error / 2 else (low, middle)
    return high


def jackknife_error(left_out: Sequence[float]) -> float:
    """Return the standard error of a statistic, given its values with each fold left out."""
    n = len(left_out)
    mean = sum(left_out) / n
    return math.sqrt((n - 1) / n * sum((v - mean) ** 2 for v in left_out))


def unbiased(value: float, left_out: Sequence[float]) -> float:
    """Return a statistic without its bias of order 1/N: the middle of its interval."""
    return len(left_out) * value - (len(left_out) - 1) * sum(left_out) / len(left_out)


def interval(value: float, left_out: Sequence[float], t: float = T_975) -> tuple[float, float]:
    """Return the interval of a statistic with ``FOLDS`` folds, its bias removed."""
    centre = unbiased(value, left_out)
    half = t * jackknife_error(left_out)
    return centre - half, centre + half


def difference(
    a: float, b: float, a_left_out: Sequence[float], b_left_out: Sequence[float], t: float = T_975
) -> tuple[float, float]:
    """Return the interval of the paired difference ``a - b`` (same images, same folds)."""
    differences = [x - y for x, y in zip(a_left_out, b_left_out, strict=True)]
    return interval(a - b, differences, t)

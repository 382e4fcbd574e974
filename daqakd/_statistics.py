"""What few seeds and few strategies can tell: paired t tests, rank correlation."""

import math
from collections.abc import Sequence

Z_975 = 1.959963984540054  # of the normal distribution


def mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return math.fsum(values) / len(values)


def deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation of a sample (n - 1); None for a single value."""
    if len(values) < 2:
        return None
    middle = mean(values)
    return math.sqrt(math.fsum((v - middle) ** 2 for v in values) / (len(values) - 1))


def two_sided_p(t: float, freedom: int) -> float:
    """Return P(|T| > t) for Student's t, as a finite sum (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    angle = math.atan(abs(t) / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for k in range(odd + 1, freedom, 2):  # cos^k with its coefficient, k = 1, 3, ... or 0, 2, ...
        total += term
        term *= cosine * cosine * k / (k + 1)
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return max(0.0, 1 - inside)


def paired_p(first: Sequence[float], other: Sequence[float]) -> float | None:
    """Return the two-sided p of a paired t test; None for fewer than two pairs.

    Few seeds are all there is: no sign-flip test of n pairs can be below 2^(1 - n), 0.25 for three.
    Differences that are all the same have no deviation: they are certain, or 1 where they are 0.
    """
    differences = [a - b for a, b in zip(first, other, strict=True)]
    if len(differences) < 2:
        return None
    middle, spread = mean(differences), deviation(differences)
    if not spread:
        return 0.0 if middle else 1.0
    return two_sided_p(middle / spread * math.sqrt(len(differences)), len(differences) - 1)


def ranks(values: Sequence[float]) -> list[float]:
    """Return ranks from 1; equal values share the mean of theirs."""
    ordered = sorted(values)
    return [ordered.index(v) + (ordered.count(v) + 1) / 2 for v in values]


def spearman(first: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Spearman's rho; None where a side has one value only."""
    sides = [[r - mean(rs) for r in rs] for rs in (ranks(first), ranks(other))]
    norm = math.sqrt(math.prod(math.fsum(r * r for r in side) for side in sides))
    if norm == 0:
        return None
    product = math.fsum(a * b for a, b in zip(*sides, strict=True))
    return max(-1.0, min(1.0, product / norm))


def spearman_interval(rho: float, count: int) -> tuple[float, float] | None:
    """Return the 95 % interval of rho by Fisher's z with Bonett and Wright's variance (2000).

    None for fewer than five pairs, and at -1 or 1, where z has no end.
    """
    if count < 5 or abs(rho) == 1:
        return None
    half = Z_975 * math.sqrt((1 + rho * rho / 2) / (count - 3))
    return math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half)

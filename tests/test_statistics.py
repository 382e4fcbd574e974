"""Few seeds, few strategies: t tests and rank correlations, against tables and definitions."""

import math
from itertools import product

import pytest

from daqakd._statistics import (
    deviation,
    paired_p,
    ranks,
    spearman,
    spearman_interval,
    two_sided_p,
)

TABLE = {  # two-sided 5 % and 1 % points of Student's t (Abramowitz and Stegun, table 26.10)
    1: (12.706, 63.657),
    2: (4.303, 9.925),
    3: (3.182, 5.841),
    4: (2.776, 4.604),
    5: (2.571, 4.032),
    10: (2.228, 3.169),
    29: (2.045, 2.756),
}


@pytest.mark.parametrize(("freedom", "points"), TABLE.items())
def test_p_of_students_t(freedom, points):
    for t, p in zip(points, (0.05, 0.01), strict=True):
        assert two_sided_p(t, freedom) == pytest.approx(p, rel=2e-3)
        assert two_sided_p(-t, freedom) == two_sided_p(t, freedom)
    assert two_sided_p(0.0, freedom) == 1.0


@pytest.mark.parametrize("freedom", [1, 2, 7, 8])
def test_p_is_the_integral_of_the_density(freedom):
    scale = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(freedom * math.pi)

    def density(t: float) -> float:
        return scale * (1 + t * t / freedom) ** (-(freedom + 1) / 2)

    count = 20_000
    inside = sum(2 * density(1.7 * (i + 0.5) / count) * 1.7 / count for i in range(count))
    assert two_sided_p(1.7, freedom) == pytest.approx(1 - inside, abs=1e-8)


def test_paired_differences():
    first, other = [0.91, 0.93, 0.90], [0.90, 0.91, 0.89]
    differences = [0.01, 0.02, 0.01]
    t = (4 / 300) / (deviation(differences) / math.sqrt(3))
    assert paired_p(first, other) == pytest.approx(two_sided_p(t, 2))
    assert paired_p(first, other) == pytest.approx(paired_p(other, first))
    assert paired_p([0.9], [0.8]) is None
    assert paired_p([0.5, 0.5], [0.5, 0.5]) == 1.0
    assert paired_p([0.75, 0.5], [0.5, 0.25]) == 0.0
    assert deviation([0.5]) is None


def test_ranks_share_their_mean():
    assert ranks([0.3, 0.1, 0.3, 0.2]) == [3.5, 1.0, 3.5, 2.0]


def test_rho_is_the_correlation_of_ranks():
    first, other = [1.0, 5.0, 2.0, 9.0, 7.0], [2.0, 4.0, 1.0, 8.0, 3.0]
    squares = sum((a - b) ** 2 for a, b in zip(ranks(first), ranks(other), strict=True))
    assert spearman(first, other) == pytest.approx(1 - 6 * squares / (5 * 24))
    assert spearman([1, 2, 3], [10, 20, 30]) == 1.0
    assert spearman([1, 2, 3], [30, 20, 10]) == -1.0
    assert spearman([1, 1, 1], [1, 2, 3]) is None
    for values in product((0.0, 0.1, 0.2), repeat=3):
        rho = spearman([1, 2, 3], values)
        assert rho is None or -1 <= rho <= 1


def test_the_interval_holds_rho_and_narrows():
    wide, narrow = spearman_interval(0.8, 7), spearman_interval(0.8, 70)
    assert wide[0] < narrow[0] < 0.8 < narrow[1] < wide[1] < 1
    assert narrow[1] == pytest.approx(math.tanh(math.atanh(0.8) + 1.95996 * math.sqrt(1.32 / 67)))
    assert spearman_interval(0.8, 4) is None
    assert spearman_interval(1.0, 7) is None

"""The rungs' arithmetic, against worked examples and an independent reckoning."""

import math

import pytest

from daqakd.select import Rung, fewest, plan

from ..helpers.refusals import refused


def rungs(count, total, **options):
    return [(rung.strategies, rung.epochs) for rung in plan(count, total, **options)]


@pytest.mark.parametrize(
    ("count", "total", "expected"),
    [
        (1, 0, []),
        (2, 2, [(2, 1)]),
        (3, 12, [(3, 2), (2, 3)]),
        (4, 60, [(4, 7), (2, 15)]),
        (8, 96, [(8, 4), (4, 8), (2, 16)]),
        (7, 100, [(7, 4), (4, 8), (2, 16)]),
        (16, 960, [(16, 15), (8, 30), (4, 60), (2, 120)]),
        (8, 14, [(8, 1), (4, 1), (2, 1)]),  # the shares would be 0, 1 and 2
        (9, 24, [(9, 1), (5, 1), (3, 1), (2, 3)]),  # they would be 0, 1, 2, 3: 26 epochs
    ],
)
def test_worked_examples(count, total, expected):
    assert rungs(count, total) == expected


@pytest.mark.parametrize("least", [1, 2, 5])
def test_every_plan(least):
    """The total is kept, shares are equal wherever they can be, and the last rung is of two."""
    for count in range(2, 40):
        rounds = math.ceil(math.log2(count))
        numbers = [math.ceil(count / 2**r) for r in range(rounds)]
        assert numbers[-1] == 2
        assert fewest(count, least) == least * sum(numbers)
        for total in range(fewest(count, least), 40 * count, 7):
            found = rungs(count, total, least=least)
            assert [n for n, _ in found] == numbers
            assert sum(n * e for n, e in found) <= total
            assert min(e for _, e in found) >= least
            assert [e for _, e in found] == sorted(e for _, e in found)
            shares = [math.floor(total / (rounds * n)) for n in numbers]
            if shares[0] >= least:
                assert [e for _, e in found] == shares


def test_no_trial_is_longer_than_the_final_training():
    assert rungs(8, 960, most=60) == [(8, 40), (4, 60), (2, 60)]
    assert plan(2, 10, most=3) == [Rung(2, 3)]


def test_what_is_wrong_is_said():
    refused(lambda: plan(8, 13), "total_epochs: 8 strategies race in 14 epochs at least, got 13;")
    refused(lambda: plan(3, 24, least=5), "in 25 epochs at least, got 24; raise it")
    refused(lambda: plan(2, 99, least=5, most=4), "least_epochs: expected at most 4, .* got 5")

"""Races on tables whose winner is known."""

import random

import pytest

from daqakd.select import Race, Rung, RungResult, heats, plan, race

from ..helpers.refusals import refused

NAMES = ("a", "b", "c", "d", "e")
RUNGS = [Rung(5, 1), Rung(3, 2), Rung(2, 4)]


class Trials:
    """A table of accuracies by name and epochs; says what was asked for."""

    def __init__(self, table):
        self.table, self.asked = table, []

    def __call__(self, name, epochs):
        self.asked.append((name, epochs))
        return self.table[name][epochs]


def table(**accuracies):
    return {name: dict(zip((1, 2, 4), values, strict=False)) for name, values in accuracies.items()}


def test_the_better_half_trains_on():
    trials = Trials(table(a=(0.1,), b=(0.5, 0.2), c=(0.2,), d=(0.4, 0.6, 0.7), e=(0.3, 0.5, 0.8)))
    found = race(NAMES, RUNGS, trials)
    assert trials.asked == [(n, 1) for n in NAMES] + [(n, 2) for n in "bde"] + [("d", 4), ("e", 4)]
    assert found.winner == "e"
    assert found.epochs == 5 + 3 * 2 + 2 * 4
    assert [one.accuracies for one in found.results][2] == {"d": 0.7, "e": 0.8}


def test_ties_go_by_the_ranking():
    everywhere = dict.fromkeys((1, 2, 4), 0.5)
    equal = race(NAMES, RUNGS, Trials(dict.fromkeys(NAMES, everywhere)))
    assert equal.winner == "a"
    assert [[*one.accuracies] for one in equal.results] == [[*"abcde"], [*"abc"], [*"ab"]]
    turned = race(NAMES[::-1], RUNGS, Trials(dict.fromkeys(NAMES, everywhere)))
    assert turned.winner == "e"


def test_a_tie_keeps_the_rankings_order_after_a_change_of_places():
    """b is ahead of a after the first rung, but the ranking decides between equals later on."""
    trials = Trials({"a": {1: 0.4, 2: 0.5}, "b": {1: 0.6, 2: 0.5}, "c": {1: 0.1}})
    assert race("abc", [Rung(3, 1), Rung(2, 2)], trials).winner == "a"


def test_not_a_number_is_last():
    nan = float("nan")
    assert RungResult(1, {"a": nan, "b": 0.1, "c": nan, "d": 0.2}).best_first == [*"dbac"]


def test_single_strategies_need_no_trial():
    found = race(["a"], plan(1, 10), Trials({}))
    assert (found.winner, found.epochs, found.results) == ("a", 0, [])


def test_a_trial_that_serves_two_rungs_counts_once():
    flat = [Rung(4, 3), Rung(2, 3)]
    found = race("abcd", flat, lambda name, epochs: ord(name))
    assert found.winner == "d"
    assert found.trials == [("a", 3), ("b", 3), ("c", 3), ("d", 3)]
    assert found.epochs == 12


def test_a_rung_may_be_prepared_as_a_whole():
    seen = []
    trials = Trials(table(a=(0.5, 0.5), b=(0.5, 0.5), c=(0.5,)))

    def before(names, epochs):
        seen.append(([*names], epochs, len(trials.asked)))

    found = [*heats("abc", [Rung(3, 1), Rung(2, 2)], trials, before)]
    assert seen == [(["a", "b", "c"], 1, 0), (["a", "b"], 2, 3)]
    assert Race("abc", found[:1]).winner == "a"


@pytest.mark.parametrize("count", [2, 3, 6, 9, 17])
def test_without_noise_the_best_wins(count):
    """Whatever the plan, where accuracies do not depend on the epochs."""
    draw = random.Random(count)
    values = {f"s{i}": draw.random() for i in range(count)}
    for total in (30 * count, 100 * count):
        found = race([*values], plan(count, total), lambda name, epochs: values[name])
        assert found.winner == max(values, key=values.__getitem__)
        assert found.epochs <= total


def test_names_that_do_not_fit_the_plan():
    trial = Trials({})
    refused(lambda: race("ab", RUNGS, trial), "names: expected 5 different strategies, .* got")
    refused(lambda: race("aabcd", RUNGS, trial), "names: expected 5 different strategies")
    refused(lambda: race([], [], trial), "names: expected 1 different")

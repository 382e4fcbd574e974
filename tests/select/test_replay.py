"""Replays of made-up studies whose answers are known."""

from itertools import combinations
from statistics import mean

import pytest

from benchmarks import replay_select
from daqakd._files import write_json
from daqakd.select import Rung
from daqakd.select.replay import Replay, replay

from ..helpers.refusals import refused

NAMES = "abcdefgh"


def ranking(names=NAMES, half=0.001):
    rows = [
        {"name": name, "score": i / 10, "score_ci95": [i / 10 - half, i / 10 + half], "pac": 0.1}
        for i, name in enumerate(names)
    ]
    return {"strategies": rows, "criterion": {"pac_limit": None}}


def table(values, seeds=(0, 1)):
    return {name: dict.fromkeys(seeds, value) for name, value in values.items()}


def last(rows, rule):
    return [row for row in rows if row.rule == rule][-1]


VALUES = {name: 0.9 - i / 100 for i, name in enumerate(NAMES)}  # a is the best
QUIET = {15: table({n: v - 0.2 for n, v in VALUES.items()}), 60: table(VALUES)}


def test_a_ranking_that_is_right_needs_no_trial():
    rows = replay(ranking(), QUIET)
    assert {row.regret for row in rows if row.rule.startswith(("select", "ranking"))} == {0}
    assert {row.best for row in rows if row.rule.startswith("select")} == {1}
    first = last(rows, "ranking alone")
    assert (first.strategies, first.budget, first.epochs, first.races) == (1, 0, 0, 2)


def test_a_ranking_that_is_upside_down():
    """Its list of n holds the n worst: the best of these is 8 - n places behind."""
    rows = replay(ranking(NAMES[::-1]), QUIET, sizes=(2, 4))
    assert last(rows, "ranking alone").regret == pytest.approx(0.07)
    for size in (2, 4):
        found = [row.regret for row in rows if row.rule == f"select {size}"]
        assert found == pytest.approx([(8 - size) / 100] * len(found))
    assert last(rows, "all").regret == 0
    rows = replay(ranking(NAMES[::-1]), QUIET, sizes=(2,), also=("a",))
    assert last(rows, "select 2").strategies == 3
    assert last(rows, "select 2").regret == 0


def test_near_ties_are_tried_too():
    rows = replay(ranking(NAMES[::-1], half=1.0), QUIET, sizes=(3,))
    assert last(rows, "select 3").strategies == 6
    assert last(rows, "select 3").regret == pytest.approx(0.02)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_random_lists_have_the_regret_of_all_lists(size):
    """Without noise the best of a list wins; the mean over all lists is exact."""
    rows = replay(ranking(), QUIET, sizes=(size,), draws=2000)
    expected = mean(0.9 - max(VALUES[n] for n in some) for some in combinations(NAMES, size))
    found = last(rows, "one at random" if size == 1 else f"random {size}")
    assert found.regret == pytest.approx(expected, abs=1e-12 if size == 1 else 0.001)
    assert found.best == pytest.approx(size / 8, abs=1e-12 if size == 1 else 0.03)
    assert found.races == 2 * (8 if size == 1 else 2000)


def test_short_trials_drop_what_needs_long_ones():
    """d is the worst after 15 epochs and the best after 60."""
    short = table(dict(zip("abcd", (0.6, 0.5, 0.4, 0.3), strict=True)))
    long = table(dict(zip("abcd", (0.7, 0.6, 0.5, 0.8), strict=True)))
    rows = [row for row in replay(ranking("abcd"), {15: short, 60: long}) if row.rule == "all"]
    assert [(row.budget, row.epochs, row.best) for row in rows] == [
        (90, 60, 0),  # 4 x 15, then 2 x 15: the same trials
        (240, 180, 0),  # 4 x 15 where 30 are planned, 2 x 60
        (480, 240, 1),  # all at full length
    ]
    assert [row.regret for row in rows] == pytest.approx([0.1, 0.1, 0])


def test_luck_in_the_race_is_no_merit():
    """Two arms win a seed each by luck, and the other seed says what that is worth."""
    lucky = {"a": {0: 0.9, 1: 0.5}, "b": {0: 0.5, 1: 0.9}, "c": {0: 0.6, 1: 0.6}}
    found = last(replay(ranking("cab"), {60: lucky}), "all")
    assert found.regret == pytest.approx(0.7 - 0.5)
    assert found.best == 0.5
    single = {name: {0: values[0]} for name, values in lucky.items()}
    assert last(replay(ranking("cab"), {60: single}), "all").regret == 0


def test_plans_of_one_length_and_of_several():
    assert [*Replay(ranking("abcd"), {60: table(VALUES)}).plans(4)] == [
        (360, [Rung(4, 60), Rung(2, 60)])
    ]
    budgets = [total for total, _ in Replay(ranking(), QUIET).plans(8)]
    assert budgets == sorted(set(budgets))
    assert budgets[0] == 15 * (8 + 4 + 2)


def test_replays_are_the_same_every_time():
    assert replay(ranking(), QUIET) == replay(ranking(), QUIET)


def test_what_the_tables_do_not_share_is_left_out():
    part = {15: {n: {0: 0.1, 7: 0.2} for n in "abx"}, 60: {n: {0: 0.3, 1: 0.2} for n in "bac"}}
    whole = Replay(ranking(), part)
    assert (whole.arms, whole.seeds) == (["a", "b"], [0])
    refused(lambda: replay(ranking("c"), part), r"tables: 0 ranked .* seeds \[\] in common; need")
    apart = {15: table(VALUES, (0,)), 60: table(VALUES, (1,))}
    refused(lambda: replay(ranking(), apart), r"tables: 8 ranked .* seeds \[\] in common; need")


def write_study(folder, epochs, values):
    for name, value in values.items():
        for seed in (0, 1):
            row = {"strategy": name, "seed": seed, "accuracy": value, "origin": {"epochs": epochs}}
            write_json(folder / "rows" / f"seed={seed},strategy={name}.json", row)


def test_the_script_reads_two_studies(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    whole, short = tmp_path / "whole", tmp_path / "short"
    write_study(whole, 60, VALUES)
    write_study(short, 15, VALUES)
    write_json(whole / "ranking" / "strategies=all" / "ranking.json", ranking())
    line = [str(whole), "--short", str(short), "--sizes", "2", "--also", "h", "--draws", "5"]
    replay_select.main(line)
    text = (whole / "replay-select.md").read_text()
    assert capsys.readouterr().out.strip() in text
    assert "| ranking alone | 1 | 0 | 0 | 0.00 | 100% |" in text
    assert "| select 2 | 3 | " in text
    assert "Trials have 15 or 60 epochs" in text
    assert (whole / "replay-select.png").stat().st_size > 5000
    write_study(short, 20, {"a": 0.5})
    refused(lambda: replay_select.main(line), "short: expected rows/ of one length, got epochs")
    refused(lambda: replay_select.main([str(short / "rows")]), "rows: expected rows/ of one len")

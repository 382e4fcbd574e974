"""The file of a sweep: which rows it means, what they are called, what it must not say."""

from pathlib import Path

import pytest

from daqakd import strategies
from daqakd.augment.strategies import PAPER
from daqakd.sweep import read_plan

from ..helpers.refusals import refused

FILE = Path("sweep.toml")


def rows(**values):
    return read_plan(values, FILE).rows


def test_every_combination_of_the_grid():
    plan = read_plan(
        {
            "command": "train",
            "options": {"data": "digits", "batch-size": 16},
            "grid": {"bits": [2, 4], "strategies": ["minimal", "cutmix"], "seeds": [0, 1, 2]},
        },
        FILE,
    )
    assert (plan.command, len(plan.rows)) == ("train", 12)
    assert plan.varied == ["weight_bits", "act_bits", "strategy", "seed"]
    varied = {"weight_bits": 2, "act_bits": 2, "strategy": "minimal", "seed": 1}
    assert plan.rows[1].varied == varied
    assert plan.rows[1].options == {"data": "digits", "batch_size": 16, **varied}
    assert plan.rows[1].name == "weight_bits=2,act_bits=2,strategy=minimal,seed=1"


def test_a_list_beside_the_grid():
    listed = [{"method": "lsq"}, {"method": "pact", "bits": 4}]
    found = rows(list=listed, grid={"seeds": [0, 1]})
    assert [row.varied for row in found] == [
        {"method": "lsq", "seed": 0},
        {"method": "lsq", "seed": 1},
        {"method": "pact", "weight_bits": 4, "act_bits": 4, "seed": 0},
        {"method": "pact", "weight_bits": 4, "act_bits": 4, "seed": 1},
    ]


def test_words_for_many_strategies():
    assert [row.varied["strategy"] for row in rows(grid={"strategies": "paper"})] == [*PAPER]
    assert [row.varied["strategy"] for row in rows(grid={"strategies": "all"})] == strategies()


def test_names_are_directories_and_tell_rows_apart():
    found = [row.name for row in rows(grid={"teacher": ["a/b", "a_b", "x" * 300]})]
    assert len({*found}) == 3
    assert not any("/" in name or len(name) > 140 for name in found)
    assert found[1] == "teacher=a_b"
    assert rows(options={"data": "digits"})[0].name == "row"
    one = rows(grid={"seeds": [0, 1]})[1].name
    assert one == rows(grid={"seeds": [2, 1, 0]})[1].name, "a longer grid keeps finished rows"


WRONG = [
    ({"grids": {}}, "unknown key 'grids'. Did you mean 'grid'"),
    ({"command": "teach"}, "unknown command of a sweep 'teach'"),
    ({"grid": [1]}, "grid: expected a table of options"),
    ({"grid": {"seeds": 3}}, r"grid\.seeds: expected a list of values, got 3"),
    ({"grid": {"seeds": []}}, r"grid\.seeds: expected a list of values"),
    ({"grid": {"strategies": "each"}}, r"grid\.strategies: expected .* 'paper' or 'all', got"),
    ({"list": {"seed": 1}}, "list: expected tables"),
    ({"list": []}, "list: expected tables"),
    ({"grid": {"seeds": [1, 1]}}, "rows: seed=1 is there twice"),
    (
        {"grid": {"seed": [*range(200)], "lr": [*range(51)]}},
        "grid: expected at most 10000 rows, got 10200",
    ),
    ({"options": {"seed": 1}, "grid": {"seeds": [1]}}, r"options\.seed: 1 for all rows, but they"),
]


@pytest.mark.parametrize(("values", "message"), WRONG)
def test_what_is_no_sweep(values, message):
    refused(lambda: read_plan(values, FILE), f"^sweep.toml: {message}")

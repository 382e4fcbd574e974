"""The microbenchmarks' harness: what is timed, what is refused, what is written."""

import json
from dataclasses import replace

import pytest
import torch

from daqakd.cli import main
from daqakd.functional import lsq
from daqakd.report import bench, contestants_lsq, floor, measure


def ours(x, step, axis):
    return lsq(x, step, bits=4, signed=True, axis=axis)


def wrong_values(x, step, axis):
    return ours(x, step, axis) + step.detach().sum()


def wrong_gradient(x, step, axis):
    return ours(2 * x - x.detach(), step, axis)


def failing(x, step, axis):
    raise RuntimeError("not here\nsecond line")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(measure, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(measure, "BEYOND_CACHE", 2**14)
    monkeypatch.setattr(floor, "copy_speed", lambda device: 1e9)


@pytest.mark.parametrize("per", bench.PER)
@pytest.mark.parametrize("dtype", bench.DTYPES)
def test_only_right_results_are_timed(dtype, per):
    case = contestants_lsq.case(1024, bench.DTYPES[dtype], per, "cpu")
    assert case.numel == 1024
    contestants = {
        "ours": ours, "values": wrong_values, "gradient": wrong_gradient, "failing": failing
    }  # fmt: skip
    rows = {row.contestant: row for row in measure.compare(case, contestants, turns=2)}
    assert list(rows) == list(contestants)
    assert rows["ours"].seconds > 0
    assert rows["ours"].of_floor == case.floor_seconds() / rows["ours"].seconds
    assert [rows[name].note for name in contestants] == [
        "", "its values are wrong", "its input gradient is wrong", "RuntimeError: not here"
    ]  # fmt: skip
    assert all(rows[name].seconds is None for name in contestants if name != "ours")


def test_contestants_take_turns():
    order = []
    case = contestants_lsq.case(64, torch.float32, "tensor", "cpu")
    case = replace(case, verify=lambda results, inputs: None)
    runs = {name: lambda *_, name=name: order.append(name) or torch.zeros(()) for name in "ab"}
    case = replace(case, bind=lambda contestant: contestant)
    measure.compare(case, runs, turns=3)
    assert order[-6:] == list("ababab")


def test_the_floor_counts_every_tensor_once():
    assert floor.bytes_moved("lsq", 10, torch.bfloat16) == 5 * 10 * 2


@pytest.mark.parametrize("size", [64, 100, 1000, 65536])
def test_images_have_about_as_many_elements_as_asked(size):
    shape = contestants_lsq.shape_of(size, 1)
    assert size / 2 <= torch.Size(shape).numel() <= size


def test_bench_leaves_a_file_and_a_table(tmp_path, monkeypatch, capsys):
    entry = (contestants_lsq.case, lambda device: {"compile": ours, "failing": failing})
    monkeypatch.setitem(bench.OPS, "lsq", entry)
    arguments = ["--size", "256", "--dtype", "float32", "--turns", "1", "--device", "cpu"]
    assert main(["bench", "--out", str(tmp_path), *arguments]) == 0
    shown = capsys.readouterr().out
    assert "x compile" in shown
    assert "(RuntimeError: not here)" in shown
    record = json.loads((tmp_path / "bench.json").read_text())
    assert record["copy_bytes_per_second"] == 1e9
    assert [row["per"] for row in record["rows"]] == ["tensor"] * 2 + ["channel"] * 2
    assert record["packages"]["torch"]


@pytest.mark.parametrize(
    ("option", "message"),
    [("--size", "size: expected at least 64"), ("--turns", "turns: expected")],
)
def test_what_cannot_be_measured(option, message, tmp_path, capsys):
    assert main(["bench", option, "0", "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err

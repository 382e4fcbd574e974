"""The page of a GPU run: aims met, missed and not measured, tables, the kernels looked into."""

import json
import math
import os
from copy import deepcopy

import pytest

from benchmarks import gpu_aims, gpu_ncu, gpu_report
from benchmarks.gpu_aims import AIMS, Aim, column, exit_code, last, ratio
from benchmarks.gpu_stages import SIZES

LARGE = 2**26


def row(provider, seconds, **more):
    start = {"op": "lsq", "elements": LARGE, "dtype": "float32", "form": "tensor"}
    start |= {"provider": provider, "seconds": seconds, "note": ""}
    return {**start, "device_of_floor": 0.95, "device_seconds": seconds, **more}


STAGE = {"code": 0, "seconds": 1.5, "gpu": "", "says": "done"}
REPORT = {
    "date": "2026-01-01 00:00",
    "device": "a GPU",
    "copy_bytes_per_second": 3e12,
    "stages": {"tests": STAGE, "memcheck": {**STAGE, "says": "skipped: not installed"}},
    "rows": {"lsq": [row("native", 2e-4), row("compile", 1e-4), row("triton", 3e-4)], "pact": []},
}


def outcome(text, report=REPORT):
    (found,) = [aim for aim in AIMS if text in aim.text]
    return found.outcome(report)


def test_aims_are_met_missed_or_not_measured():
    assert outcome("LSQ at 64M")[0] == "met"
    assert outcome("the GPU tests pass") == ("met", "0 at worst (tests) of 1")
    verdict, found = outcome("LSQ takes at most")
    assert verdict == "missed"
    assert found == "1 of 1: lsq 67108864 float32 tensor 2"
    assert outcome("PACT at 64M") == ("not measured", "")
    assert outcome("compute-sanitizer finds nothing") == ("not measured", "")


def test_a_refused_row_of_ours_is_a_missed_aim():
    report = deepcopy(REPORT)
    refused = row("native", None, note="its values are wrong", device_of_floor=None)
    report["rows"]["lsq"].insert(0, {**refused, "form": "channel"})
    verdict, found = outcome("LSQ at 64M", report)
    assert (verdict, found) == ("missed", "1 of 2: lsq 67108864 float32 channel nan")


def test_the_worst_value_counts_and_losers_are_listed():
    report = {"rows": {"s": [{"provider": "native", "x": x, "run": x} for x in range(7)]}}
    values = column("s", "x")
    assert Aim("", values, most=6).outcome(report) == ("met", "6 at worst (s 6) of 7")
    verdict, found = Aim("", values, most=0).outcome(report)
    assert (verdict, found) == ("missed", "6 of 7: s 1 1; s 2 2; s 3 3; s 4 4, and 2 more")
    assert Aim("", values, least=0).outcome(report)[1].startswith("0 at worst (s 0)")


def test_ratios_are_case_by_case_and_against_the_best_of_others():
    rows = [row("native", 2.0), row("compile", 4.0), row("eager", 1.0), row("triton", 0.1)]
    report = {"rows": {"s": [*rows, row("compile", 1.0, form="channel")]}}
    assert [v for _, v in ratio("s", "native", "compile", "seconds")(report)] == [0.5]
    assert [v for _, v in ratio("s", "native", None, "seconds")(report)] == [2.0]
    assert list(ratio("s", "native", "liger", "seconds")(report)) == []


def test_the_last_run_of_a_ranking_counts():
    report = {
        "rows": {"ranking": [{"run": 1, "wall_seconds": 30.0}, {"run": 2, "wall_seconds": 8.0}]}
    }
    assert list(last("ranking", "wall_seconds")(report)) == [("ranking 2", 8.0)]


def test_a_stage_that_fails_misses_its_aim():
    report = {"stages": {"a": {**STAGE, "code": 1}, "b": STAGE}}
    assert Aim("", exit_code("a", "b"), most=0).outcome(report) == ("missed", "1 of 2: a 1")


def test_every_aim_has_one_limit_and_accepts_a_report_without_rows():
    empty = {"stages": {}, "rows": {}}
    for aim in AIMS:
        assert math.isinf(aim.least) != math.isinf(aim.most)
        assert aim.outcome(empty) == ("not measured", "")


def test_the_page_has_every_aim_and_device_time_first(tmp_path, capsys, monkeypatch):
    file = tmp_path / "gpu.json"
    file.write_text(json.dumps(REPORT))
    monkeypatch.setattr("sys.argv", ["gpu_report", str(file)])
    gpu_report.main()
    page = capsys.readouterr().out
    assert all(f"| {aim.text} |" in page for aim in AIMS)
    assert "| elements | dtype | form | provider | us on device | of floor | us wall |" in page
    assert "| 67108864 | float32 | tensor | native | 200 | 0.95 | 200 |" in page
    assert "3,000 GB/s" in page
    assert "## pact" not in page


@pytest.mark.parametrize("name", ["seconds", "what"])
def test_other_rows_are_shown_as_they_are(name):
    lines = gpu_report.table([{name: "x", "empty": None, "note": "said"}])
    assert lines == [f"| {name} | note |", "|---|---|", "| x | said |"]


NCU = """==PROF== Connected to process 7
"ID","Process ID","Kernel Name","Grid Size","dram__bytes_read.sum","gpu__time_duration.sum"
"","","","","byte","nsecond"
"0","7","spin_kernel","(1, 1, 1)","0","1,000"
"1","7","lsq_backward","(8, 1, 1)","268,435,456","250,000"
"2","7","fold_kernel","(1, 1, 1)","32","2,000"
"3","7","spin_kernel","(1, 1, 1)","0","1,000"
"4","7","pact","(8, 1, 1)","1000000","500"
==PROF== Disconnected
"""


def test_kernels_of_ncu_belong_to_the_row_before_them():
    rows = [row("native", 1e-4), row("triton", 1e-4, op="pact", device_of_floor=0.5)]
    found = gpu_ncu.parsed(NCU, rows)
    assert [(one["op"], one["kernel"]) for one in found] == [
        ("lsq", "lsq_backward"),
        ("lsq", "fold_kernel"),
        ("pact", "pact"),
    ]
    assert found[0]["us"] == 250.0
    assert found[0]["MB read"] == pytest.approx(268.435456)
    assert found[2]["of floor"] == 0.5


def test_what_ncu_says_becomes_rows(tmp_path, monkeypatch, capfd):
    """A script stands for ncu; it notes how it was called."""
    rows = [row("native", 1e-4), row("triton", 1e-4, op="pact", device_of_floor=0.96)]
    (tmp_path / "rows/lsq").mkdir(parents=True)
    (tmp_path / "rows/lsq/bench.json").write_text(json.dumps({"rows": rows}))
    said = tmp_path / "said"
    said.write_text(NCU)
    ncu = tmp_path / "ncu"
    ncu.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\ncat {said}\n')
    ncu.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    arguments = ["--rows", str(tmp_path / "rows"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["gpu_ncu", *arguments])
    assert gpu_ncu.main() == 0
    assert [one["op"] for one in gpu_report.rows_of(tmp_path / "out")] == ["lsq", "lsq", "pact"]
    assert "3 kernels of 2 rows" in capfd.readouterr().out
    called = (tmp_path / "called").read_text()
    assert "--clock-control none --profile-from-start off" in called
    assert '"op": "pact"' in called.partition("--profile [")[2]


def test_ncu_that_says_nothing_fails(tmp_path, monkeypatch):
    (tmp_path / "lsq").mkdir()
    (tmp_path / "lsq/bench.json").write_text(json.dumps({"rows": [row("native", 1e-4)]}))
    monkeypatch.setattr(gpu_ncu, "NCU", ["true"])
    monkeypatch.setattr("sys.argv", ["gpu_ncu", "--rows", str(tmp_path), "--out", str(tmp_path)])
    assert gpu_ncu.main() == 1


def test_the_rows_farthest_from_their_floor_are_looked_into():
    rows = [row("native", 1.0, op=f"op{i}", device_of_floor=0.9 - 0.1 * i) for i in range(7)]
    rows += [row("native", 1.0, op="op6", device_of_floor=0.2, form="channel")]
    rows += [row("eager", 1.0, op="other", device_of_floor=0.01)]
    rows += [row("native", 1.0, op="small", device_of_floor=0.01, elements=2**16)]
    rows += [{"strategy": "none", "share": 0.1}]
    found = gpu_ncu.slowest(rows)
    assert [(one["op"], one["form"]) for one in found] == [
        ("op6", "channel"),
        *((f"op{i}", "tensor") for i in (5, 4, 3, 2)),
    ]


def test_sizes_of_aims_are_sizes_that_are_measured():
    assert any(gpu_aims.LARGE(size) for size in SIZES)
    assert any(gpu_aims.SMALL(size) for size in SIZES)
    assert not gpu_aims.LARGE(SIZES[2])

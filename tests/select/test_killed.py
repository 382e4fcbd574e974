"""A selection that is killed twice, then continued by two workers, equals the whole one."""

import sys

import pytest

from daqakd._files import read_json
from daqakd.cli.main import main

from ..helpers.workers import kill_twice_then_finish
from ..sweep.conftest import MODEL

pytest.importorskip("sklearn")
OPTIONS: tuple[str, ...] = ("--model", MODEL, "--epochs", "4", "--batch-size", "64", "--init")
OPTIONS += ("random", "--checkpoint-seconds", "0", "--total-epochs", "20", "--shortlist", "4")
OPTIONS += ("--strategies", "cutmix", "trivialaugment", "rotate@30", "--also", "minimal")


def told(out):
    """What a selection came to, without the seconds."""
    return {k: v for k, v in read_json(out / "select.json").items() if k != "seconds"}


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_twice_and_continued_by_two_workers(tmp_path):
    teacher, whole, out = (tmp_path / name for name in ("teacher", "whole", "out"))
    line = ["teach", "digits", "--out", str(teacher), "--epochs", "6", "--batch-size", "32"]
    assert main([*line, "--model", MODEL]) == 0
    line = ["select", "digits", "--teacher", str(teacher), *OPTIONS, "--out"]
    command = [sys.executable, "-m", "daqakd", *line, str(out)]
    kill_twice_then_finish(command, out / "rows")
    assert main([*line, str(whole)]) == 0
    assert told(out) == told(whole)
    assert told(out)["winner"] in told(out)["shortlist"]
    assert len([*(out / "rows").iterdir()]) == 6

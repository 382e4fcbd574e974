"""A study of digits that is killed twice, then continued by two workers, equals the whole one."""

import subprocess
import sys

import pytest

from daqakd.cli.main import main

from ..helpers.workers import ROOT, kill_twice_then_finish
from ..sweep.conftest import MODEL

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
RESULTS = ("study.csv", "study.md", "scores.png", "curves.png")
OPTIONS: tuple[str, ...] = ("--model", MODEL, "--epochs", "3", "--batch-size", "64")
OPTIONS += ("--checkpoint-seconds", "0")
OPTIONS += ("--strategies", "minimal", "cutmix", "trivialaugment", "rotate@30", "--seeds", "0", "1")


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_twice_and_continued_by_two_workers(tmp_path):
    teacher, whole, out = (tmp_path / name for name in ("teacher", "whole", "out"))
    line = ["teach", "digits", "--out", str(teacher), "--epochs", "6", "--batch-size", "32"]
    assert main([*line, "--model", MODEL]) == 0
    line = ["study", "digits", "--teacher", str(teacher), *OPTIONS, "--out"]
    command = [sys.executable, "-m", "daqakd", *line, str(out)]
    kill_twice_then_finish(command, out / "rows")
    uninterrupted = [sys.executable, "-m", "daqakd", *line, str(whole)]
    subprocess.run(uninterrupted, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    for name in RESULTS:
        there = (whole / name).read_text(errors="replace").replace(str(whole), str(out))
        assert (out / name).read_text(errors="replace") == there, name

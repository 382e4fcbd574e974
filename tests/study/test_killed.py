"""A study of digits that is killed twice, then continued by two workers, equals the whole one."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daqakd.cli.main import main

from ..sweep.conftest import MODEL

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
ROOT = Path(__file__).parents[2]
RESULTS = ("study.csv", "study.md", "scores.png", "curves.png")
OPTIONS: tuple[str, ...] = (
    "--model",
    MODEL,
    "--epochs",
    "3",
    "--batch-size",
    "64",
    "--checkpoint-seconds",
    "0",
)
OPTIONS += ("--strategies", "minimal", "cutmix", "trivialaugment", "rotate@30", "--seeds", "0", "1")


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_twice_and_continued_by_two_workers(tmp_path):
    teacher, whole, out = (tmp_path / name for name in ("teacher", "whole", "out"))
    line = ["teach", "digits", "--out", str(teacher), "--epochs", "6", "--batch-size", "32"]
    assert main([*line, "--model", MODEL]) == 0
    line = ["study", "digits", "--teacher", str(teacher), *OPTIONS, "--out"]
    command = [sys.executable, "-m", "daqakd", *line, str(out)]
    draw = random.Random(0)
    for rows in (1, 4):
        worker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        while len([*(out / "rows").glob("*.json")]) < rows:
            assert worker.poll() is None
            time.sleep(0.1)
        time.sleep(draw.uniform(0, 2))
        worker.kill()
        worker.wait()
    workers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]
    uninterrupted = [sys.executable, "-m", "daqakd", *line, str(whole)]
    subprocess.run(uninterrupted, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    for name in RESULTS:
        there = (whole / name).read_text(errors="replace").replace(str(whole), str(out))
        assert (out / name).read_text(errors="replace") == there, name

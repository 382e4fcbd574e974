"""A sweep that is killed twice and continued by two workers at once ends like single runs."""

import random
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pytest

from daqakd.cli.main import main
from daqakd.sweep.table import TABLE, read_table

from .conftest import MODEL

pytest.importorskip("sklearn")
ROOT = Path(__file__).parents[2]
FILES = ("student.safetensors", "student.packed.safetensors", "metrics.csv", "eval.json")
STRATEGIES = ("minimal", "cutmix", "trivialaugment")
OPTIONS = ("--model", MODEL, "--epochs", "2", "--batch-size", "64", "--checkpoint-seconds", "0")
TEXT = """
[options]
data = "digits"
teacher = "TEACHER"
model = "{MODEL}"
epochs = 2
batch_size = 64
checkpoint_seconds = 0
[grid]
bits = [2, 4]
strategies = ["minimal", "cutmix", "trivialaugment"]
seeds = [0, 1, 2]
"""


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_twice_and_continued_by_two_workers(tmp_path):
    teacher, out, file = (tmp_path / name for name in ("teacher", "out", "sweep.toml"))
    line = ["teach", "digits", "--out", str(teacher), "--epochs", "6", "--batch-size", "32"]
    assert main([*line, "--model", MODEL]) == 0
    file.write_text(TEXT.replace("{MODEL}", MODEL).replace("TEACHER", str(teacher)))
    command = [sys.executable, "-m", "daqakd", "sweep", str(file), "--out", str(out)]
    draw = random.Random(0)
    for rows in (2, 7):
        worker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        while _rows(out) < rows:
            assert worker.poll() is None
            time.sleep(0.1)
        time.sleep(draw.uniform(0, 2))
        worker.kill()
        worker.wait()
    left = 18 - _rows(out)
    workers = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    taken = [text.count("\nrow ") + text.startswith("row ") for text in said]
    assert sum(taken) == left
    assert min(taken) > 0
    rows = read_table(out / TABLE)
    assert len(rows) == 18
    for row, (bits, strategy, seed) in zip(
        rows, product((2, 4), STRATEGIES, (0, 1, 2)), strict=True
    ):
        single = tmp_path / "single" / row["run"]
        options = ["-w", str(bits), "-a", str(bits), "--strategy", strategy, "--seed", str(seed)]
        line = ["run", "digits", "--teacher", str(teacher), "--out", str(single), *OPTIONS]
        assert main([*line, *options]) == 0
        for name in FILES:
            whole = (single / name).read_bytes()
            assert (out / "runs" / row["run"] / name).read_bytes() == whole, (row["run"], name)


def _rows(out: Path) -> int:
    path = out / TABLE
    return len(read_table(path)) if path.exists() else 0

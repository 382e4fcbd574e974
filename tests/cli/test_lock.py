"""Two commands at once in one directory: the second says who holds it, and does nothing."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daqakd.cli.main import main

from ..helpers.small import write_images

ROOT = Path(__file__).parents[2]
HOLD = (
    "import sys; from pathlib import Path; from daqakd.cli import _lock\n"
    "with getattr(_lock, sys.argv[1])(Path(sys.argv[2])): print('held', flush=True); input()\n"
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("tree"), train=120, test=30)


@pytest.fixture(scope="module")
def finished(tree, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    line = ["run", str(tree), "--out", str(out), "--strategy", "minimal", "--epochs", "1"]
    assert main([*line, "--teacher-epochs", "4", "--batch-size", "16"]) == 0
    return out


@pytest.fixture
def holder():
    """Return a function that holds a directory in a process of its own, until the test ends."""
    held = []

    def hold(how: str, folder: Path) -> subprocess.Popen:
        line = [sys.executable, "-c", HOLD, how, str(folder)]
        pipe = subprocess.PIPE
        held.append(subprocess.Popen(line, cwd=ROOT, text=True, stdin=pipe, stdout=pipe))
        assert held[-1].stdout.readline() == "held\n"
        return held[-1]

    yield hold
    for process in held:
        process.kill()
        process.communicate()


def refused(line: list[str], pid: int, capsys) -> None:
    capsys.readouterr()
    assert main(line) == 2
    error = capsys.readouterr().err
    said = rf"daqakd: error: .*another daqakd command works there \(pid {pid} on \S+ since 20\S+\)"
    assert re.match(said, error), error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["run", "teach", "rank", "search", "train"])
def test_a_held_run_directory_is_refused(command, tree, finished, tmp_path, holder, capsys):
    process = holder("working_in", tmp_path / "out")
    line = [command, str(tree), "--out", str(tmp_path / "out")]
    line += [] if command in ("run", "teach") else ["--teacher", str(finished)]
    refused(line, process.pid, capsys)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {".lock", ".lock-holder"}


def test_eval_waits_for_nobody_and_report_reads(finished, holder, capsys):
    process = holder("working_in", finished)
    refused(["eval", str(finished)], process.pid, capsys)
    assert main(["report", str(finished), "--out", str(finished.with_suffix(".html"))]) == 0
    process.communicate("\n")
    assert main(["eval", str(finished)]) == 0


def test_a_held_preparation_is_refused_and_leaves_no_lock(tree, tmp_path, holder, capsys):
    out = tmp_path / "prepared"
    process = holder("working_on", out)
    refused(["data", "prepare", str(tree), "--out", str(out)], process.pid, capsys)
    process.communicate("\n")
    assert main(["data", "prepare", str(tree), "--out", str(out)]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["prepared"]


def test_a_killed_holder_holds_nothing(tree, finished, tmp_path, holder):
    process = holder("working_in", tmp_path)
    (tmp_path / f".ranking.json.{process.pid}-0123abcd.tmp").touch()
    process.send_signal(signal.SIGKILL)
    process.wait()
    line = ["rank", str(tree), "--teacher", str(finished), "--out", str(tmp_path)]
    assert main([*line, "--strategies", "minimal"]) == 0
    assert not list(tmp_path.glob(".*.tmp"))
    assert not (tmp_path / ".lock-holder").exists()


def test_a_training_holds_its_directory(tree, finished, tmp_path, capsys):
    line = ["train", str(tree), "--teacher", str(finished), "--strategy", "minimal"]
    line += ["--epochs", "10000", "--out", str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-m", "daqakd", *line], cwd=ROOT, stdout=-3)
    try:
        limit = time.monotonic() + 60
        while not (tmp_path / "checkpoint").exists() and time.monotonic() < limit:
            time.sleep(0.05)
        refused(line, process.pid, capsys)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()

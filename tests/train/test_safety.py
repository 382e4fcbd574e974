"""Killed anywhere, the same command goes on and ends in the uninterrupted run's bits."""

import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daqakd.cli.main import main

from ..helpers.small import write_images

ROOT = Path(__file__).parents[2]
# batches of 32: with one step per epoch a teacher may stay at chance, which is an error
SHORT: tuple[str, ...] = ("--batch-size", "32", "--teacher-epochs", "4", "--epochs", "1")
SHORT += ("--strategies", "minimal", "cutmix")

# replaces the n-th os.replace, which publishes a finished file, by a kill
KILL_AT_REPLACE = """
import os, signal, sys
replace, calls = os.replace, []
def kill_or_replace(*paths):
    calls.append(paths)
    if len(calls) == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*paths)
os.replace = kill_or_replace
from daqakd.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("tree"))


def arguments(tree: Path, out: Path) -> list[str]:
    return ["run", str(tree), "--out", str(out), *SHORT]


def command(tree: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "daqakd", *arguments(tree, out)]


def checksums(folder: Path) -> dict[str, str]:
    names = ("student.safetensors", "teacher.safetensors", "metrics.csv", "eval.json")
    return {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names}


@pytest.fixture(scope="module")
def whole(tree, tmp_path_factory) -> tuple[dict[str, str], float]:
    """Checksums of an uninterrupted run, and how long it took in a process of its own."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    begin = time.monotonic()
    subprocess.run(command(tree, out), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return checksums(out), time.monotonic() - begin


def run_until(line: list[str], seconds: float, sent: signal.Signals) -> int:
    """Start a command, signal it after some time, and return how it ended."""
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(sent)
        return process.wait(60)


def kill_and_finish(tree, out, whole, seed: int) -> None:
    wanted, seconds = whole
    run_until(command(tree, out), random.Random(seed).uniform(0.3, 0.95) * seconds, signal.SIGKILL)
    assert main(arguments(tree, out)) == 0
    assert checksums(out) == wanted


def test_kill_9_changes_nothing(tree, tmp_path, whole):
    kill_and_finish(tree, tmp_path, whole, seed=100)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_kill_9_at_ten_random_moments_changes_nothing(tree, tmp_path, whole, seed):
    kill_and_finish(tree, tmp_path, whole, seed)


@pytest.mark.parametrize("number", [4, 11])
def test_kill_9_while_a_file_is_published_changes_nothing(tree, tmp_path, whole, number):
    code = KILL_AT_REPLACE.format(number=number)
    line = [sys.executable, "-c", code, *arguments(tree, tmp_path)]
    assert run_until(line, 120, signal.SIGKILL) == -signal.SIGKILL
    assert main(arguments(tree, tmp_path)) == 0
    assert checksums(tmp_path) == whole[0]


def test_sigterm_saves_and_exits_143(tree, tmp_path, whole):
    line = [*command(tree, tmp_path)[:-1], "cutmix", "--teacher-epochs", "200"]
    checkpoint = tmp_path / "checkpoint/teacher.safetensors"
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < limit:
        time.sleep(0.05)
    before = checkpoint.stat().st_mtime_ns
    process.terminate()
    assert process.wait(60) == 143
    assert checkpoint.stat().st_mtime_ns >= before
    assert not (tmp_path / "teacher.safetensors").exists()

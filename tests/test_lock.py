"""Two runs at once in one directory: the second says who holds it, and does nothing.

Commands and functions are runs alike; a command calls functions in the directory that it holds.
"""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import daqakd
from daqakd import InputError, TrainConfig
from daqakd._lock import working_in
from daqakd.bench.run import bench_into
from daqakd.cli.main import main

from .helpers.small import SmallNet, small_dataset, write_images

ROOT = Path(__file__).parents[1]
HOLD = (
    "import sys; from pathlib import Path; from daqakd import _lock\n"
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


@pytest.fixture(scope="module")
def holder():
    """Return a function that holds a directory in a process of its own, until the tests end."""
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
    assert re.match(rf"daqakd: error: (out|run): {said(pid)}", error), error
    assert error.count("\n") == 1


def said(pid: int) -> str:
    return rf"another daqakd run works in \S+ \(pid {pid} on \S+ since 20\S+\); wait until"


@pytest.fixture(scope="module")
def held(holder, tmp_path_factory):
    """A directory with nothing in it that another process holds, and the process."""
    folder = tmp_path_factory.mktemp("held")
    process = holder("working_in", folder)
    yield folder, process
    assert {p.name for p in folder.iterdir()} == {".lock", ".lock-holder"}


@pytest.mark.parametrize("command", ["run", "teach", "rank", "search", "train"])
def test_a_held_run_directory_is_refused(command, tree, finished, held, capsys):
    line = [command, str(tree), "--out", str(held[0])]
    line += [] if command in ("run", "teach") else ["--teacher", str(finished)]
    refused(line, held[1].pid, capsys)


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
    with pytest.raises(InputError, match=f"^out: {said(process.pid)}"):
        daqakd.data.prepare(tree, out)
    assert not out.exists()
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


CONFIG = TrainConfig(epochs=1, batch_size=16, workers=0)
FAST: dict[str, Any] = {"images": 60, "workers": 0}


def distill(teacher, folder):
    student = daqakd.quantize(teacher, weight_bits=4, act_bits=4)
    return daqakd.distill(student, teacher, DATA, strategy="minimal", config=CONFIG, run_dir=folder)


DATA = small_dataset(120)
FUNCTIONS: dict[str, Callable[[Any, Path], Any]] = {
    "rank": lambda t, d: daqakd.rank(t, DATA, strategies=["minimal"], run_dir=d, **FAST),
    "rank-until": lambda t, d: daqakd.rank(
        t, DATA, strategies=["minimal"], budget=9.0, run_dir=d, **FAST
    ),
    "search": lambda t, d: daqakd.search(t, DATA, compositions=2, run_dir=d, **FAST),
    "teach": lambda t, d: daqakd.teach(t, DATA, config=CONFIG, run_dir=d),
    "distill": distill,
}


@pytest.fixture(scope="module")
def teacher():
    return daqakd.teach(SmallNet(), DATA, config=TrainConfig(epochs=8, batch_size=16)).model


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_refused_a_held_directory(name, teacher, held):
    with pytest.raises(InputError, match=f"^run_dir: {said(held[1].pid)}"):
        FUNCTIONS[name](teacher, held[0])


def test_results_are_not_saved_into_a_held_directory(teacher, held):
    folder, process = held
    ranking = daqakd.rank(teacher, DATA, strategies=["minimal"], **FAST)
    for result in (ranking, daqakd.search(teacher, DATA, compositions=2, **FAST)):
        with pytest.raises(InputError, match=f"^directory: {said(process.pid)}"):
            result.save(folder)
    with pytest.raises(InputError, match=f"^out: {said(process.pid)}"):
        bench_into(folder, ("lsq",), (64,), ("float32",), "cpu", 1)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_holds_its_directory_while_it_works(name, teacher, tmp_path):
    """Another thread is another run, even of the same process, and by another path."""
    link, seen = tmp_path / "link", []
    link.symlink_to(tmp_path)

    def look(*_: Any) -> None:
        with ThreadPoolExecutor(1) as pool, pytest.raises(InputError, match="another daqakd run"):
            pool.submit(FUNCTIONS["teach"], SmallNet(), link).result()
        seen.append(1)

    model = SmallNet()
    model.load_state_dict(teacher.state_dict())
    model.register_forward_hook(lambda *_: None if seen else look())
    FUNCTIONS[name](model, tmp_path)
    assert seen
    assert not (tmp_path / ".lock-holder").exists()
    FUNCTIONS["teach"](SmallNet(), link / "next")


def test_a_run_may_take_its_own_directory_again(teacher, tmp_path):
    with working_in(tmp_path):
        (tmp_path / ".a.json.1-01234567.tmp").touch()  # a writer's, who is at work
        FUNCTIONS["rank"](teacher, tmp_path).save(tmp_path)
        assert (tmp_path / ".a.json.1-01234567.tmp").exists()
        with ThreadPoolExecutor(1) as pool, pytest.raises(InputError, match="run_dir: another"):
            pool.submit(FUNCTIONS["rank"], teacher, tmp_path).result()
    FUNCTIONS["rank"](teacher, tmp_path)
    assert not list(tmp_path.glob(".a.*"))

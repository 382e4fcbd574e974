"""What the system refuses: one line that names the file or the stream, and nothing is lost."""

import errno
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from daqakd import InputError, _ranks
from daqakd.cli._job import chosen_device
from daqakd.cli.main import main

from ..helpers.refusals import fails

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["ranking.json", "ranking.parts"])
@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "No space left on device; free some space and run the same command again"),
        (errno.EACCES, "Permission denied; change its permissions, or use another --out"),
        (errno.EROFS, "Read-only file system; use another --out"),
        (errno.EIO, "Input/output error; check the path, then run the same command again"),
    ],
    ids=["full", "forbidden", "read-only", "broken"],
)
def test_what_the_system_refuses(
    tree, finished, tmp_path, monkeypatch, name, code, message, capsys
):
    real = os.replace

    def replace(old, new):
        if name in str(new):
            raise OSError(code, os.strerror(code), str(old), None, str(new))
        real(old, new)

    line = ["rank", str(tree), "--teacher", str(finished), "--out", str(tmp_path)]
    line += ["--strategies", "minimal"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        fails(line, f"{name}.*: {message}", capsys)
    assert not list(tmp_path.rglob("*.tmp"))
    assert main(line) == 0


@pytest.mark.parametrize("command", [["--help"], ["doctor"], ["rank", "--help"]])
def test_an_output_on_a_full_disk(command):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "daqakd", *command],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert re.fullmatch(
        "daqakd: error: standard output: No space left on device; free .*\n", done.stderr
    )


SLOW = (pytest.param(columns, marks=pytest.mark.slow) for columns in ("", "20"))


@pytest.mark.parametrize("columns", ["0", "1", "x", *SLOW])
def test_any_width_shows_everything(columns):
    done = subprocess.run(
        [sys.executable, "-m", "daqakd", "doctor"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": columns},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "torchvision" in done.stdout
    assert "lsq" in done.stdout


@pytest.mark.parametrize("command", [["--help"], ["doctor"], ["nope"]])
def test_a_closed_output(command):
    line = [
        sys.executable,
        "-c",
        "import os, sys; os.close(1); os.execv(sys.argv[1], sys.argv[1:])",
    ]
    line += [sys.executable, "-m", "daqakd", *command]
    done = subprocess.run(line, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == (2 if command == ["nope"] else 0)


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-"])
def test_a_closed_stream_of_errors(closed):
    command = f"{sys.executable} -m daqakd doctor {closed}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0
    assert not done.stderr


def test_an_output_whose_reader_left_is_no_error(monkeypatch, capsys):
    def gone(*_, **__):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("daqakd._console.console.print", gone)
    assert main(["doctor"]) == 1
    assert not capsys.readouterr().err


def test_another_broken_pipe_is_one(monkeypatch, capsys):
    def gone(*_):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe", "worker")

    monkeypatch.setattr("daqakd.cli.doctor.environment", gone)
    fails(["doctor"], "worker: Broken pipe; check the path", capsys)


@pytest.mark.parametrize(("here", "gpus", "refused"), [("3", 2, True), ("2", 2, False)])
def test_more_ranks_than_gpus(monkeypatch, here, gpus, refused):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr(_ranks, "_place", _ranks._Place(0, int(here)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    told = r"^device: 3 ranks on a machine with 2 GPU\(s\); "
    with pytest.raises(InputError, match=told) if refused else nullcontext():
        assert chosen_device("auto").type == "cuda"
    assert chosen_device("cpu").type == "cpu"

"""Jobs killed at random, with everything that a checkpoint holds: one process, and two ranks."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..helpers.small import write_images
from .test_safety import ROOT, SHORT, checksums

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
KILLS = 10
KEPT: tuple[str, ...] = ("--ema", "0.9", "--accumulate", "2", "--clip-grad", "1")
KEPT += ("--checkpoint-seconds", "0.1")
RANKS = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
LAUNCHERS = {"one process": (), "two ranks": RANKS}


def started(launcher: str, tree: Path, out: Path) -> subprocess.Popen:
    line = [sys.executable, *LAUNCHERS[launcher], "-m", "daqakd", "run", str(tree)]
    return subprocess.Popen(
        [*line, "--out", str(out), *SHORT, *KEPT],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # a core is free to make batches ahead
    )


def workers(job: subprocess.Popen) -> list[int]:
    """Return the processes of the ranks, or that of the job where it has none."""
    file = Path(f"/proc/{job.pid}/task/{job.pid}/children")
    return [int(pid) for pid in file.read_text().split()]


def kill_one(job: subprocess.Popen, launcher: str, chance: random.Random) -> bool:
    """Kill a rank, and the job with it; say whether it still ran."""
    if job.poll() is not None:
        return False
    try:
        os.kill(chance.choice(workers(job)) if LAUNCHERS[launcher] else job.pid, signal.SIGKILL)
    except (IndexError, ProcessLookupError):
        job.kill()
    return job.wait(300) != 0


@pytest.mark.skipif(sys.platform != "linux", reason="finds the ranks in /proc")
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ten_kills_change_nothing(launcher, tmp_path):
    tree, chance, killed = write_images(tmp_path / "tree"), random.Random(7), 0
    begin = time.monotonic()
    assert started(launcher, tree, tmp_path / "whole").wait() == 0
    seconds, wanted = time.monotonic() - begin, checksums(tmp_path / "whole")
    for number in range(100):
        out = tmp_path / f"run{number}"
        job = started(launcher, tree, out)
        while True:
            time.sleep(chance.uniform(0.4, 1.0) * seconds)
            if not kill_one(job, launcher, chance):
                break
            killed += 1
            job = started(launcher, tree, out)
            if killed >= KILLS:
                break
        assert job.wait() == 0
        assert checksums(out) == wanted
        if killed >= KILLS:
            return
    raise AssertionError(f"only {killed} kills")

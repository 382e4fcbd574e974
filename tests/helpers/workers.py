"""Commands in processes of their own that are killed, and continued by two workers at once."""

import random
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def kill_twice_then_finish(command: Sequence[str], rows: Path) -> None:
    """Kill the command soon after it has written one file into ``rows``, again after four."""
    draw = random.Random(0)
    for count in (1, 4):
        worker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        while len([*rows.glob("*.json")]) < count:
            assert worker.poll() is None
            time.sleep(0.1)
        time.sleep(draw.uniform(0, 1))
        worker.kill()
        worker.wait()
    workers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]

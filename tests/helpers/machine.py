"""The same work with other numbers of threads and on other instruction sets."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import torch

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
each_instruction_set = pytest.mark.parametrize("instruction_set", ["avx2", "baseline"])


def with_threads(run: Callable[[], T], counts: tuple[int, ...] = (1, 2, 3, 7)) -> list[T]:
    """Return what ``run`` gives with each number of threads."""
    before, results = torch.get_num_threads(), []
    try:
        for count in counts:
            torch.set_num_threads(count)
            results.append(run())
    finally:
        torch.set_num_threads(before)
    return results


def printed_by(code: str, **environment: str) -> str:
    """Return what ``code`` prints in a new process with these environment variables."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()

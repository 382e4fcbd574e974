"""The op tests of the Triton kernels, by Triton's interpreter, in a process of their own."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

STEMS = ("lsq", "pact", "dorefa", "ewgs")
QUICK = "triton and not opcheck and not float64 and not (n15 or n16 or n17 or n127 or n1023)"


def interpret(stem: str, expression: str) -> None:
    root = Path(__file__).parents[1]
    options = ["-q", "-p", "no:cacheprovider", "-k", f"{stem} and {expression}", "-rs"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *options,
            f"tests/test_{stem}.py",
            "tests/test_contract.py",
        ],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    skipped = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert all("not torch.float64" in line for line in skipped), skipped
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 50


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("stem", STEMS)
def test_quick_part(stem):
    interpret(stem, QUICK)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("stem", STEMS)
def test_everything(stem):
    interpret(stem, "triton")

"""The op tests of the Triton kernels, by Triton's interpreter, in a process of their own."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

STEMS = ("lsq", "pact", "dorefa", "ewgs", "many", "augment")
FILES = {"augment": "test_augment_backends"}
QUICK = "triton and not opcheck and not float64 and not n1023"


def interpret(stem: str, expression: str, marked: str) -> None:
    root = Path(__file__).parents[1]
    chosen = ["-k", f"{stem} and {expression}", "-m", marked]
    options = ["-q", "-p", "no:cacheprovider", "-rs", *chosen]
    files = [f"tests/{FILES.get(stem, f'test_{stem}')}.py", "tests/test_contract.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    skipped = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert all("not torch.float64" in line for line in skipped), skipped
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 25


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("stem", STEMS)
def test_quick_part(stem):
    interpret(stem, QUICK, "not slow and not gpu")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("stem", STEMS)
def test_everything(stem):
    interpret(stem, "triton", "not gpu")

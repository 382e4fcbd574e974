"""The op tests of the Triton kernels, by Triton's interpreter, in a process of their own."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

# least passing tests of the quick part, nine tenths of them: a renamed factor would select few
STEMS = {
    "lsq": 75,
    "pact": 124,
    "dorefa": 234,
    "ewgs": 87,
    "many": 35,
    "codes": 166,
    "cmi": 68,
    "kd_loss": 147,
    "augment": 33,
    "bn_act_quant": 115,
}
OWN = {"augment": "augment_backends"}  # the other files have real sizes
COMMON = ("tests/ops/test_contract.py", "tests/ops/test_quantizer_laws.py")
QUICK = "triton and not opcheck and not float64 and not n1023"


def run_tests(files: list[str], expression: str, marked: str) -> tuple[int, list[str]]:
    """Run tests by the interpreter; return how many passed, and the lines on what was skipped."""
    root = Path(__file__).parents[2]
    options = ["-q", "-p", "no:cacheprovider", "-rs", "-k", expression, "-m", marked]
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
    return int(re.findall(r"(\d+) passed", done.stdout)[0]), skipped


def interpret(stem: str, expression: str, marked: str) -> None:
    own = sorted(Path(__file__).parents[1].joinpath("ops").glob(f"test_{OWN.get(stem, stem)}*.py"))
    files = [*map(str, own), *COMMON]
    passed, skipped = run_tests(files, f"{stem} and {expression}", marked)
    assert all("not torch.float64" in line for line in skipped), skipped
    assert passed >= STEMS[stem]


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("stem", STEMS)
def test_quick_part(stem):
    interpret(stem, QUICK, "not slow and not gpu")


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_strictness():
    passed, skipped = run_tests(["tests/backends/test_strict_interpreter.py"], "test", "not gpu")
    assert (passed, skipped) == (5, [])


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_training_steps():
    passed, skipped = run_tests(["tests/backends/test_models.py"], "slim and triton", "not gpu")
    assert (passed, skipped) == (4, [])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("stem", STEMS)
def test_everything(stem):
    interpret(stem, "triton", "not gpu")

"""The op tests of the Triton kernels, by Triton's interpreter, in processes of their own."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = [
    pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed"),
    pytest.mark.timeout(3600),
]
ROOT = Path(__file__).parents[2]

# least passing tests of the quick part, nine tenths of them: a renamed factor would select few
STEMS = {
    "lsq": 53,
    "pact": 85,
    "dorefa": 162,
    "ewgs": 62,
    "lsqplus": 40,
    "seq": 75,
    "many": 32,
    "codes": 121,
    "cmi": 63,
    "kd_loss": 146,
    "augment": 33,
    "bn_act_quant": 91,
}
OWN = {"augment": "augment_backends"}  # the other files have real sizes
COMMON = ("tests/ops/test_contract.py", "tests/ops/test_quantizer_laws.py")
QUICK = "triton and not opcheck and not float64 and not bfloat16 and not n1023"
STEPS = ("tests/backends/test_models.py", "slim and triton")
STRICT = ("tests/backends/test_strict_interpreter.py", "strict_interpreter")
# side by side, as long as each other; a start of Python, and COMMON's collection, for all of a half
HALVES = (
    ("lsq", "pact", "dorefa", "ewgs", "lsqplus", "seq", "many", "kd_loss"),
    ("codes", "cmi", "augment", "bn_act_quant"),
)
Outcomes = dict[str, str]  # of each test: empty where it passed, else what was said


def own_files(stem: str) -> list[str]:
    found = sorted(ROOT.glob(f"tests/ops/test_{OWN.get(stem, stem)}*.py"))
    return [str(file.relative_to(ROOT)) for file in found]


def run_tests(report: Path, files: list[str], expression: str, marked: str) -> Outcomes:
    """Run tests by the interpreter, with a report as XML."""
    options = ["-q", "-p", "no:cacheprovider", f"--junit-xml={report}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-k", expression, "-m", marked, *files],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout[-4000:]
    return {
        f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}": "".join(
            f"{part.tag}: {part.get('message')}\n{part.text}"
            for part in case
            if part.tag != "properties"
        )
        for case in ElementTree.parse(report).iter("testcase")
    }


def check(stem: str, outcomes: Outcomes) -> None:
    files = (*own_files(stem), *COMMON)
    own = {name: said for name, said in outcomes.items() if name.startswith(files) and stem in name}
    told = {name: said for name, said in own.items() if said}
    assert all("skipped: " in said and "not torch.float64" in said for said in told.values()), told
    assert len(own) - len(told) >= STEMS[stem]


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> Outcomes:
    reports = tmp_path_factory.mktemp("reports")

    def run(half: tuple[str, ...]) -> Outcomes:
        first = half == HALVES[0]
        file, others = STEPS if first else STRICT
        files = [file, *COMMON, *(file for stem in half for file in own_files(stem))]
        expression = f"({' or '.join(half)}) and {QUICK} or ({others})"
        return run_tests(reports / half[0], files, expression, "not slow and not gpu")

    with ThreadPoolExecutor() as pool:
        return {name: said for half in pool.map(run, HALVES) for name, said in half.items()}


@pytest.mark.parametrize("stem", STEMS)
def test_quick_part(stem, quick):
    check(stem, quick)


@pytest.mark.parametrize(("file", "count"), [(STRICT[0], 5), (STEPS[0], 4)])
def test_all_of_a_file(file, count, quick):
    own = [said for name, said in quick.items() if name.startswith(file)]
    assert own == [""] * count


@pytest.mark.slow
@pytest.mark.parametrize("stem", STEMS)
def test_everything(stem, tmp_path):
    files = [*own_files(stem), *COMMON]
    found = run_tests(tmp_path / "report", files, f"{stem} and triton", "not gpu")
    check(stem, found)

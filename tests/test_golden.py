"""What is ours alone has the same bits on every machine: ops, packed codes, draws and pixels.

After a change that is meant, renew ``golden.json``: ``python -m tests.test_golden``.
"""

import json
from functools import cache
from pathlib import Path

import pytest

from daqakd.backends import native

from .helpers.golden import RESULTS, RUNS, hashes
from .helpers.machine import printed_by

FILE = Path(__file__).with_name("golden.json")


@cache
def golden() -> dict[str, dict[str, str]]:
    return json.loads(FILE.read_text())


def refusal(backend: str) -> str | None:
    """Return why the bits cannot be compared on this machine."""
    return native.FAILURES["cpu"] if backend == "native" else None


def different() -> list[tuple[str, str]]:
    """Return the results, and their backends, that have other bits than the file says."""
    comparable = [run for run in RUNS if refusal(run[1]) is None]
    return [run for run in comparable if not hashes(*run).items() <= golden()[run[0]].items()]


def test_the_file_has_every_result():
    assert golden().keys() == RESULTS.keys()


@pytest.mark.parametrize(("name", "backend"), RUNS)
def test_bits(name, backend):
    if refusal(backend) is not None:
        pytest.skip(refusal(backend))
    found, wanted = hashes(name, backend), golden()[name]
    kinds = wanted.keys() if backend == "native" else wanted.keys() - {"native"}
    assert found == {kind: wanted[kind] for kind in kinds}


@pytest.mark.parametrize(("own", "torchs"), [("avx2", "avx2"), ("baseline", "default")])
def test_bits_on_other_instruction_sets(own, torchs):
    code = "from tests import test_golden as t; print(t.different())"
    assert printed_by(code, DAQAKD_CPU=own, ATEN_CPU_CAPABILITY=torchs) == "[]"


if __name__ == "__main__":
    made = {name: hashes(name, backend) for name, backend in RUNS}  # native last: all kinds
    FILE.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")

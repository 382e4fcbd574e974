"""LSQ, forward and backward: ``pytest benchmarks/bench_lsq.py --benchmark-json=bench.json``."""

import os

import pytest

from daqakd.report.bench import DTYPES, PER, SIZES
from daqakd.report.contestants_lsq import case, contestants

from .conftest import DEVICE

CHOSEN = os.environ.get("DAQAKD_BENCH_SIZES", ",".join(map(str, SIZES)))
CONTESTANTS = contestants(DEVICE)


@pytest.mark.parametrize("per", PER)
@pytest.mark.parametrize("size", [int(size) for size in CHOSEN.split(",")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CONTESTANTS)
def test_forward_and_backward(name, dtype, size, per, repeat, time_row):
    if name == "torch-op" and dtype != "float32" and per == "channel":
        pytest.skip("PyTorch's op takes no float32 steps for bfloat16 channels")
    time_row(case(size, DTYPES[dtype], per, DEVICE), CONTESTANTS[name])

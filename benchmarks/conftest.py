"""How a row is measured: verified first, contestants in turn, inputs rotated beyond the cache."""

import itertools
import os

import pytest
import torch

from . import floor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BEYOND_CACHE = 2**28  # bytes of inputs that a row goes round
REPEATS = int(os.environ.get("DAQAKD_BENCH_REPEATS", "3"))


def pytest_configure(config):
    config.option.benchmark_timer = "benchmarks.floor.timer"
    config.option.benchmark_disable_gc = True


def pytest_generate_tests(metafunc):
    if "repeat" in metafunc.fixturenames:
        metafunc.parametrize("repeat", range(REPEATS))


def pytest_collection_modifyitems(items):
    """Let all contestants run before any runs again: slow drift then hits each alike."""
    items.sort(
        key=lambda item: item.callspec.params.get("repeat", 0) if hasattr(item, "callspec") else 0
    )


@pytest.fixture
def device() -> str:
    return DEVICE


@pytest.fixture
def time_row(benchmark):
    """Time ``run`` on inputs made by ``make``, after ``verify`` has accepted its result."""

    def measure(run, make, verify, *, op: str, numel: int, dtype: torch.dtype, device: str) -> None:
        first = make()
        verify(run(*first), first)
        copies = max(1, min(8, BEYOND_CACHE // max(1, 2 * numel * dtype.itemsize)))
        inputs = itertools.cycle([first, *(make() for _ in range(copies - 1))])
        rounds = 5 if numel >= 2**22 else 50
        benchmark.pedantic(run, setup=lambda: (next(inputs), {}), rounds=rounds, warmup_rounds=2)
        seconds = floor.floor_seconds(op, numel, dtype, device)
        benchmark.extra_info |= {
            "op": op,
            "numel": numel,
            "dtype": str(dtype).removeprefix("torch."),
            "device": device,
            "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
            "torch": torch.__version__,
            "floor_seconds": seconds,
            "fraction_of_floor": seconds / benchmark.stats.stats.median,
        }

    return measure

"""Timing by pytest-benchmark of the cases and contestants that ``daqakd bench`` has, too."""

import os

import pytest
import torch

from daqakd.report.measure import Case, Contestant, problem, rotation

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
REPEATS = int(os.environ.get("DAQAKD_BENCH_REPEATS", "3"))


def pytest_configure(config):
    config.option.benchmark_timer = "daqakd.report.floor.timer"
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
def time_row(benchmark):
    """Time a contestant on a case, after its result was accepted."""

    def measure(case: Case, contestant: Contestant) -> None:
        run = case.bind(contestant)
        wrong = problem(case, run)
        assert wrong is None, wrong
        inputs = rotation(case)
        rounds = 5 if case.numel >= 2**22 else 50
        benchmark.pedantic(run, setup=lambda: (next(inputs), {}), rounds=rounds, warmup_rounds=2)
        seconds = case.floor_seconds()
        benchmark.extra_info |= {
            "op": case.op,
            "numel": case.numel,
            "dtype": str(case.dtype).removeprefix("torch."),
            "device": case.device,
            "gpu": torch.cuda.get_device_name() if case.device == "cuda" else None,
            "torch": torch.__version__,
            "floor_seconds": seconds,
            "fraction_of_floor": seconds / benchmark.stats.stats.median,
        }

    return measure

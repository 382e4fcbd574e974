"""Timing by pytest-benchmark of the cases and providers of ``daqakd bench``.

``pytest benchmarks`` times small inputs, each provider once. DAQAKD_BENCH_SIZES=1024,16777216,
DAQAKD_BENCH_DTYPES=float32,bfloat16, DAQAKD_BENCH_IMAGES=128, DAQAKD_BENCH_REPEATS=3 and
``-m "not gpu"``, with which torch.compile runs too, ask for more.
"""

import os
from functools import reduce

import pytest
import torch

from daqakd._ops import BACKENDS
from daqakd.bench.measure import Benchmark, problem, rotation
from daqakd.bench.providers import providers_of
from daqakd.bench.run import DTYPES

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
REPEATS = int(os.environ.get("DAQAKD_BENCH_REPEATS", "1"))
CHOSEN = [int(s) for s in os.environ.get("DAQAKD_BENCH_SIZES", "4096").split(",")]
DTYPE_NAMES = os.environ.get("DAQAKD_BENCH_DTYPES", "float32").split(",")
IMAGES = int(os.environ.get("DAQAKD_BENCH_IMAGES", "8"))


def each_case(benchmark: Benchmark, sizes=CHOSEN):
    """Parametrize a test by all forms, sizes, dtypes and providers of a benchmark."""
    factors = {
        "form": benchmark.forms,
        "size": sizes,
        "dtype": DTYPE_NAMES,
        "name": [provider_param(name) for name in providers_of(benchmark, DEVICE)],
    }
    marks = [pytest.mark.parametrize(*factor) for factor in factors.items()]
    return lambda test: reduce(lambda marked, mark: mark(marked), marks, test)


def provider_param(name: str):
    """Return a provider's parameter; compiling takes seconds for every case."""
    return pytest.param(name, marks=[pytest.mark.slow] if name.endswith("compile") else [])


def pytest_configure(config):
    config.option.benchmark_timer = "daqakd.bench.roofline.timer"
    config.option.benchmark_disable_gc = True


def pytest_generate_tests(metafunc):
    if "repeat" in metafunc.fixturenames:
        metafunc.parametrize("repeat", range(REPEATS))


def pytest_collection_modifyitems(items):
    """Let all providers run before any runs again: slow drift then hits each alike."""
    items.sort(
        key=lambda item: item.callspec.params.get("repeat", 0) if hasattr(item, "callspec") else 0
    )


@pytest.fixture
def time_case(benchmark):
    """Time a provider on a case, after its result was accepted."""

    def measure(of: Benchmark, name: str, dtype: str, size: int, form: str) -> None:
        case = of.case(size, DTYPES[dtype], form, DEVICE)
        provider = providers_of(of, DEVICE)[name]
        run = case.bind(provider)
        wrong = problem(case, run, getattr(provider, "excused", ()))
        if wrong is not None and name not in BACKENDS:
            pytest.skip(f"{name}: {wrong}")
        assert wrong is None, wrong
        inputs = rotation(case)
        seconds = case.roofline_seconds()
        rounds = 5 if seconds is None or case.numel >= 2**22 else 50
        benchmark.pedantic(run, setup=lambda: (next(inputs), {}), rounds=rounds, warmup_rounds=2)
        benchmark.extra_info |= {
            "op": case.op,
            "numel": case.numel,
            "dtype": str(case.dtype).removeprefix("torch."),
            "device": case.device,
            "gpu": torch.cuda.get_device_name() if case.device == "cuda" else None,
            "torch": torch.__version__,
            "floor_seconds": seconds,
            "fraction_of_floor": seconds and seconds / benchmark.stats.stats.median,
        }

    return measure

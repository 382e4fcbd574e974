"""A training step: ``pytest benchmarks/bench_step.py --benchmark-json=bench.json``."""

from daqakd.bench.step import STEP

from .conftest import IMAGES, each_case


@each_case(STEP, sizes=(IMAGES,))
def test_step(name, dtype, size, form, repeat, time_case):
    time_case(STEP, name, dtype, size, form)

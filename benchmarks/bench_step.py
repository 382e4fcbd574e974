"""A training step: ``pytest benchmarks/bench_step.py --benchmark-json=bench.json``."""

from daqakd.bench.run import IMAGES
from daqakd.bench.step import STEP

from .conftest import each_row


@each_row(STEP, sizes=(IMAGES,))
def test_step(name, dtype, size, form, repeat, time_row):
    time_row(STEP, name, dtype, size, form)

"""EWGS, forward and backward: ``pytest benchmarks/bench_ewgs.py --benchmark-json=bench.json``."""

from daqakd.bench.ewgs import EWGS

from .conftest import each_case


@each_case(EWGS)
def test_forward_and_backward(name, dtype, size, form, repeat, time_case):
    time_case(EWGS, name, dtype, size, form)

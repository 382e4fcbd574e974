"""LSQ, forward and backward: ``pytest benchmarks/bench_lsq.py --benchmark-json=bench.json``."""

from daqakd.bench.lsq import LSQ

from .conftest import each_case


@each_case(LSQ)
def test_forward_and_backward(name, dtype, size, form, repeat, time_case):
    time_case(LSQ, name, dtype, size, form)

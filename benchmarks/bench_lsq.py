"""LSQ, forward and backward: ``pytest benchmarks/bench_lsq.py --benchmark-json=bench.json``."""

from daqakd.bench.lsq import LSQ

from .conftest import each_row


@each_row(LSQ)
def test_forward_and_backward(name, dtype, size, form, repeat, time_row):
    time_row(LSQ, name, dtype, size, form)

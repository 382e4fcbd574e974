"""LSQ+ both ways: ``pytest benchmarks/bench_lsqplus.py --benchmark-json=bench.json``."""

from daqakd.bench.lsqplus import LSQPLUS

from .conftest import each_case


@each_case(LSQPLUS)
def test_forward_and_backward(name, dtype, size, form, repeat, time_case):
    time_case(LSQPLUS, name, dtype, size, form)

"""PACT, forward and backward: ``pytest benchmarks/bench_pact.py --benchmark-json=bench.json``."""

from daqakd.bench.pact import PACT

from .conftest import each_case


@each_case(PACT)
def test_forward_and_backward(name, dtype, size, form, repeat, time_case):
    time_case(PACT, name, dtype, size, form)

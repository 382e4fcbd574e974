"""SEQ both ways: ``pytest benchmarks/bench_seq.py --benchmark-json=bench.json``."""

from daqakd.bench.seq import SEQ

from .conftest import each_case


@each_case(SEQ)
def test_forward_and_backward(name, dtype, size, form, repeat, time_case):
    time_case(SEQ, name, dtype, size, form)

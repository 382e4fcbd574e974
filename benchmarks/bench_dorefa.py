"""DoReFa: ``pytest benchmarks/bench_dorefa.py --benchmark-json=bench.json``."""

from daqakd.bench.dorefa import DOREFA_ACTIVATION, DOREFA_WEIGHT

from .conftest import each_case


@each_case(DOREFA_ACTIVATION)
def test_activation(name, dtype, size, form, repeat, time_case):
    time_case(DOREFA_ACTIVATION, name, dtype, size, form)


@each_case(DOREFA_WEIGHT)
def test_weight(name, dtype, size, form, repeat, time_case):
    time_case(DOREFA_WEIGHT, name, dtype, size, form)

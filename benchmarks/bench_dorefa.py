"""DoReFa: ``pytest benchmarks/bench_dorefa.py --benchmark-json=bench.json``."""

from daqakd.bench.dorefa import DOREFA_ACTIVATION, DOREFA_WEIGHT

from .conftest import each_row


@each_row(DOREFA_ACTIVATION)
def test_activation(name, dtype, size, form, repeat, time_row):
    time_row(DOREFA_ACTIVATION, name, dtype, size, form)


@each_row(DOREFA_WEIGHT)
def test_weight(name, dtype, size, form, repeat, time_row):
    time_row(DOREFA_WEIGHT, name, dtype, size, form)

"""All weights in one call: ``pytest benchmarks/bench_many.py --benchmark-json=bench.json``."""

from daqakd.bench.many import MANY, RESNET20

from .conftest import each_row


@each_row(MANY)
def test_alike(name, dtype, size, form, repeat, time_row):
    time_row(MANY, name, dtype, size, form)


@each_row(RESNET20, sizes=[0])
def test_resnet20(name, dtype, size, form, repeat, time_row):
    time_row(RESNET20, name, dtype, size, form)

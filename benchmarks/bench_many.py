"""All weights in one call: ``pytest benchmarks/bench_many.py --benchmark-json=bench.json``."""

from daqakd.bench.many import MANY, RESNET20

from .conftest import each_case


@each_case(MANY)
def test_equal_sizes(name, dtype, size, form, repeat, time_case):
    time_case(MANY, name, dtype, size, form)


@each_case(RESNET20, sizes=[0])
def test_resnet20(name, dtype, size, form, repeat, time_case):
    time_case(RESNET20, name, dtype, size, form)

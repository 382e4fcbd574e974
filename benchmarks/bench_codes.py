"""Packed codes: ``pytest benchmarks/bench_codes.py --benchmark-json=bench.json``."""

from daqakd.bench.codes import CODES

from .conftest import each_case


@each_case(CODES)
def test_pack_and_unpack(name, dtype, size, form, repeat, time_case):
    time_case(CODES, name, dtype, size, form)

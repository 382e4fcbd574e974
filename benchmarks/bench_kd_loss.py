"""Distillation loss: ``pytest benchmarks/bench_kd_loss.py --benchmark-json=bench.json``."""

from daqakd.bench.kd_loss import KD_LOSS

from .conftest import each_case


@each_case(KD_LOSS)
def test_forward_and_backward(name, dtype, size, form, repeat, time_case):
    time_case(KD_LOSS, name, dtype, size, form)

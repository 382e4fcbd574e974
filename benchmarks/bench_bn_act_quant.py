"""Norm, activation and quantizer: ``pytest benchmarks/bench_bn_act_quant.py --benchmark-only``."""

from daqakd.bench.bn_act_quant import BN_ACT_QUANT

from .conftest import each_case


@each_case(BN_ACT_QUANT)
def test_forward_and_backward(name, dtype, size, form, repeat, time_case):
    time_case(BN_ACT_QUANT, name, dtype, size, form)

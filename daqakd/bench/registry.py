"""The benchmarks by name; a benchmark's module is imported when it is asked for, torch with it."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .measure import Benchmark

BENCHMARKS = {  # module:attribute
    "lsq": "lsq:LSQ",
    "pact": "pact:PACT",
    "dorefa_activation": "dorefa:DOREFA_ACTIVATION",
    "dorefa_weight": "dorefa:DOREFA_WEIGHT",
    "ewgs": "ewgs:EWGS",
    "lsqplus": "lsqplus:LSQPLUS",
    "seq": "seq:SEQ",
    "codes": "codes:CODES",
    "bn_act_quant": "bn_act_quant:BN_ACT_QUANT",
    "kd_loss": "kd_loss:KD_LOSS",
    "many": "many:MANY",
    "resnet20": "many:RESNET20",
    "step": "step:STEP",
    "kd_step": "step:KD_STEP",
    "compiled_step": "step:COMPILED_STEP",
    "augment": "augment:AUGMENT",
}
SIZES = (1024, 65536, 16777216)  # elements
NUM_IMAGES = 128


def find(name: str) -> "Benchmark":
    """Return a benchmark by its name in ``BENCHMARKS``."""
    module, attribute = BENCHMARKS[name].split(":")
    benchmark: Benchmark = getattr(import_module(f".{module}", __package__), attribute)
    return benchmark

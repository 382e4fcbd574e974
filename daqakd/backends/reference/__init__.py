"""The reference backend: every op in plain PyTorch, on any device and in float64 as well.

The other backends are tested against it. Gradients are written with explicit masks, because the
gradient of ``clamp`` at its bounds differs between releases of PyTorch.
"""

from . import (
    augment,
    bn_act_quant,
    cmi,
    codes,
    dorefa,
    ewgs,
    kd_loss,
    lsq,
    lsqplus,
    many,
    pact,
    seq,
)
from ._common import IMPLEMENTATIONS

__all__ = [
    "IMPLEMENTATIONS",
    "augment",
    "bn_act_quant",
    "cmi",
    "codes",
    "dorefa",
    "ewgs",
    "kd_loss",
    "lsq",
    "lsqplus",
    "many",
    "pact",
    "seq",
]

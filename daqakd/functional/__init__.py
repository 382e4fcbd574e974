"""Public functions with gradients: validate, choose a backend, apply."""

from .augment import augment
from .cmi import cmi, cmi_update
from .dorefa import dorefa_activation, dorefa_weight
from .ewgs import ewgs
from .kd_loss import kd_loss
from .lsq import lsq
from .pact import pact

__all__ = [
    "augment",
    "cmi",
    "cmi_update",
    "dorefa_activation",
    "dorefa_weight",
    "ewgs",
    "kd_loss",
    "lsq",
    "pact",
]

"""Public functions with gradients: validate, choose a backend, apply."""

from .augment import augment
from .cmi import cmi, cmi_update
from .color_jitter import color_jitter
from .dorefa import dorefa_activation, dorefa_weight
from .ewgs import ewgs
from .kd_loss import kd_loss
from .lsq import lsq
from .many import dorefa_weight_many, ewgs_many, lsq_many
from .pact import pact
from .resized_crop import resized_crop

__all__ = [
    "augment",
    "cmi",
    "cmi_update",
    "color_jitter",
    "dorefa_activation",
    "dorefa_weight",
    "dorefa_weight_many",
    "ewgs",
    "ewgs_many",
    "kd_loss",
    "lsq",
    "lsq_many",
    "pact",
    "resized_crop",
]

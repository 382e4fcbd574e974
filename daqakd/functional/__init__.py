"""Public functions with gradients: validate, choose a backend, apply."""

from .augment import augment
from .bn_act_quant import bn_act_quant
from .cmi import cmi, cmi_update
from .color_jitter import color_jitter
from .dorefa import dorefa_activation, dorefa_weight
from .dorefa_weight_many import dorefa_weight_many
from .ewgs import ewgs
from .ewgs_many import ewgs_many
from .kd_loss import kd_loss
from .lsq import lsq
from .lsq_many import lsq_many
from .lsqplus import lsqplus
from .pact import pact
from .resized_crop import resized_crop
from .seq import seq

__all__ = [
    "augment",
    "bn_act_quant",
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
    "lsqplus",
    "pact",
    "resized_crop",
    "seq",
]

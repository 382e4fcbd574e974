"""The Triton backend: adapters from the ops to ``daqakd.kernels``, one module per stem."""

from . import augment, cmi, dorefa, ewgs, kd_loss, lsq, many, pact
from ._launch import INSTALLED, INTERPRETED, can_run

__all__ = [
    "INSTALLED",
    "INTERPRETED",
    "augment",
    "can_run",
    "cmi",
    "dorefa",
    "ewgs",
    "kd_loss",
    "lsq",
    "many",
    "pact",
]

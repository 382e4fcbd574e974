"""Who implements the ops: one module per backend, and the choice among them."""

from . import (
    native,
    reference,
    reference_augment,
    reference_cmi,
    reference_many,
    triton,
    triton_cmi,
    triton_kd_loss,
    triton_many,
)
from .select import can_run, choose, forced_backend, use_backend
from .table import together_below

__all__ = [
    "can_run",
    "choose",
    "forced_backend",
    "native",
    "reference",
    "reference_augment",
    "reference_cmi",
    "reference_many",
    "together_below",
    "triton",
    "triton_cmi",
    "triton_kd_loss",
    "triton_many",
    "use_backend",
]

"""Who implements the ops: one module per backend, and the choice among them."""

from . import (
    native,
    reference,
    reference_augment,
    reference_cmi,
    reference_many,
    triton,
    triton_augment,
    triton_many,
)
from .select import can_run, choose, forced_backend, use_backend

__all__ = [
    "can_run",
    "choose",
    "forced_backend",
    "native",
    "reference",
    "reference_augment",
    "reference_cmi",
    "reference_many",
    "triton",
    "triton_augment",
    "triton_many",
    "use_backend",
]

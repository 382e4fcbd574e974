"""The backends of the ops, one module or folder each, and the choice among them."""

from . import native, reference, triton
from .select import FORMULA, can_run, choose, forced_backend, use_backend
from .table import together_below

__all__ = [
    "FORMULA",
    "can_run",
    "choose",
    "forced_backend",
    "native",
    "reference",
    "together_below",
    "triton",
    "use_backend",
]

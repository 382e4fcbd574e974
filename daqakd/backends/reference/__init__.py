"""The truth: every op in plain PyTorch with explicit masks, any device, float64 included.

Gradients never go through ``clamp``: its gradient at the bounds differs between releases.
"""

from . import augment, cmi, dorefa, ewgs, kd_loss, lsq, many, pact
from ._common import IMPLEMENTATIONS

__all__ = ["IMPLEMENTATIONS", "augment", "cmi", "dorefa", "ewgs", "kd_loss", "lsq", "many", "pact"]

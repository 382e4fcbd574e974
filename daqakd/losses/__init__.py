"""Losses of feature distillation, as ``distill(losses=...)`` and ``--kd`` take them."""

from .attention import AT
from .base import DistillationLoss, Loss, Setup
from .contrastive import CRD
from .similarity import SP

LOSSES: dict[str, type[DistillationLoss]] = {"at": AT, "crd": CRD, "sp": SP}
"""By the names of the command line."""
WEIGHTS = {"at": 1000.0, "crd": 0.8, "sp": 3000.0}  # of SQAKD's and DAQAKD's comparisons on CIFAR
"""Weights beside a cross-entropy of weight 1."""

__all__ = ["AT", "CRD", "LOSSES", "SP", "WEIGHTS", "DistillationLoss", "Loss", "Setup"]

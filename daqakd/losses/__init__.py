"""Losses of feature distillation, as ``distill(losses=...)`` and ``--kd`` take them."""

from .attention import AT
from .base import DistillationLoss, Loss, Setup
from .contrastive import CRD
from .correlation import CC
from .decoupled import DKD
from .dist import DIST
from .factor import FT
from .fitnet import FitNet
from .nst import NST
from .pkt import PKT
from .relational import RKD
from .similarity import SP
from .squat import SQuaT
from .vid import VID

LOSSES: dict[str, type[DistillationLoss]] = {
    "at": AT,
    "cc": CC,
    "crd": CRD,
    "dist": DIST,
    "dkd": DKD,
    "fitnet": FitNet,
    "ft": FT,
    "nst": NST,
    "pkt": PKT,
    "rkd": RKD,
    "sp": SP,
    "squat": SQuaT,
    "vid": VID,
}
"""By the names of the command line."""
# dist, dkd, pkt, squat: their papers' code; the others: SQAKD's and DAQAKD's comparisons on CIFAR
WEIGHTS = {
    "at": 1000.0,
    "cc": 0.02,
    "crd": 0.8,
    "dist": 1.0,
    "dkd": 1.0,
    "fitnet": 100.0,
    "ft": 200.0,
    "nst": 50.0,
    "pkt": 30000.0,
    "rkd": 1.0,
    "sp": 3000.0,
    "squat": 1.0,
    "vid": 1.0,
}
"""Weights beside a cross-entropy of weight 1."""

__all__ = [
    "AT",
    "CC",
    "CRD",
    "DIST",
    "DKD",
    "FT",
    "LOSSES",
    "NST",
    "PKT",
    "RKD",
    "SP",
    "VID",
    "WEIGHTS",
    "DistillationLoss",
    "FitNet",
    "Loss",
    "SQuaT",
    "Setup",
]

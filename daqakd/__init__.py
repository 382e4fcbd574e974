"""Rank data augmentations from the teacher, then train the low-bit student with the winner.

``import daqakd`` touches neither torchvision nor a GPU driver.
"""

from . import data, functional, models
from ._errors import InputError
from .augment import ResizedCrop, register_strategy, strategies
from .backends import use_backend
from .quant import calibrate, dequantize, param_groups, quantize, summary
from .ranking import CMIState, Ranking, Search, rank, search
from .train import TrainConfig, distill, teach

__version__ = "0.1.0"

__all__ = [
    "CMIState",
    "InputError",
    "Ranking",
    "ResizedCrop",
    "Search",
    "TrainConfig",
    "calibrate",
    "data",
    "dequantize",
    "distill",
    "functional",
    "models",
    "param_groups",
    "quantize",
    "rank",
    "register_strategy",
    "search",
    "strategies",
    "summary",
    "teach",
    "use_backend",
]

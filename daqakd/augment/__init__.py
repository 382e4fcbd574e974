"""Data augmentation: counter-based draws, named strategies, CutMix, batches."""

from .pipeline import ResizedCrop
from .strategies import PAPER, Strategy, get_strategy, register_strategy, strategies
from .stream import Batch, Stream

__all__ = [
    "PAPER",
    "Batch",
    "ResizedCrop",
    "Strategy",
    "Stream",
    "get_strategy",
    "register_strategy",
    "strategies",
]

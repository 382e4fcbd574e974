"""Data augmentation: counter-based draws, named strategies, CutMix, batches."""

from .clean import clean, clean_inputs
from .inputs import InputSpec
from .pipeline import ResizedCrop
from .strategies import PAPER, Strategy, get_strategy, register_strategy, strategies
from .stream import Batch, Stream

__all__ = [
    "PAPER",
    "Batch",
    "InputSpec",
    "ResizedCrop",
    "Strategy",
    "Stream",
    "clean",
    "clean_inputs",
    "get_strategy",
    "register_strategy",
    "strategies",
]

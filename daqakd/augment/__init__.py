"""Data augmentation: counter-based draws, named strategies, CutMix, batches."""

from .clean import clean, clean_inputs
from .pipeline import ResizedCrop, check_pipeline
from .strategies import PAPER, Strategy, get_strategy, register_strategy, strategies
from .stream import Batch, Stream

__all__ = [
    "PAPER",
    "Batch",
    "ResizedCrop",
    "Strategy",
    "Stream",
    "check_pipeline",
    "clean",
    "clean_inputs",
    "get_strategy",
    "register_strategy",
    "strategies",
]

"""Training: configuration, loop, checkpoints, evaluation, model files."""

from .config import TrainConfig
from .distill import Result, distill, teach
from .evaluate import accuracy

__all__ = ["Result", "TrainConfig", "accuracy", "distill", "teach"]

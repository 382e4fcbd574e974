"""Training: configuration, loop, checkpoints, evaluation, model files."""

from .config import TrainConfig
from .curvature import update_delta
from .evaluate import accuracy
from .trainer import Result, distill, teach

__all__ = ["Result", "TrainConfig", "accuracy", "distill", "teach", "update_delta"]

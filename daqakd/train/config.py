"""``TrainConfig``: every option of a training run, declared once."""

from dataclasses import dataclass
from typing import Literal

from .._config import check_above, check_least, check_types, check_workers
from .._errors import InputError
from ..backends.contract.rows import TEMPERATURES


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of one training run.

    Defaults follow DAQAKD's CIFAR students: Adam, cosine to 0, ``CE + 2 * T^2 * KL``, T = 4.
    """

    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step; an incomplete last batch is dropped."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Adam, or SGD with Nesterov momentum 0.9."""
    lr: float = 1e-3
    """Peak learning rate of the model's parameters."""
    quantizer_lr: float | None = None
    """Peak learning rate of steps, ranges and alphas; a tenth of --lr by default."""
    weight_decay: float = 1e-4
    """Of the model's parameters and PACT's alpha; steps and ranges never decay."""
    warmup_steps: int = 0
    """Steps of linear warm-up before the cosine."""
    temperature: float = 4.0
    """T of the distillation term."""
    ce_weight: float = 1.0
    """Weight of the cross-entropy."""
    kd_weight: float = 2.0
    """Weight of T^2 * KL."""
    label_smoothing: float = 0.0
    """Label mass spread over all classes."""
    calibration_batches: int = 4
    """Training batches that start the activation quantizers."""
    fuse: Literal["auto", "off"] = "auto"
    """auto trains a student with BatchNorm, sum, ReLU and quantizer as one op where they can be;
    off never does. The result is the same model, up to rounding."""
    seed: int = 0
    """Of the initial weights, the order and every draw."""
    workers: int | None = None
    """Processes that augment; chosen from the size of the set by default."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints within an epoch."""

    def check(self) -> None:
        """Raise InputError for values that cannot be meant, wrong types included."""
        check_types(self)
        check_least(self, 1, "epochs", "batch_size", "calibration_batches")
        check_least(self, 0, "quantizer_lr", "weight_decay", "warmup_steps")
        check_workers(self)
        check_least(self, 0, "ce_weight", "kd_weight", "label_smoothing", "checkpoint_seconds")
        check_above(self, 0, "lr", "temperature")
        low, high = TEMPERATURES
        if not low <= self.temperature <= high:
            raise InputError(
                f"temperature: expected from 2^-60 to 2^60, got {self.temperature}; 4 is usual"
            )
        if self.label_smoothing >= 1:
            raise InputError(f"label_smoothing: expected less than 1, got {self.label_smoothing}")

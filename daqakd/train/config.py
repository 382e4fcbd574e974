"""``TrainConfig``: every option of a training run, declared once."""

from dataclasses import dataclass
from typing import Literal

import torch

from .._config import check_above, check_least, check_types, check_workers
from .._errors import InputError, unknown
from ..backends.contract.rows import TEMPERATURES
from ..losses import LOSSES

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of one training run.

    Defaults follow DAQAKD's CIFAR students: Adam, cosine to 0, ``CE + 2 * T^2 * KL``, T = 4.
    """

    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step; an incomplete last batch is dropped."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """Of the model's parameters."""
    quantizer_optimizer: Literal["adam", "adamw", "sgd"] | None = None
    """Of steps, ranges and alphas; the same as --optimizer by default."""
    momentum: float = 0.9
    """Of SGD."""
    nesterov: bool = True
    """Nesterov's form of SGD's momentum."""
    lr: float = 1e-3
    """Peak learning rate of the model's parameters."""
    quantizer_lr: float | None = None
    """Peak learning rate of steps, ranges and alphas; a tenth of --lr by default."""
    weight_decay: float = 1e-4
    """Of the model's parameters and PACT's alpha; steps and ranges never decay."""
    alpha_decay: float | None = None
    """Of PACT's alpha, where it is another than --weight-decay."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """Of the learning rate: cosine to 0, a factor --lr-gamma at every milestone, or none."""
    schedule_by: Literal["step", "epoch"] = "step"
    """Whether the cosine moves with every step, or once an epoch as in the papers on CIFAR."""
    milestones: tuple[int, ...] = ()
    """Epochs after which --schedule step lowers the learning rate."""
    lr_gamma: float = 0.1
    """Factor at each of the milestones."""
    warmup_steps: int = 0
    """Steps of linear warm-up before the schedule."""
    warmup_epochs: int = 0
    """The same in epochs; both add up."""
    warmup_start: float = 0.0
    """Fraction of the peak learning rate that the warm-up starts from."""
    clip_grad: float | None = None
    """Largest norm of all gradients together; longer ones are scaled down to it."""
    accumulate: int = 1
    """Parts that a batch is computed in, one after another: less memory, the same gradients but for
    BatchNorm, which sees a part at a time."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights, evaluated and kept beside them."""
    reestimate_bn: int = 0
    """Training batches from which BatchNorm's statistics are estimated anew at the end."""
    sync_bn: bool = False
    """On several ranks, BatchNorm by the statistics of the whole batch; otherwise each rank goes by
    its share's, and the running ones are their means."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of both models' passes; bf16 is autocast: weights, statistics and the quantizers'
    maths stay float32."""
    compile: bool = False
    """Make both models' training passes by torch.compile; in its graphs no chains are fused by
    --fuse, and the last bits differ. Minutes at the start, less time a step."""
    graph: Literal["auto", "off"] = "off"
    """auto replays a step's passes, loss and gradients as one CUDA graph, where a GPU trains in one
    process without --compile; a model that reads values back runs as it is."""
    damping: float = 0.0
    """Pull of weights to the middle of their codes at the end of the run, from 0 at its start."""
    freeze_oscillating: float | None = None
    """Oscillations a step (a mean with momentum 0.01) above which a weight is frozen; 0.02 to 0.04
    are usual."""
    delta_every: int = 10
    """Epochs between two updates of EWGS's delta, where that is hessian; none at the start."""
    delta_batches: int = 3
    """Training batches whose means the deltas are."""
    diagnose: Literal["auto", "off"] = "auto"
    """auto notes oscillating weights, clipped activations, steps and what has no gradient."""
    tensorboard: bool = False
    """Write the numbers of each epoch for TensorBoard, too, into tb/ of the run directory."""
    temperature: float = 4.0
    """T of the distillation term."""
    ce_weight: float = 1.0
    """Weight of the cross-entropy."""
    kd_weight: float = 2.0
    """Weight of T^2 * KL."""
    label_smoothing: float = 0.0
    """Label mass spread over all classes."""
    kd: str | None = None
    """A loss of features or logits beside these: at, crd, sp and others (daqakd.losses.LOSSES)."""
    kd_loss_weight: float | None = None
    """Its weight; by default that of SQAKD's and DAQAKD's comparisons."""
    taps: tuple[str, ...] = ()
    """Modules that --kd compares, NAME:input for what one is given, logits for a model's result;
    models by name have their own."""
    kd_only: bool = False
    """Train without labels, by T^2 * KL and --kd alone (SQAKD)."""
    no_teacher: bool = False
    """Train by cross-entropy alone (QAT): the teacher's pass does not run."""
    calibration_batches: int = 4
    """Training batches that start the activation quantizers."""
    quantize_from: int = 0
    """Epochs that a student trains at full precision first; its quantizers then start from the
    weights of then. Only from the end of these on it is watched, damped, averaged or the best."""
    bits_schedule: tuple[int, ...] = ()
    """Widths that a student takes one after another, for equal parts of the epochs (those after
    --quantize-from), as in 8 4 2; the last is its own. Layers set to another width keep theirs. It
    is watched, damped, averaged or the best in the last part only."""
    fuse: Literal["auto", "off"] = "auto"
    """auto trains a student with BatchNorm, sum, ReLU and quantizer as one op where they can be;
    off never does. The result is the same model, up to rounding."""
    seed: int = 0
    """Of the initial weights, the order and every draw."""
    workers: int | None = None
    """Processes that augment; chosen from the size of the set by default."""
    prefetch: Literal["auto", "off"] = "auto"
    """auto augments the next batch while the current one trains, where a CPU has free cores or a
    GPU does both; off never does. The bits are the same."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints within an epoch."""

    def check(self) -> None:
        """Raise InputError for values that cannot be meant, wrong types included."""
        check_types(self)
        check_least(self, 1, "epochs", "batch_size", "calibration_batches", "accumulate")
        check_least(self, 1, "delta_every", "delta_batches")
        check_least(self, 0, "quantizer_lr", "weight_decay", "alpha_decay", "momentum", "lr_gamma")
        check_least(self, 0, "warmup_steps", "warmup_epochs", "warmup_start", "reestimate_bn")
        check_workers(self)
        check_least(
            self, 0, "ema", "ce_weight", "kd_weight", "label_smoothing", "checkpoint_seconds"
        )
        check_least(self, 0, "damping", "quantize_from")
        check_above(self, 0, "lr", "temperature", "clip_grad", "freeze_oscillating")
        self._check_schedule()
        self._check_stages()
        self._check_losses()
        if self.batch_size % self.accumulate:
            raise InputError(
                f"accumulate: {self.accumulate} equal parts of {self.batch_size} images do not"
                " exist; choose a divisor of --batch-size"
            )
        for name in ("momentum", "ema", "label_smoothing", "freeze_oscillating"):
            value = getattr(self, name)
            if value is not None and value >= 1:
                raise InputError(f"{name}: expected less than 1, got {value}")
        low, high = TEMPERATURES
        if not low <= self.temperature <= high:
            raise InputError(
                f"temperature: expected from 2^-60 to 2^60, got {self.temperature}; 4 is usual"
            )

    def _check_schedule(self) -> None:
        epochs = list(self.milestones)
        if self.schedule == "step" and not epochs:
            raise InputError("milestones: --schedule step lowers the rate at epochs; name some")
        if epochs != sorted(set(epochs)) or min(epochs, default=1) < 1:
            raise InputError(
                "milestones: expected epochs from 1 on, each later than the one before, got"
                f" {' '.join(map(str, epochs))}"
            )

    def _check_losses(self) -> None:
        check_least(self, 0, "kd_loss_weight")
        if self.kd is not None and self.kd not in LOSSES:
            raise unknown("kd", self.kd, [*LOSSES])
        for name in ("kd_loss_weight", "taps"):
            if self.kd is None and getattr(self, name) not in (None, ()):
                raise InputError(
                    f"{name}: belongs to --kd, which names no loss; add --kd, as in crd"
                )
        for name in ("kd", "kd_only"):
            if self.no_teacher and getattr(self, name):
                raise InputError(
                    f"no_teacher: without a teacher there is nothing to compare, and {name} is"
                    f" {getattr(self, name)}; leave one of them out"
                )

    def _check_stages(self) -> None:
        if self.quantize_from >= self.epochs:
            raise InputError(
                f"quantize_from: {self.quantize_from} epochs at full precision leave none of"
                f" {self.epochs} to train a quantized student in; lower it, or raise --epochs"
            )
        widths = list(self.bits_schedule)
        given = " ".join(map(str, widths))
        if widths != sorted(set(widths), reverse=True) or not set(widths) <= set(range(1, 9)):
            raise InputError(
                f"bits_schedule: expected widths from 1 to 8 bits, each below the one before, got"
                f" {given}"
            )
        left = self.epochs - self.quantize_from
        if len(widths) > left:
            raise InputError(
                f"bits_schedule: {given} are {len(widths)} parts, and there are {left} epochs to"
                " divide; name fewer, or raise --epochs"
            )

"""The learning rate as a table by step: nothing to save, nothing to restore."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from .config import TrainConfig


def scaled(config: TrainConfig, factor: float) -> TrainConfig:
    """Return a configuration for ``factor`` times the epochs, one at least.

    All that counts in epochs or steps becomes shorter along: warm-up, milestones, stages, and the
    epochs between updates of deltas.
    """
    if factor == 1:
        return config
    epochs = max(round(config.epochs * factor), 1)
    names = ("warmup_steps", "warmup_epochs", "quantize_from")
    shorter = {name: round(getattr(config, name) * factor) for name in names}
    shorter["quantize_from"] = min(shorter["quantize_from"], epochs - 1)
    milestones = sorted({max(round(m * factor), 1) for m in config.milestones})
    every = max(round(config.delta_every * factor), 1)
    return replace(
        config, epochs=epochs, milestones=tuple(milestones), delta_every=every, **shorter
    )


def lr_factor(step: float, total: float, warmup: float = 0, start: float = 0.0) -> float:
    """Return the fraction of the peak learning rate: linear warm-up, then cosine to 0.

    Args:
        step: 0-based; ``step == total`` is the end, where the fraction is 0.
        total: steps of the whole training.
        warmup: steps of the warm-up; the peak is reached at ``step == warmup``.
        start: fraction at step 0 of the warm-up.
    """
    if step < warmup:
        return start + (1 - start) * step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def _after_warmup(config: TrainConfig, step: int, epoch: int, steps: int, warmup: int) -> float:
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "step":
        return float(config.lr_gamma ** sum(epoch >= m for m in config.milestones))
    if config.schedule_by == "epoch":
        return lr_factor(epoch * steps, config.epochs * steps, warmup // steps * steps)
    return lr_factor(step, config.epochs * steps, warmup)


def factors(config: TrainConfig, steps: int) -> Tensor:
    """Return the fraction of the peak learning rate at every step of a training.

    The warm-up counts steps also where the schedule behind it counts epochs. A cosine by epoch has
    one value for all steps of an epoch, as ``CosineAnnealingLR`` stepped once an epoch [papers'
    CIFAR recipes].

    Args:
        config: schedule, milestones and warm-up.
        steps: of an epoch.

    Returns:
        float64 ``[epochs * steps]``, on the CPU.
    """
    warmup = config.warmup_steps + config.warmup_epochs * steps
    table = []
    for step in range(config.epochs * steps):
        if step < warmup:
            table.append(config.warmup_start + (1 - config.warmup_start) * step / warmup)
        else:
            table.append(_after_warmup(config, step, step // steps, steps, warmup))
    return torch.tensor(table, dtype=torch.float64)

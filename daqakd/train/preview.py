"""What a training run will take, measured on a few of its steps."""

import time
from collections.abc import Callable
from dataclasses import replace
from math import ceil

import torch
from torch import nn

from ..data import Dataset
from ..quant.surrogate import updated_quantizers
from .config import TrainConfig
from .evaluate import BATCH, accuracy
from .stages import last_stage
from .trainer import Result

STEPS, MOST_STEPS = 2, 512
Train = Callable[[Dataset, TrainConfig], Result]


def training_seconds(
    train: Train, dataset: Dataset, config: TrainConfig, least: float = 0.0
) -> tuple[float, float]:
    """Return the seconds of one step, and those of all epochs, with tests and updates of deltas.

    ``train`` trains a new model every time, without a run directory. With ``least`` there are as
    many steps as take so many seconds: a busy machine's pauses are as long as a few short steps.

    Raises:
        InputError: there are fewer images than a batch has, or it cannot be trained.
    """
    steps = steps_of(dataset, config)
    few = _first_batches(dataset, config, 1)
    plain = replace(config, schedule="constant", milestones=(), warmup_steps=0, warmup_epochs=0)
    plain = replace(plain, reestimate_bn=0, quantize_from=0, delta_every=MOST_STEPS + 2)
    plain = replace(plain, bits_schedule=config.bits_schedule[-1:])
    train(few, replace(plain, epochs=1))  # the first steps compile, allocate and choose
    short = train(few, replace(plain, epochs=1))
    one, long = _step_seconds(train, dataset, plain, short.seconds, least)
    whole = config.epochs * steps * one
    updates = count_updates(long.model, config, steps)
    if updates:
        updating = train(few, replace(plain, epochs=2, delta_every=1))
        whole += updates * max(updating.seconds - short.seconds - one, 0.0)
    seen = config.epochs * len(dataset.heldout) + len(dataset.test)
    return one, whole + seen * _forward_seconds(long.model, dataset)


def _first_batches(dataset: Dataset, config: TrainConfig, count: int) -> Dataset:
    fit = dataset.spread(count * config.batch_size)
    return replace(dataset, fit=fit, heldout=dataset.heldout[:0])


def _step_seconds(
    train: Train, dataset: Dataset, plain: TrainConfig, before: float, least: float
) -> tuple[float, Result]:
    """Return the seconds of one step beyond the first, and the run that they were measured on.

    Steps are those of whole epochs where there are so many: to begin one takes time of its own.
    """
    steps = STEPS
    while True:
        each = min(1 + steps, steps_of(dataset, plain))
        epochs = ceil((1 + steps) / each)
        few = _first_batches(dataset, plain, each)
        long = train(few, replace(plain, epochs=epochs))
        spent = max(long.seconds - before, 0.0)
        if spent >= least or steps >= MOST_STEPS:
            return spent / (epochs * each - 1), long
        steps *= 4


def steps_of(dataset: Dataset, config: TrainConfig) -> int:
    """Return the steps of an epoch: one where all images do not fill a batch."""
    return max(len(dataset.fit) // config.batch_size, 1)


def count_updates(model: nn.Module, config: TrainConfig, steps: int) -> int:
    """Return how many batches all updates of a run's deltas take, of ``steps`` in an epoch."""
    if not updated_quantizers(model):
        return 0
    epochs = range(max(last_stage(config), 1), config.epochs)
    return min(config.delta_batches, steps) * sum(e % config.delta_every == 0 for e in epochs)


def _forward_seconds(model: nn.Module, dataset: Dataset) -> float:
    """Return the seconds that evaluation takes for an image."""
    some = dataset.fit[:BATCH]
    begin = time.monotonic()
    accuracy(model, dataset.train, dataset.inputs, next(model.parameters()).device, some)
    return (time.monotonic() - begin) / len(some)


def peak_bytes(device: torch.device) -> int:
    """Return the most memory that this process has had: on a GPU its tensors', else its own."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # not on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

"""Stages of a student's training: at full precision first, then at widths that become smaller."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from .._errors import InputError
from ..augment import Stream
from ..quant.passing import pass_through, start_anew, uniform_quantizers
from .config import TrainConfig
from .objective import images_of
from .part import Part


@dataclass(frozen=True)
class Stage:
    """From epoch ``first`` on: whether to quantize, and a width other than the student's own."""

    first: int
    quantized: bool = True
    bits: int | None = None


def stages_of(config: TrainConfig) -> list[Stage]:
    """Return the stages in their order; none where the student is quantized all the way.

    The epochs of full precision come first; widths share the others evenly, earlier ones taking
    those that are left over.
    """
    start, widths = config.quantize_from, config.bits_schedule
    stages = [Stage(0, quantized=False)] if start else []
    if not widths:
        return [*stages, Stage(start)] if stages else []
    each, more = divmod(config.epochs - start, len(widths))
    firsts = [start + i * each + min(i, more) for i in range(len(widths))]
    return stages + [Stage(first, bits=bits) for first, bits in zip(firsts, widths, strict=True)]


def last_stage(config: TrainConfig) -> int:
    """Return the first epoch in which a student computes as it will at the end."""
    stages = stages_of(config)
    return stages[-1].first if stages else 0


def first_batches(stream: Stream, config: TrainConfig) -> Iterator[Tensor]:
    """Yield the training images that quantizers start from, the same ones whenever it is called."""
    for batch in islice(stream.epoch(0, config.batch_size), config.calibration_batches):
        yield images_of(batch)


class Stages(Part):
    """Has quantizers pass through, or sets their width, and starts them anew with each stage.

    What starts them are the weights of then and the first training batches. Which stage has begun
    is in the checkpoint: a run that goes on within one keeps its parameters.

    Args:
        student: whose quantizers change in place.
        stages: in their order, the first from epoch 0 on.
        batches: returns the training images to start from.
    """

    name = "stages"
    rewrites = True

    def __init__(
        self, student: nn.Module, stages: list[Stage], batches: Callable[[], Iterable[Tensor]]
    ) -> None:
        self.student, self.stages, self.batches = student, stages, batches
        self.begun = -1

    def before_epoch(self, epoch: int) -> None:
        """Enter the epoch's stage."""
        number = max(i for i, stage in enumerate(self.stages) if stage.first <= epoch)
        stage = self.stages[number]
        pass_through(self.student, not stage.quantized)
        if stage.bits is not None:
            for quantizer in uniform_quantizers(self.student):
                quantizer.set_bits(stage.bits)
        if stage.quantized and number != self.begun:
            start_anew(self.student, self.batches())
        self.begun = number

    def tensors(self) -> dict[str, Tensor]:
        """Return the number of the stage that has begun."""
        return {"begun": torch.tensor(self.begun)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take it back."""
        self.begun = int(tensors["begun"])


@contextmanager
def own_widths_after(student: nn.Module) -> Iterator[None]:
    """Have the student quantize, at its own widths, whatever ends the block."""
    own = [(quantizer, quantizer.bits) for quantizer in uniform_quantizers(student)]
    try:
        yield
    finally:
        pass_through(student, False)
        for quantizer, bits in own:
            if quantizer.bits != bits:
                quantizer.set_bits(bits)


def check_widths(student: nn.Module, config: TrainConfig) -> None:
    """Raise InputError where the schedule does not end with the student's own width."""
    if not config.bits_schedule:
        return
    last, uniform = config.bits_schedule[-1], uniform_quantizers(student)
    other = next((q for q in uniform if q.bits != last), None)
    if other is not None:
        raise InputError(
            f"bits_schedule: ends with {last} bits, and {other.name} has {other.bits}; the last"
            " number is the student's width, of weights and activations both"
        )
    if not uniform:
        raise InputError(
            "bits_schedule: every layer of the student has a width of its own, so none would"
            " follow the schedule; leave it out"
        )

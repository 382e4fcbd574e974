"""When a run updates EWGS's deltas, and by which batches."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor, nn

from .. import _ranks
from ..augment import Batch, Stream
from ..quant.surrogate import updated_quantizers
from .config import TrainConfig
from .curvature import update_delta
from .loop import LossFunction
from .part import Part
from .stages import last_stage


def delta_updates(
    student: nn.Module,
    losses: Callable[..., LossFunction],
    stream: Stream,
    config: TrainConfig,
) -> list[Part]:
    """Return what updates a student's deltas, if it has such; ``losses`` takes it, and options."""
    if not updated_quantizers(student):
        return []
    exact = replace(config, precision="fp32")  # differences of bf16's gradients would be noise
    return [DeltaUpdates(student, losses(student, config=exact), stream, config)]


class DeltaUpdates(Part):
    """Updates the deltas every ``delta_every`` epochs, not at the first, before its first step.

    Args:
        student: with quantizers whose delta is a buffer.
        losses: of the student, in float32.
        stream: the first batches of an epoch are what it goes by.
        config: how often, how many batches, and the seed.
    """

    name = "delta"

    def __init__(
        self, student: nn.Module, losses: LossFunction, stream: Stream, config: TrainConfig
    ) -> None:
        self.student, self.losses, self.stream, self.config = student, losses, stream, config
        self.last = 0  # the epoch of the last update
        self.first_epoch = last_stage(config)

    def before_epoch(self, epoch: int) -> None:
        """Update the deltas, unless a resumed epoch began with that."""
        if epoch == self.last or epoch % self.config.delta_every:
            return
        update_delta(
            self.student,
            lambda batch: self.losses(batch)[0],
            self._batches(epoch),
            seed=self.config.seed,
            epoch=epoch,
        )
        self.last = epoch

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """Yield batches, of each the part that is computed at a time."""
        batches = self.stream.epoch(epoch, self.config.batch_size, 0, _ranks.share)
        for batch in islice(batches, self.config.delta_batches):
            yield batch.split(self.config.accumulate)[0]

    def tensors(self) -> dict[str, Tensor]:
        """Return when it was; the deltas are the model's."""
        return {"last": torch.tensor(self.last)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take it back."""
        self.last = int(tensors["last"])

"""``Part``: what takes part in a training run beside the loss, and is resumed with it."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor


class Part:
    """Averages, schedules, diagnostics: each sees every step, and its state is in the checkpoint.

    All methods do nothing unless they are overridden. Steps count from 0 over the whole run.
    """

    name = ""
    """What its tensors are called in a checkpoint: ``part.<name>.<key>``."""
    first_epoch = 0
    """From which epoch on it takes part; before, only its state is kept."""
    rewrites = False
    """Whether the model may compute something else after :meth:`before_epoch`."""

    def before_epoch(self, epoch: int) -> None:
        """Run before an epoch's first step, and again before what is left of a resumed one."""

    def before_step(self, step: int) -> None:
        """Run before the forward pass."""

    def after_gradients(self, step: int) -> None:
        """Run when a batch's gradients are complete, before they are clipped."""

    def after_backward(self, step: int) -> None:
        """Run between the gradients, clipped already, and the optimizer."""

    def after_step(self, step: int) -> None:
        """Run when the parameters have moved."""

    def end_epoch(self, epoch: int, accuracy: float | None) -> dict[str, float | None]:
        """Return columns for the epoch's row; ``accuracy`` is that on held-out images."""
        return {}

    def after_epoch(self, row: dict[str, Any]) -> None:
        """Run when the epoch's row is complete, before the checkpoint that has it."""

    def tensors(self) -> dict[str, Tensor]:
        """Return all that the part needs to go on."""
        return {}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what :meth:`tensors` returned.

        Raises:
            RuntimeError, KeyError: it belongs to another model.
        """


def tensors_of(parts: Sequence[Part]) -> dict[str, Tensor]:
    """Return the state of all parts, as a checkpoint keeps it."""
    return {f"part.{p.name}.{key}": v for p in parts for key, v in p.tensors().items()}


def load_into(parts: Sequence[Part], tensors: dict[str, Tensor]) -> None:
    """Give every part its tensors of a checkpoint; one that has none starts anew."""
    for part in parts:
        start = f"part.{part.name}."
        own = {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
        if own:
            part.load(own)

"""Weights kept beside the last ones: their moving average, and the best by held-out accuracy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .part import Part


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in model.state_dict().items()}


@contextmanager
def lent(model: nn.Module, values: dict[str, Tensor]) -> Iterator[None]:
    """Give a model other values of its state, in place, within the block."""
    own = {name: value.clone() for name, value in _state(model).items()}
    model.load_state_dict(values)
    try:
        yield
    finally:
        model.load_state_dict(own)


class WeightAverage(Part):
    """The exponential moving average of parameters and floating-point buffers.

    ``average <- d * average + (1 - d) * value`` after every step, with ``d = min(decay, (1 + n) /
    (10 + n))`` in step n, so that the start is forgotten soon. Other buffers are the last ones.

    Args:
        model: whose state is averaged.
        decay: d in the long run, below 1.
        validate: the accuracy of the model as it is, on held-out images, or None.
        first: the step whose state, before it, is what the average starts from; n counts from it.
    """

    name = "ema"

    def __init__(
        self,
        model: nn.Module,
        decay: float,
        validate: Callable[[], float | None],
        first: int = 0,
    ) -> None:
        self.model, self.decay, self.validate, self.first = model, decay, validate, first
        self.values = {name: value.clone() for name, value in _state(model).items()}

    def before_step(self, step: int) -> None:
        """Start from the values of now, at the first step."""
        if step == self.first:
            for name, value in _state(self.model).items():
                self.values[name].copy_(value)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the average towards the new values."""
        n = step - self.first
        weight = 1 - min(self.decay, (1 + n) / (10 + n))
        now = _state(self.model)
        floating = [name for name, value in now.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [self.values[name] for name in floating], [now[name] for name in floating], weight
        )
        for name in now.keys() - set(floating):
            self.values[name].copy_(now[name])

    def end_epoch(self, epoch: int, accuracy: float | None) -> dict[str, float | None]:
        """Evaluate the average."""
        with lent(self.model, self.values):
            return {"ema_accuracy": self.validate()}

    def tensors(self) -> dict[str, Tensor]:
        """Return the averages."""
        return self.values

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take averages back."""
        for name, value in self.values.items():
            value.copy_(tensors[name])


class Best(Part):
    """The state after the epoch with the highest accuracy on held-out images, the first of equals.

    Without held-out images there is none.
    """

    name = "best"

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.accuracy, self.epoch = -1.0, -1
        self.values: dict[str, Tensor] = {}

    def end_epoch(self, epoch: int, accuracy: float | None) -> dict[str, float | None]:
        """Keep the state where it is better than all before."""
        if accuracy is not None and accuracy > self.accuracy:
            self.accuracy, self.epoch = accuracy, epoch
            # in host memory: the device's is for what trains
            state = _state(self.model).items()
            self.values = {name: value.to("cpu", copy=True) for name, value in state}
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Return the best state, its accuracy and its epoch."""
        if self.epoch < 0:
            return {}
        place = torch.tensor([self.accuracy, self.epoch], dtype=torch.float64)
        return {"place": place} | {f"model.{name}": value for name, value in self.values.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take them back."""
        self.accuracy, self.epoch = float(tensors["place"][0]), int(tensors["place"][1])
        self.values = {name: tensors[f"model.{name}"] for name in _state(self.model)}

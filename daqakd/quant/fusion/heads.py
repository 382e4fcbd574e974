"""The norm that a chain begins with: a module, or a call of ``batch_norm`` in a module's code."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from .members import NORMS, norm_obstacle

State = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


class NormCall(NamedTuple):
    """What ``batch_norm`` takes besides its input."""

    mean: Tensor | None
    var: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    training: bool
    momentum: float | Tensor
    eps: float


@dataclass(frozen=True)
class ModuleHead:
    """A BatchNorm, which generated code hands over."""

    name: str

    def obstacle(self, norm: nn.Module) -> str | None:
        """Return why the op cannot stand for it."""
        return norm_obstacle(norm)

    def state(self, norm: nn.Module) -> State:
        """Return running mean and variance, weight and bias."""
        buffers, own = norm._buffers, norm._parameters
        return buffers["running_mean"], buffers["running_var"], own["weight"], own["bias"]

    def dimensions(self, norm: nn.Module) -> tuple[int, ...]:
        """Return how many dimensions it takes."""
        return NORMS[type(norm)]

    def run(self, norm: nn.Module, x: Tensor) -> Tensor:
        """Apply it."""
        y: Tensor = norm(x)
        return y

    def call(self, norm: Any, state: State) -> NormCall:
        """Count a batch in training, as the module does, and return what it passes on."""
        mean, var, weight, bias = state
        training: bool = norm.training
        momentum = _counted(norm) if training else 0.0
        if training and not norm.track_running_stats:
            mean = var = None
        batch = training or (mean is None and var is None)
        return NormCall(mean, var, weight, bias, batch, momentum, norm.eps)


def _counted(norm: Any) -> float | Tensor:
    """Count a batch, and return its weight in the running statistics."""
    momentum: float | Tensor = 0.0 if norm.momentum is None else norm.momentum
    count = norm._buffers["num_batches_tracked"] if norm.track_running_stats else None
    if count is not None:
        count.add_(1)
        if norm.momentum is None:
            momentum = count.double().reciprocal()
    return momentum


@dataclass(frozen=True)
class FunctionHead:
    """A call of ``batch_norm``, whose tensors generated code hands over."""

    name: str  # of the module whose code it is
    training: bool
    momentum: float
    eps: float

    def obstacle(self, tensors: State) -> None:
        """Return None: the code was traced, and no module is passed over."""

    def state(self, tensors: State) -> State:
        """Return running mean and variance, weight and bias."""
        return tensors

    def dimensions(self, tensors: State) -> tuple[int, ...]:
        """Return how many dimensions it takes."""
        return 2, 3, 4, 5

    def run(self, tensors: State, x: Tensor) -> Tensor:
        """Apply it."""
        return functional.batch_norm(x, *tensors, self.training, self.momentum, self.eps)

    def call(self, tensors: State, state: State) -> NormCall:
        """Return what is passed on."""
        return NormCall(*state, self.training, self.momentum, self.eps)


Head = ModuleHead | FunctionHead

"""A model on several ranks: DDP around it, and what BatchNorm's statistics are then."""

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from .. import _ranks
from .._errors import InputError
from .config import TrainConfig
from .part import Part


class _Shared(nn.Module):
    """A model beside a parameter that no pass uses: DDP warns where it looks for none in vain."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.unused = nn.Parameter(next(model.parameters()).new_zeros(1))

    def forward(self, x: Tensor) -> Any:
        return self.model(x)


def replicated(model: nn.Module) -> nn.Module:
    """Return what to call for a training pass: on several ranks, gradients become their means."""
    if _ranks.count() == 1:
        return model
    known = inspect.signature(DistributedDataParallel).parameters
    # its name changed; buffers that are written would be read back from a GPU in every pass
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: Any = {buffers: False}
    # a model need not use all parameters; and gradients keep their places, so sums their order
    return DistributedDataParallel(_Shared(model), find_unused_parameters=True, **options)


def own_gradients(replica: nn.Module) -> AbstractContextManager[None]:
    """Return the context of a pass whose gradients are added to before the ranks' mean."""
    return replica.no_sync() if isinstance(replica, DistributedDataParallel) else nullcontext()


def check_shares(config: TrainConfig, images: int) -> None:
    """Raise InputError where the ranks' shares, or the parts of them, would not be equal."""
    count, parts = _ranks.count(), _ranks.count() * config.accumulate
    size = min(config.batch_size, images)
    if size % parts and count > 1:
        raise InputError(
            f"batch_size: {size} images cannot be shared by {count} ranks in {config.accumulate}"
            f" equal part(s) each; choose a multiple of {parts}"
        )
    if size % parts:
        raise InputError(
            f"accumulate: {parts} equal parts of a batch of {size} images do not exist, and there"
            " are no more; choose a divisor"
        )


class MeanGradients(Part):
    """Gradients of parameters that DDP does not know: the means of the ranks'."""

    name = "gradients"

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters

    def after_gradients(self, step: int) -> None:
        """Make them the same on all ranks."""
        _ranks.average_([p.grad for p in self.parameters if p.grad is not None])


class SharedStatistics(Part):
    """BatchNorm's running statistics: after every step, the means of the ranks'.

    Each rank normalises by its own share's statistics; the model that is evaluated and kept is one.
    """

    name = "statistics"

    def __init__(self, model: nn.Module) -> None:
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        pairs = [(m.running_mean, m.running_var) for m in norms]
        self.values = [value for pair in pairs for value in pair if value is not None]

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Make them the same on all ranks."""
        _ranks.average_(self.values)

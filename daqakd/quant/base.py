"""Bases of the quantizer modules: bits, granularity, calibration phases, statistics."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .._errors import InputError

PERCENTILE = 0.999


def _percentile(x: Tensor) -> Tensor:
    """Return the 99.9th percentile of |x|."""
    rank = max(int(PERCENTILE * x.numel()), 1)
    return x.abs().flatten().kthvalue(rank).values


MEASURES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean_abs": lambda x: x.abs().mean(),
    "std": lambda x: x.std(),
    "percentile": _percentile,
}


class Statistics:
    """Means over the calibration batches and the ranks, which starting values are computed from."""

    def __init__(self, measures: tuple[str, ...]) -> None:
        self.measures = measures
        self.batches = 0
        self.sums: dict[str, Tensor] = {}
        self.minimum: Tensor | None = None

    def update(self, x: Tensor) -> None:
        """Add one batch."""
        x = x.detach().float()
        low = x.min()
        self.minimum = low if self.minimum is None else torch.minimum(self.minimum, low)
        self.batches += 1
        for name in self.measures:
            value = MEASURES[name](x)
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def mean(self, name: str) -> Tensor:
        """Return the mean of a measure, 0-dim float32, the same on every rank."""
        value = self.sums[name] / self.batches
        if dist.is_initialized():
            dist.all_reduce(value)
            value /= dist.get_world_size()
        return value

    def smallest(self) -> Tensor:
        """Return the smallest value seen, the same on every rank."""
        assert self.minimum is not None
        if dist.is_initialized():
            dist.all_reduce(self.minimum, op=dist.ReduceOp.MIN)
        return self.minimum


class Quantizer(nn.Module):
    """Base of all quantizers: bits, granularity, and a name for messages."""

    method = ""
    __call__: Callable[..., Tensor]

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.name = ""

    @property
    def granularity(self) -> str:
        """``tensor`` or ``channel``."""
        return "tensor"

    def step_size(self) -> float | None:
        """Return the (mean) distance of neighbouring levels, None before calibration."""
        return None

    def extra_repr(self) -> str:
        """Show bits and granularity."""
        return f"bits={self.bits}, granularity={self.granularity}"


class ActivationQuantizer(Quantizer):
    """Base of activation quantizers: signedness and parameters come from ``calibrate``.

    ``phase`` is None in use; ``calibrate`` sets it to ``"observe"`` (pass through, note the
    smallest value) and then ``"start"`` (set the parameters from the statistics, and quantize).
    """

    measures: tuple[str, ...] = ()

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.register_buffer("calibrated", torch.zeros((), dtype=torch.bool))
        self.register_buffer("signed", torch.zeros((), dtype=torch.bool))
        self.calibrated: Tensor
        self.signed: Tensor
        self.is_calibrated, self.is_signed = False, False
        self.phase: str | None = None
        self.statistics = Statistics(())

    def enter(self, phase: str | None) -> None:
        """Begin a calibration phase with fresh statistics, or end calibration with None."""
        self.phase = phase
        self.statistics = Statistics(self.measures if phase == "start" else ())

    def read_flags(self) -> None:
        """Copy the flags that Python needs from the buffers (reads the device back)."""
        self.is_calibrated = bool(self.calibrated.item())
        self.is_signed = bool(self.signed.item())

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.read_flags()

    def initialise(self, statistics: Statistics) -> None:
        """Set the parameters from what was observed."""

    def quantize(self, x: Tensor) -> Tensor:
        """Fake-quantize with the current parameters."""
        raise NotImplementedError

    def cache_key(self) -> object:
        """Return a key that is equal for quantizers that give the same values."""
        return id(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the fake-quantized activations; during ``calibrate``, observe them."""
        if self.phase is not None:
            return self._calibrate(x)
        if not self.is_calibrated:
            raise InputError(
                f"{self.name}: forward pass before calibration, so its step is undefined;"
                " call daqakd.calibrate(student, batches) or load a calibrated state_dict first"
            )
        return self.quantize(x)

    def _calibrate(self, x: Tensor) -> Tensor:
        self.statistics.update(x)
        if self.phase == "observe":
            return x
        self.initialise(self.statistics)
        return self.quantize(x)

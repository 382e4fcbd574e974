"""LSQ+ on activations: a learned step and a learned offset, started where the error is least."""

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .._ops import SMALLEST
from ..functional import _checks
from ..functional._apply import passes
from ..functional.lsqplus import LSQPlusFunction
from .affine import ActivationAffine
from .base import ActivationQuantizer, Statistics

LOW_SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)  # of the lowest activation, where candidates begin
HIGH_SHARES = tuple(i / 24 for i in range(24, 0, -1))  # of the highest one, where they end
SAMPLE = 2**16  # activations of a batch whose error is measured


class LSQPlusActivation(ActivationQuantizer):
    """[LSQ+] on activations, for those that dip below 0 as SiLU's and GELU's do.

    Codes are 0 to ``2^bits - 1`` above the offset; no signed form is needed. Step and offset start
    at the candidate range with the least squared error on the calibration data [LSQ+ section 3.2].
    """

    method = "lsqplus"
    has_offset = True
    has_fused_op = False

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.step = nn.Parameter(torch.ones(1))
        self.offset = nn.Parameter(torch.zeros(1))
        self.observed: Statistics | None = None
        self.candidates: tuple[Tensor, Tensor] | None = None  # steps and offsets
        self.errors: Tensor | None = None

    @property
    def levels(self) -> int:
        """The largest code."""
        return int(2**self.bits - 1)

    def step_size(self) -> float | None:
        """Return the step."""
        return self.step.item() if self.is_calibrated else None

    def enter(self, phase: str | None) -> None:
        """Begin a phase; what the first one has observed is kept for the second."""
        if self.phase == "observe":
            self.observed = self.statistics
        if phase is None:
            self.observed = None
        self.candidates = self.errors = None
        super().enter(phase)

    def _calibrate(self, x: Tensor) -> Tensor:
        if self.phase == "start" and x.numel():
            self._measure(x.detach().float().flatten())
        return super()._calibrate(x)

    def _measure(self, x: Tensor) -> None:
        """Add the mean squared errors of a batch, ``[candidates]``."""
        if self.candidates is None:
            self.candidates = self._ranges(x)
        step, offset = (one[:, None] for one in self.candidates)
        some = x[:: max(len(x) // SAMPLE, 1)]
        levels = ((some - offset) / step).clamp(0, self.levels).round() * step + offset
        errors = (levels - some).square().mean(1)
        self.errors = errors if self.errors is None else self.errors + errors

    def _ranges(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return steps and offsets of ranges between the ends of the data and what is nearest 0."""
        seen = self.observed
        low = x.amin() if seen is None else seen.smallest()
        high = x.amax() if seen is None else seen.largest()
        middle = torch.zeros_like(low).clamp(low, high)
        lows = middle + (low - middle) * low.new_tensor(LOW_SHARES)
        highs = middle + (high - middle) * low.new_tensor(HIGH_SHARES)
        low, high = (one.flatten() for one in torch.meshgrid(lows, highs, indexing="ij"))
        step = (high - low) / self.levels
        return torch.where(step > SMALLEST, step, 1.0), low

    def initialise(self, statistics: Statistics) -> None:
        """Start at the candidate of the least error, the same on every rank."""
        assert self.candidates is not None
        assert self.errors is not None
        errors = self.errors.clone()
        if dist.is_initialized():
            dist.all_reduce(errors)
        best = errors.argmin().reshape(1)
        steps, offsets = self.candidates
        self.step.data.copy_(steps[best])
        self.offset.data.copy_(offsets[best])

    def quantize(self, x: Tensor) -> Tensor:
        """Apply [LSQ+]; the gradient scale counts the features of one sample, as LSQ's."""
        _checks.floating("x", x)
        scale = 1 / math.sqrt(max(math.prod(x.shape[1:]), 1) * self.levels)
        arguments = (*passes("lsqplus", x), self.bits, scale)
        y: Tensor = LSQPlusFunction.apply(x, self.step, self.offset, arguments)
        return y

    def affine(self) -> ActivationAffine:
        """Return the step, on both sides, above the offset."""
        step, offset = self.step.detach().clamp(min=SMALLEST), self.offset.detach()
        return ActivationAffine(step, step, 0, self.levels, offset, offset)

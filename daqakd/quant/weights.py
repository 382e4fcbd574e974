"""Weight quantizers: their parameters start from the weights they are given."""

import math

import torch
from torch import Tensor, nn

from .. import functional as F
from .base import Quantizer


class LSQWeight(Quantizer):
    """[LSQ] on weights: signed, step from ``2 mean|w| / sqrt(qmax)``, gradient scaled."""

    method = "lsq"

    def __init__(self, weight: Tensor, bits: int, per_channel: bool) -> None:
        super().__init__(bits)
        self.axis = 0 if per_channel else None
        self.qmax = 2 ** (bits - 1) - 1
        mean = weight.detach().abs()
        mean = mean.flatten(1).mean(1) if per_channel else mean.mean()
        self.step = nn.Parameter(2 * mean.float() / math.sqrt(self.qmax))
        self.grad_scale = 1 / math.sqrt(weight.numel() / self.step.numel() * self.qmax)

    @property
    def granularity(self) -> str:
        """``channel`` when every output channel has its own step."""
        return "tensor" if self.axis is None else "channel"

    def step_size(self) -> float:
        """Return the mean step."""
        return self.step.detach().mean().item()

    def forward(self, w: Tensor) -> Tensor:
        """Return the fake-quantized weights."""
        return F.lsq(
            w, self.step, bits=self.bits, signed=True, axis=self.axis, grad_scale=self.grad_scale
        )


class DoReFaWeight(Quantizer):
    """[DoReFa] on weights; ``rescale`` gives back the magnitude that the method throws away."""

    method = "dorefa"

    def __init__(self, weight: Tensor, bits: int, rescale: bool) -> None:
        super().__init__(bits)
        largest = weight.detach().abs().max().float() if weight.numel() else torch.ones(())
        rescale = rescale and bits > 1
        self.register_buffer("rescale", largest.reshape(()) if rescale else None)
        self.rescale: Tensor | None

    def step_size(self) -> float:
        """Return the distance of two levels."""
        factor = 1.0 if self.rescale is None else self.rescale.item()
        return 2 * factor / (2**self.bits - 1)

    def forward(self, w: Tensor) -> Tensor:
        """Return the quantized weights, in [-1, 1] unless rescaled."""
        y = F.dorefa_weight(w, bits=self.bits)
        return y if self.rescale is None else y * self.rescale.to(y.dtype)


class EWGSWeight(Quantizer):
    """[EWGS] on weights: learned range from +-3 standard deviations, values in [-1, 1]."""

    method = "ewgs"

    def __init__(self, weight: Tensor, bits: int, delta: float) -> None:
        super().__init__(bits)
        self.delta = delta
        spread = 3 * weight.detach().float().std().reshape(())
        self.lower = nn.Parameter(-spread)
        self.upper = nn.Parameter(spread.clone())

    def step_size(self) -> float:
        """Return the distance of two levels in units of the input."""
        return (self.upper - self.lower).item() / (2**self.bits - 1)

    def forward(self, w: Tensor) -> Tensor:
        """Return the quantized weights in [-1, 1]."""
        unit = F.ewgs(w, self.lower, self.upper, bits=self.bits, delta=self.delta)
        return 2 * (unit - 0.5)

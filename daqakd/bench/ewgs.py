"""EWGS; PyTorch has no op for it."""

from typing import Any

import torch
from torch import Tensor

from ..functional import ewgs
from .quantizer import BITS, Expected, QuantizerBenchmark, summed
from .roofline import Traffic

LEVELS = 2**BITS - 1
DELTA = 0.1
EDGE_BAND = 2.0**-20  # float32 may move a position this near a clip edge to its other side


class Discretize(torch.autograd.Function):
    """Rounding with the scaled gradient, as the paper's equation 3 asks for."""

    @staticmethod
    def forward(ctx: Any, unit: Tensor) -> Tensor:
        """Round to the levels, keeping the discretization error."""
        q: Tensor = torch.round(unit * LEVELS) / LEVELS
        ctx.save_for_backward(unit - q)
        return q

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Scale the gradient by the error."""
        (error,) = ctx.saved_tensors
        scaled: Tensor = grad * (1 + DELTA * torch.sign(grad) * error)
        return scaled


def eager(x: Tensor, lower: Tensor, upper: Tensor, form: str) -> Tensor:
    """Quantize by the chain of ATen ops around a scaled rounding."""
    low, width = lower.to(x.dtype), (upper - lower).to(x.dtype)
    y: Tensor = Discretize.apply(torch.clamp((x - low) / width, 0, 1))
    return y


def ours(x: Tensor, lower: Tensor, upper: Tensor, form: str, backend: str | None = None) -> Tensor:
    """Quantize by our op."""
    return ewgs(x, lower, upper, bits=BITS, delta=DELTA, backend=backend)


def expected(grad: Tensor, x: Tensor, lower: Tensor, upper: Tensor, form: str) -> Expected:
    """Return the right results."""
    width = upper - lower
    unit = (x - lower) / width
    clipped = unit.clamp(0, 1)
    y = torch.round(clipped * LEVELS) / LEVELS
    through = (grad + DELTA * grad.abs() * (clipped - y)) / width
    dx = torch.where((unit >= 0) & (unit <= 1), through, 0.0)
    near_edge = torch.minimum(unit.abs(), (unit - 1).abs()) <= EDGE_BAND
    ambiguous = torch.where(near_edge, through, 0.0)
    dlower = summed(dx * (clipped - 1), ambiguous, form)
    dupper = summed(-dx * clipped, ambiguous, form)
    return Expected(unit * LEVELS, (0, LEVELS), y, dx, 1 / LEVELS, (dlower, dupper))


EWGS = QuantizerBenchmark("ewgs", eager, ours, expected, Traffic(5), initial=(-1.0, 1.0))

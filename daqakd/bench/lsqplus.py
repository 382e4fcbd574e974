"""LSQ+; PyTorch has no op for it."""

import torch
from torch import Tensor

from ..functional import lsqplus
from .quantizer import BITS, Expected, QuantizerBenchmark, summed
from .roofline import Traffic

LEVELS = 2**BITS - 1
EDGE_BAND = 2.0**-18  # float32 may move a position this near a clip edge to its other side


def eager(x: Tensor, step: Tensor, offset: Tensor, form: str) -> Tensor:
    """Quantize by the chain of ATen ops around a straight-through rounding."""
    s, low = step.to(x.dtype), offset.to(x.dtype)
    v = torch.clamp((x - low) / s, 0, LEVELS)
    y: Tensor = (v + (torch.round(v) - v).detach()) * s + low
    return y


def ours(x: Tensor, step: Tensor, offset: Tensor, form: str, backend: str | None = None) -> Tensor:
    """Quantize by our op."""
    return lsqplus(x, step, offset, bits=BITS, backend=backend)


def expected(grad: Tensor, x: Tensor, step: Tensor, offset: Tensor, form: str) -> Expected:
    """Return the right results."""
    v = (x - offset) / step
    codes = torch.round(v.clamp(0, LEVELS))
    inside = (v >= 0) & (v <= LEVELS)
    dx = torch.where(inside, grad, 0.0)
    near_edge = torch.minimum(v.abs(), (v - LEVELS).abs()) <= EDGE_BAND
    ambiguous = torch.where(near_edge, grad, 0.0)
    dstep = summed(grad * (codes - torch.where(inside, v, 0.0)), LEVELS * ambiguous, form)
    doffset = summed(grad - dx, ambiguous, form)
    return Expected(v, (0, LEVELS), codes * step + offset, dx, float(step), (dstep, doffset))


LSQPLUS = QuantizerBenchmark("lsqplus", eager, ours, expected, Traffic(5), initial=(0.13, -1.0))

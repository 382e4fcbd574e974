"""PACT by everybody; PyTorch has no op whose alpha gets the paper's gradient."""

import torch
from torch import Tensor

from ..functional import pact
from .quantizer import BITS, Quantizer, Truth, along, axis_of, over, rounded

LEVELS = 2**BITS - 1


def eager(x: Tensor, alpha: Tensor, form: str) -> Tensor:
    """Quantize by the paper's equations; the grid is a constant, so dalpha is equation 3."""
    a = along(alpha, x, form).to(x.dtype)
    scale = LEVELS / a.detach()
    y: Tensor = rounded(torch.minimum(torch.relu(x), a) * scale) / scale
    return y


def ours(x: Tensor, alpha: Tensor, form: str, backend: str | None = None) -> Tensor:
    """Quantize by our op."""
    return pact(x, alpha, bits=BITS, axis=axis_of(form), backend=backend)


def truth(grad: Tensor, x: Tensor, alpha: Tensor, form: str) -> Truth:
    """Return the right results."""
    a = along(alpha, x, form)
    v = x * (LEVELS / a)
    y = torch.round(v.clamp(0, LEVELS)) * (a / LEVELS)
    dx = torch.where((x > 0) & (x < a), grad, 0.0)
    sums = over(torch.where(x >= a, grad, 0.0), torch.where(x == a, grad, 0.0), form)
    return Truth(v, (0, LEVELS), y, dx, a / LEVELS, (sums,))


PACT = Quantizer("pact", eager, ours, truth, (1.0,), ("tensor", "channel"))

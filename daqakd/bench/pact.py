"""PACT; PyTorch has no op whose alpha gets the paper's gradient."""

import torch
from torch import Tensor

from ..functional import pact
from .quantizer import BITS, Expected, QuantizerBenchmark, axis_of, broadcast, round_ste, summed
from .roofline import Traffic

LEVELS = 2**BITS - 1


def eager(x: Tensor, alpha: Tensor, form: str) -> Tensor:
    """Quantize by the paper's equations; the grid is a constant, so dalpha is equation 3."""
    a = broadcast(alpha, form).to(x.dtype)
    scale = LEVELS / a.detach()
    y: Tensor = round_ste(torch.minimum(torch.relu(x), a) * scale) / scale
    return y


def ours(x: Tensor, alpha: Tensor, form: str, backend: str | None = None) -> Tensor:
    """Quantize by our op."""
    return pact(x, alpha, bits=BITS, axis=axis_of(form), backend=backend)


def expected(grad: Tensor, x: Tensor, alpha: Tensor, form: str) -> Expected:
    """Return the right results."""
    a = broadcast(alpha, form)
    v = x * (LEVELS / a)
    y = torch.round(v.clamp(0, LEVELS)) * (a / LEVELS)
    dx = torch.where((x > 0) & (x < a), grad, 0.0)
    dalpha = summed(torch.where(x >= a, grad, 0.0), torch.where(x == a, grad, 0.0), form)
    return Expected(v, (0, LEVELS), y, dx, a / LEVELS, (dalpha,))


PACT = QuantizerBenchmark(
    "pact",
    eager,
    ours,
    expected,
    Traffic(4, extra_bytes=0.5),
    initial=(1.0,),
    forms=("tensor", "channel"),
)

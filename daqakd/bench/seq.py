"""SEQ; PyTorch has no op for it."""

import torch
from torch import Tensor

from ..functional import seq
from .quantizer import BITS, Expected, QuantizerBenchmark, axis_of, broadcast, summed
from .roofline import Traffic

LEVELS = 2**BITS
EDGE = LEVELS / 2  # in steps
EDGE_BAND = 2.0**-18  # float32 may move a position this near a clip edge to its other side


def _level(v: Tensor) -> Tensor:
    return torch.floor(v).clamp(-EDGE, EDGE - 1) + 0.5


def eager(x: Tensor, step: Tensor, form: str) -> Tensor:
    """Quantize by the chain of ATen ops around a straight-through rounding."""
    s = broadcast(step, form).to(x.dtype)
    v = torch.clamp(x / s, -EDGE, EDGE)
    y: Tensor = (v + (_level(v) - v).detach()) * s
    return y


def ours(x: Tensor, step: Tensor, form: str, backend: str | None = None) -> Tensor:
    """Quantize by our op."""
    return seq(x, step, levels=LEVELS, axis=axis_of(form), backend=backend)


def expected(grad: Tensor, x: Tensor, step: Tensor, form: str) -> Expected:
    """Return the right results; positions are half a step lower, so that levels are whole ones."""
    s = broadcast(step, form)
    v = x / s
    inside, level = v.abs() < EDGE, _level(v)
    passing = torch.where(inside, v, 0.0)
    ambiguous = torch.where((v.abs() - EDGE).abs() <= EDGE_BAND, grad, 0.0)
    ds = summed(grad * (level - passing), LEVELS * ambiguous, form)
    apart = summed(grad * (level.abs() + passing.abs()), ambiguous, form)  # as eager adds them up
    ds, ends = ds._replace(magnitude=apart.magnitude), (-EDGE, EDGE - 1)
    return Expected(v - 0.5, ends, level * s, torch.where(inside, grad, 0.0), s, (ds,))


SEQ = QuantizerBenchmark(
    "seq", eager, ours, expected, Traffic(5), initial=(0.25,), forms=("tensor", "channel")
)

"""SEQ in plain PyTorch."""

import torch
from torch import Tensor

from .._layout import like, reduce_to
from ._common import at_least_smallest, implement, round_half_even, to_accumulation_dtype


def _level(v: Tensor, levels: int) -> Tensor:
    """Return the level of each position, both in steps."""
    end = (levels - 1) / 2
    clipped = torch.clamp(v, -end, end)
    return round_half_even(clipped) if levels % 2 else torch.floor(clipped) + 0.5


@implement
def seq_forward(x: Tensor, step: Tensor, levels: int, axis: int | None) -> Tensor:
    s = at_least_smallest(step, x, axis)
    return like(_level(to_accumulation_dtype(x) / s, levels) * s, x)


@implement
def seq_backward(
    grad: Tensor, x: Tensor, step: Tensor, levels: int, axis: int | None, grad_scale: float
) -> tuple[Tensor, Tensor]:
    g, v = to_accumulation_dtype(grad), to_accumulation_dtype(x)
    v = v / at_least_smallest(step, x, axis)
    inside = v.abs() < levels / 2
    terms = g * (_level(v, levels) - torch.where(inside, v, 0.0))
    return like(torch.where(inside, g, 0.0), x), reduce_to(terms, step, axis) * grad_scale

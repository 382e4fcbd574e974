"""LSQ in plain PyTorch."""

import torch
from torch import Tensor

from ..._ops import STE_CODES
from .._layout import like, reduce_to
from ._common import at_least_smallest, implement, round_half_even, to_accumulation_dtype


@implement
def lsq_forward(x: Tensor, step: Tensor, qmin: int, qmax: int, axis: int | None) -> Tensor:
    s = at_least_smallest(step, x, axis)
    return like(round_half_even(torch.clamp(to_accumulation_dtype(x) / s, qmin, qmax)) * s, x)


@implement
def lsq_backward(
    grad: Tensor,
    x: Tensor,
    step: Tensor,
    qmin: int,
    qmax: int,
    axis: int | None,
    ste: int,
    grad_scale: float,
) -> tuple[Tensor, Tensor]:
    v = to_accumulation_dtype(x) / at_least_smallest(step, x, axis)
    if ste == STE_CODES["rounded"]:
        rounded = torch.round(v)
        inside = (rounded >= qmin) & (rounded <= qmax)
    elif ste == STE_CODES["closed"]:
        inside = (v >= qmin) & (v <= qmax)
    else:
        inside = (v > qmin) & (v < qmax)
    g = to_accumulation_dtype(grad)
    terms = g * (torch.round(torch.clamp(v, qmin, qmax)) - torch.where(inside, v, 0.0))
    dx = torch.where(inside, g, 0.0)
    return like(dx, x), reduce_to(terms, step, axis) * grad_scale

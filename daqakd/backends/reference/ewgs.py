"""EWGS in plain PyTorch."""

import torch
from torch import Tensor

from .._layout import broadcast, like, reduce_to
from ._common import at_least_smallest, implement, round_half_even, to_accumulation_dtype


@implement
def ewgs_forward(x: Tensor, lower: Tensor, upper: Tensor, bits: int) -> Tensor:
    wide, levels = to_accumulation_dtype(x), 2**bits - 1
    low = broadcast(lower.to(wide.dtype), x, None)
    width = at_least_smallest(upper.to(wide.dtype) - lower.to(wide.dtype), x, None)
    return like(round_half_even(torch.clamp((wide - low) / width, 0.0, 1.0) * levels) / levels, x)


@implement
def ewgs_backward(
    grad: Tensor,
    x: Tensor,
    lower: Tensor,
    upper: Tensor,
    bits: int,
    delta: float,
    delta_tensor: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    wide, g, levels = to_accumulation_dtype(x), to_accumulation_dtype(grad), 2**bits - 1
    low = broadcast(lower.to(wide.dtype), x, None)
    width = at_least_smallest(upper.to(wide.dtype) - lower.to(wide.dtype), x, None)
    unit = (wide - low) / width
    inside = (unit >= 0) & (unit <= 1)
    unit = torch.clamp(unit, 0.0, 1.0)
    error = unit - torch.round(unit * levels) / levels
    scale = delta if delta_tensor is None else delta_tensor.to(wide.dtype).reshape(())
    through = (g + scale * g.abs() * error) / width
    dx = torch.where(inside, through, 0.0)
    dlower = reduce_to(dx * (unit - 1), lower, None)
    return like(dx, x), dlower, reduce_to(-dx * unit, upper, None)

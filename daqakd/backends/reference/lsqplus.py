"""LSQ+ in plain PyTorch."""

import torch
from torch import Tensor

from .._layout import broadcast, like, reduce_to
from ._common import at_least_smallest, implement, round_half_even, to_accumulation_dtype


@implement
def lsqplus_forward(x: Tensor, step: Tensor, offset: Tensor, bits: int) -> Tensor:
    wide, s = to_accumulation_dtype(x), at_least_smallest(step, x, None)
    low = broadcast(offset.to(wide.dtype), x, None)
    codes = round_half_even(torch.clamp((wide - low) / s, 0.0, 2.0**bits - 1))
    return like(codes * s + low, x)


@implement
def lsqplus_backward(
    grad: Tensor, x: Tensor, step: Tensor, offset: Tensor, bits: int, grad_scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    wide, g, highest = to_accumulation_dtype(x), to_accumulation_dtype(grad), 2.0**bits - 1
    low = broadcast(offset.to(wide.dtype), x, None)
    v = (wide - low) / at_least_smallest(step, x, None)
    inside = (v >= 0) & (v <= highest)
    dx, codes = torch.where(inside, g, 0.0), torch.round(torch.clamp(v, 0.0, highest))
    dstep = reduce_to(g * (codes - torch.where(inside, v, 0.0)), step, None)
    doffset = reduce_to(g - dx + 0.0 * codes, offset, None)  # of NaN all sums are NaN
    return like(dx, x), dstep * grad_scale, doffset * grad_scale

"""PACT in plain PyTorch."""

import torch
from torch import Tensor

from .._layout import like, pack, reduce_to, unflat, unpack
from ._common import at_least_smallest, implement, round_half_even, to_accumulation_dtype

BELOW, INSIDE, ABOVE, NOT_A_NUMBER = 0, 1, 2, 3  # the 2-bit codes of an unsigned PACT mask


@implement
def pact_forward(
    x: Tensor, alpha: Tensor, bits: int, signed: bool, axis: int | None
) -> tuple[Tensor, Tensor]:
    wide, a = to_accumulation_dtype(x), at_least_smallest(alpha, x, axis)
    levels = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    step = a / levels
    y = round_half_even(torch.clamp(wide / step, -levels if signed else 0, levels)) * step
    low = -a if signed else torch.zeros_like(a)
    codes = (wide > low).to(torch.uint8) + (wide >= a)
    codes = codes.masked_fill(torch.isnan(wide), NOT_A_NUMBER)
    return like(y, x), pack(codes, x, 2)


@implement
def pact_backward(
    grad: Tensor, mask: Tensor, alpha: Tensor, signed: bool, axis: int | None
) -> tuple[Tensor, Tensor]:
    codes = unflat(unpack(mask, 2, grad.numel()), grad)
    g = to_accumulation_dtype(grad)
    terms = torch.where(codes == ABOVE, g, 0.0)
    if signed:
        terms = torch.where(codes == BELOW, -g, terms)
    terms = torch.where(codes == NOT_A_NUMBER, float("nan"), terms)
    return like(torch.where(codes == INSIDE, g, 0.0), grad), reduce_to(terms, alpha, axis)

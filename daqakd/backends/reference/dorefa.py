"""DoReFa's quantizers in plain PyTorch."""

import torch
from torch import Tensor

from .._layout import like, pack, unflat, unpack
from ._common import implement, round_half_even, to_accumulation_dtype


@implement
def dorefa_activation_forward(x: Tensor, bits: int, signed: bool) -> tuple[Tensor, Tensor]:
    wide, low = to_accumulation_dtype(x), -1.0 if signed else 0.0
    levels = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    y = round_half_even(torch.clamp(wide, low, 1.0) * levels) / levels
    inside = (wide >= low) & (wide <= 1.0)
    return like(y, x), pack(inside, x, 1)


@implement
def dorefa_activation_backward(grad: Tensor, mask: Tensor) -> Tensor:
    inside = unflat(unpack(mask, 1, grad.numel()), grad) != 0
    return like(torch.where(inside, grad, 0.0), grad)


def _sign(w: Tensor) -> Tensor:
    """Return the sign of ``w`` with sign(0) = +1 and sign(NaN) = NaN."""
    return torch.where(w < 0, -1.0, torch.where(w >= 0, 1.0, w))


@implement
def dorefa_weight_forward(w: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    wide = to_accumulation_dtype(w)
    if w.numel() == 0:
        return torch.empty_like(w), wide.new_zeros(())
    if bits == 1:
        mean = wide.abs().mean()
        return like(_sign(wide) * mean, w), mean
    t, levels = torch.tanh(wide), 2**bits - 1
    maximum = t.abs().max()
    unit = torch.where(maximum == 0, 0.5, t / (2 * maximum) + 0.5)
    return like(2 * (torch.round(unit * levels) / levels) - 1, w), maximum


@implement
def dorefa_weight_backward(
    grad: Tensor, w: Tensor, maximum: Tensor, bits: int, detach_max: bool
) -> Tensor:
    g, wide = to_accumulation_dtype(grad), to_accumulation_dtype(w)
    if bits == 1:
        dmean = 0.0 if detach_max else (g * _sign(wide)).sum() / max(w.numel(), 1)
        return like(g + dmean * _sign(wide), w)
    t = torch.tanh(wide)
    dt = g / maximum
    if not detach_max:
        at_maximum = t.abs() == maximum
        dmax = -(g * t).sum() / maximum.square()
        dt = dt + torch.where(at_maximum, torch.sign(t) * dmax / at_maximum.sum(), 0.0)
    return like(torch.where(maximum == 0, 0.0, dt * (1 - t * t)), w)

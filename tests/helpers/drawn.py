"""Inputs from our own draws: the same bits on every machine."""

from math import prod

import torch
from torch import Tensor

from daqakd.augment import draws

from .cases import parameter_dtype

SHAPE = (4, 24, 9, 11)
DIGITS = {torch.float64: 32, torch.float32: 24, torch.bfloat16: 8, torch.float16: 11}  # binary


def words(count: int, stream: int) -> Tensor:
    """Return 32-bit words: int64 ``[count]``."""
    return draws.philox(7, stream, torch.arange(-(-count // 4)), 0).view(-1)[:count]


def numbers(shape: tuple[int, ...], dtype: torch.dtype, stream: int) -> Tensor:
    """Return numbers in [-4, 4) that ``dtype`` holds exactly."""
    digits = DIGITS[dtype]
    whole = (words(prod(shape), stream) >> (32 - digits)) - 2 ** (digits - 1)
    return (whole.double() * 2.0 ** (3 - digits)).to(dtype).view(shape)


def near_ties(dtype: torch.dtype, level: float) -> Tensor:
    """Return numbers of which every other is a multiple of half a ``level``, within rounding."""
    own = parameter_dtype(dtype)
    halves = ((words(prod(SHAPE), 2) & 63).to(own) - 32) / 2
    ties = (halves * torch.tensor(level, dtype=own)).to(dtype).view(SHAPE)
    chosen = torch.arange(SHAPE[-1]) % 2 == 1
    return torch.where(chosen, ties, numbers(SHAPE, dtype, 0))


def images() -> Tensor:
    """Return noise, two levels, ramps and a constant: uint8 ``[12, 3, 32, 32]``."""
    noise = words(6 * 3 * 32 * 32, 4).view(6, 3, 32, 32)
    ramp = torch.arange(3 * 32 * 32).view(1, 3, 32, 32) * torch.arange(1, 6).view(5, 1, 1, 1)
    two = (noise[:1] & 1) * 155 + 100
    return torch.cat([noise[1:], two, ramp, torch.full_like(two, 93)]).remainder(256).byte()

"""Quantized values as packed codes and back, in plain PyTorch."""

import torch
from torch import Tensor

from ..._ops import accumulation_dtype, slot_bits
from .._codes import code_range
from .._layout import pack, unpack
from ._common import at_least_smallest, implement, round_half_even, to_accumulation_dtype


def _step(parameter: Tensor | None, parts: int, dtype: torch.dtype) -> Tensor | float:
    if parameter is None:
        return 1.0
    return at_least_smallest(parameter, parameter.new_empty((), dtype=dtype), None) / parts


def _same_bits(a: Tensor, b: Tensor) -> Tensor:
    return (a == b) & (a.signbit() == b.signbit())


@implement
def codes_pack(y: Tensor, parameter: Tensor | None, method: int, bits: int, signed: bool) -> Tensor:
    lowest, highest, parts, levels = code_range(method, bits, signed)
    wide, step = to_accumulation_dtype(y), _step(parameter, parts, y.dtype)
    position = wide * levels / step
    known = torch.where(position.isnan(), float(lowest), position)
    code = round_half_even(torch.clamp(known, lowest, highest))
    # 16 bits are too few for 256 levels, and small ones become -0: where the nearest level is
    # another number than y, y is the level on the other side
    value = (code * step / levels).to(y.dtype)
    toward = torch.copysign(torch.ones_like(wide), wide - value)
    other = torch.clamp(code + toward, lowest, highest)
    found = _same_bits((other * step / levels).to(y.dtype), y) & ~_same_bits(value, y)
    return pack(torch.where(found, other, code) - lowest, y, slot_bits(bits))


@implement
def codes_unpack(
    codes: Tensor,
    parameter: Tensor | None,
    method: int,
    bits: int,
    signed: bool,
    count: int,
    dtype: torch.dtype,
) -> Tensor:
    lowest, _, parts, levels = code_range(method, bits, signed)
    code = unpack(codes, slot_bits(bits), count).to(accumulation_dtype(dtype)) + lowest
    return (code * _step(parameter, parts, dtype) / levels).to(dtype)

"""Quantized values as packed codes and back, by Triton."""

import torch
from torch import Tensor

from ..._ops import slot_bits
from .._codes import code_range
from .._layout import dense
from ._launch import implement, kernels, launch, new_mask


@implement
def codes_pack(y: Tensor, parameter: Tensor | None, method: int, bits: int, signed: bool) -> Tensor:
    y, slot = dense(y), slot_bits(bits)
    codes = new_mask(y, 8 // slot)
    if y.numel():
        level = None if parameter is None else parameter.float()
        arguments = y, level, codes, slot, *code_range(method, bits, signed)
        launch(y, kernels("codes").codes_pack, *arguments)
    return codes


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
    y = torch.empty(count, dtype=dtype, device=codes.device)
    if count:
        level = None if parameter is None else parameter.float()
        lowest, _, parts, levels = code_range(method, bits, signed)
        arguments = codes, level, y, slot_bits(bits), lowest, parts, levels
        launch(codes, kernels("codes").codes_unpack, *arguments)
    return y

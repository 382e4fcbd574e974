"""The quantizers' ops."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..._ops import METHOD_CODES, STE_CODES, slot_bits
from ._arguments import (
    FLOATS,
    Tensors,
    alike,
    beside,
    bit_width,
    each,
    floating,
    floating_tensor,
    known_code,
    number,
    one_per_row,
    packed_mask,
    parameter,
    require,
    same,
    tensor,
)
from ._registry import check

LARGEST_CODE = 2**16  # of a quantizer: codes stay far below where rounding by additions ends


def row_axis(parameter: Tensor) -> int | None:
    """Return the axis a parameter runs along: None for one value, else the first."""
    return None if parameter.numel() == 1 else 0


@check
def lsq_forward(x: Tensor, step: Tensor, qmin: int, qmax: int, axis: int | None) -> None:
    floating_tensor("x", x)
    parameter("step", step, x, axis)
    require(
        -LARGEST_CODE <= qmin <= qmax <= LARGEST_CODE,
        f"qmin, qmax: expected -{LARGEST_CODE} <= qmin <= qmax <= {LARGEST_CODE}, got {qmin} and"
        f" {qmax}",
    )


@check
def lsq_backward(grad: Tensor, x: Tensor, *rest: Any) -> None:
    *forward, ste, grad_scale = rest
    lsq_forward(x, *forward)
    same("grad", grad, x)
    known_code("ste", ste, STE_CODES)
    number("grad_scale", grad_scale)


@check
def lsq_many_forward(x: Tensors, step: Tensors, qmin: Sequence[int], qmax: Sequence[int]) -> None:
    alike("x", x)
    each(lsq_forward, x, step, qmin, qmax, [row_axis(one) for one in step])


@check
def lsq_many_backward(grad: Tensors, x: Tensors, *rest: Any) -> None:
    *forward, ste, grad_scale = rest
    lsq_many_forward(x, *forward)
    each(partial(same, "grad"), grad, x)
    known_code("ste", ste, STE_CODES)
    each(lambda _, scale: number("grad_scale", scale), x, grad_scale)


@check
def pact_forward(x: Tensor, alpha: Tensor, bits: int, signed: bool, axis: int | None) -> None:
    floating_tensor("x", x)
    parameter("alpha", alpha, x, axis)
    bit_width(bits, signed)


@check
def pact_backward(
    grad: Tensor, mask: Tensor, alpha: Tensor, signed: bool, axis: int | None
) -> None:
    floating_tensor("grad", grad)
    parameter("alpha", alpha, grad, axis)
    packed_mask(mask, grad, 2)


@check
def dorefa_activation_forward(x: Tensor, bits: int, signed: bool) -> None:
    floating_tensor("x", x)
    bit_width(bits, signed)


@check
def dorefa_activation_backward(grad: Tensor, mask: Tensor) -> None:
    floating_tensor("grad", grad)
    packed_mask(mask, grad, 1)


@check
def dorefa_weight_forward(w: Tensor, bits: int) -> None:
    floating_tensor("w", w)
    bit_width(bits)


@check
def dorefa_weight_backward(
    grad: Tensor, w: Tensor, maximum: Tensor, bits: int, detach_max: bool
) -> None:
    dorefa_weight_forward(w, bits)
    same("grad", grad, w)
    parameter("maximum", maximum, w)


@check
def dorefa_weight_many_forward(w: Tensors, bits: Sequence[int]) -> None:
    alike("w", w)
    each(dorefa_weight_forward, w, bits)


@check
def dorefa_weight_many_backward(
    grad: Tensors, w: Tensors, maximum: Tensor, bits: Sequence[int], detach_max: bool
) -> None:
    dorefa_weight_many_forward(w, bits)
    each(partial(same, "grad"), grad, w)
    floating("maximum", maximum)
    one_per_row("maximum", maximum.reshape(-1), len(w), w[0])


@check
def ewgs_forward(x: Tensor, lower: Tensor, upper: Tensor, bits: int) -> None:
    floating_tensor("x", x)
    parameter("lower", lower, x)
    parameter("upper", upper, x)
    bit_width(bits)


@check
def ewgs_backward(grad: Tensor, x: Tensor, *rest: Any) -> None:
    *forward, delta, delta_tensor = rest
    ewgs_forward(x, *forward)
    same("grad", grad, x)
    number("delta", delta)
    parameter("delta_tensor", delta_tensor, x)


@check
def lsqplus_forward(x: Tensor, step: Tensor, offset: Tensor, bits: int) -> None:
    floating_tensor("x", x)
    parameter("step", step, x)
    parameter("offset", offset, x)
    bit_width(bits)


@check
def lsqplus_backward(grad: Tensor, x: Tensor, *rest: Any) -> None:
    *forward, grad_scale = rest
    lsqplus_forward(x, *forward)
    same("grad", grad, x)
    number("grad_scale", grad_scale)


@check
def seq_forward(x: Tensor, step: Tensor, levels: int, axis: int | None) -> None:
    floating_tensor("x", x)
    parameter("step", step, x, axis)
    require(2 <= levels <= 256, f"levels: expected 2 to 256, got {levels}")


@check
def seq_backward(grad: Tensor, x: Tensor, *rest: Any) -> None:
    *forward, grad_scale = rest
    seq_forward(x, *forward)
    same("grad", grad, x)
    number("grad_scale", grad_scale)


@check
def ewgs_many_forward(x: Tensors, lower: Tensors, upper: Tensors, bits: Sequence[int]) -> None:
    alike("x", x)
    each(ewgs_forward, x, lower, upper, bits)


@check
def ewgs_many_backward(grad: Tensors, x: Tensors, *rest: Any) -> None:
    *forward, delta, delta_tensor = rest
    ewgs_many_forward(x, *forward)
    each(partial(same, "grad"), grad, x)
    number("delta", delta)
    parameter("delta_tensor", delta_tensor, x[0])


def _code_grid(x: Tensor, given: Tensor | None, method: int, bits: int, signed: bool) -> None:
    lsq, pact, _, ewgs = METHOD_CODES.values()
    require(lsq <= method <= ewgs, f"method: expected a code of {lsq} to {ewgs}, got {method}")
    bit_width(bits, signed)
    require(not signed or method != ewgs, "signed: ewgs has no signed codes; give False")
    require(
        (given is None) == (method not in (lsq, pact)),
        "parameter: expected a step for lsq, an alpha for pact, and None for dorefa and ewgs",
    )
    if given is not None:
        require(given.numel() == 1, f"parameter: expected 1 values, got {given.numel()}")
        floating("parameter", given)
        beside("parameter", given, x)


@check
def codes_pack(y: Tensor, parameter: Tensor | None, method: int, bits: int, signed: bool) -> None:
    floating_tensor("y", y)
    _code_grid(y, parameter, method, bits, signed)


@check
def codes_unpack(codes: Tensor, *rest: Any) -> None:
    *grid, count, dtype = rest
    _code_grid(codes, *grid)
    require(dtype in FLOATS, f"dtype: expected a floating-point type of 16 to 64 bits, got {dtype}")
    wanted = (count * slot_bits(grid[2]) + 7) // 8
    require(
        count >= 0
        and codes.dtype == torch.uint8
        and codes.shape == (wanted,)
        and codes.is_contiguous(),
        f"codes: expected {wanted} contiguous bytes for {count} codes of {grid[2]} bits, got"
        f" {codes.dtype} {tuple(codes.shape)}",
    )
    tensor("codes", codes)

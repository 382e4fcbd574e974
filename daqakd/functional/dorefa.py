"""DoReFa-Net quantizers (Zhou et al., 2016, equations 5 to 11)."""

from typing import Any

import torch
from torch import Tensor

from . import _checks
from ._apply import Run, first_order_of_one, in_strides_of, passes

Arguments = tuple[Run, Run, int, bool]  # forward, backward, bits, then detach_max or signed


class DoReFaWeightFunction(torch.autograd.Function):
    """Straight-through rounding; the maximum is a constant or part of the graph."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, arguments: Arguments) -> Tensor:
        """Quantize, keeping ``w`` and the maximum."""
        run, _, bits, _ = ctx.arguments = arguments
        y: Tensor
        y, maximum = run(w, bits)
        ctx.save_for_backward(w, maximum)
        return y

    @staticmethod
    @first_order_of_one
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return dw."""
        w, maximum = ctx.saved_tensors
        _, run, bits, detach_max = ctx.arguments
        return run(grad, w, maximum, bits, detach_max), None


class DoReFaActivationFunction(torch.autograd.Function):
    """Straight-through inside the clipping range, ends included."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, arguments: Arguments) -> Tensor:
        """Quantize, keeping 1 bit per element."""
        run, backward, bits, signed = arguments
        y: Tensor
        y, mask = run(x, bits, signed)
        ctx.save_for_backward(mask)
        ctx.kept = backward, y.stride()
        return y

    @staticmethod
    @first_order_of_one
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return dx."""
        (mask,) = ctx.saved_tensors
        run, strides = ctx.kept
        return run(in_strides_of(grad, strides), mask), None


def dorefa_weight(
    w: Tensor, *, bits: int, detach_max: bool = True, backend: str | None = None
) -> Tensor:
    """Quantize weights to [-1, 1]: ``2 q(tanh(w) / (2 max|tanh(w)|) + 1/2) - 1`` [DoReFa, eq. 9].

    ``q`` rounds half to even to multiples of ``1 / (2^b - 1)``. At 1 bit:
    ``sign(w) * mean|w|`` with sign(0) = +1, and dw is the incoming gradient. All-zero weights give
    the code nearest 0 and no gradient.

    Args:
        w: any shape, float16, bfloat16, float32 or float64.
        bits: 1 to 8.
        detach_max: treat the maximum (1 bit: the mean) as a constant; otherwise its gradient goes
            to the largest weights, shared equally by ties.
        backend: ``"reference"``, ``"triton"``, ``"native"`` or None for the automatic choice.

    Returns:
        Shape, dtype and strides of ``w``; the magnitude of ``w`` is gone (above 1 bit).

    Raises:
        InputError: a wrong dtype, bit width or backend.

    >>> dorefa_weight(torch.tensor([-0.5, -0.2, 0.1, 0.3]), bits=2)
    tensor([-1.0000, -0.3333,  0.3333,  0.3333])
    """
    _checks.floating("w", w)
    _checks.bit_width(bits)
    _checks.flag("detach_max", detach_max)
    arguments = (*passes("dorefa_weight", w, backend), bits, detach_max)
    y: Tensor = DoReFaWeightFunction.apply(w, arguments)
    return y


def dorefa_activation(
    x: Tensor, *, bits: int, signed: bool = False, backend: str | None = None
) -> Tensor:
    """Clip activations to [0, 1] and quantize: ``round(clip(x, 0, 1) * n) / n`` [DoReFa, eq. 11].

    ``n = 2^b - 1``; signed clips to [-1, 1] with ``n = 2^(b-1) - 1``. Rounds half to even. dx
    passes where 0 <= x <= 1 (signed: -1 <= x <= 1).

    Args:
        x: any shape, float16, bfloat16, float32 or float64.
        bits: 1 to 8; 2 to 8 when signed.
        signed: use the symmetric form.
        backend: ``"reference"``, ``"triton"``, ``"native"`` or None for the automatic choice.

    Returns:
        Shape, dtype and strides of ``x``. NaN stays NaN, with dx 0.

    Raises:
        InputError: a wrong dtype, bit width or backend.

    >>> dorefa_activation(torch.tensor([-1.0, 0.4, 2.0]), bits=2)
    tensor([0.0000, 0.3333, 1.0000])
    """
    _checks.floating("x", x)
    _checks.integer_range(bits, signed)
    arguments = (*passes("dorefa_activation", x, backend), bits, signed)
    y: Tensor = DoReFaActivationFunction.apply(x, arguments)
    return y

"""PACT: parameterized clipping activation (Choi et al., 2018, equations 1 to 3)."""

from typing import Any

import torch
from torch import Tensor

from . import _checks
from ._apply import Run, first_order_of_one, in_strides_of, passes

Arguments = tuple[Run, Run, int, bool, int | None]  # forward, backward, bits, signed, axis


class PACTFunction(torch.autograd.Function):
    """Straight-through inside the clipping range; dalpha where x is at or above alpha."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, arguments: Arguments) -> Tensor:
        """Quantize, keeping 2 bits per element."""
        run, _, bits, signed, axis = arguments
        y: Tensor
        y, mask = run(x, alpha, bits, signed, axis)
        ctx.save_for_backward(mask, alpha)
        ctx.kept = arguments, y.stride()
        return y

    @staticmethod
    @first_order_of_one
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return dx and dalpha."""
        mask, alpha = ctx.saved_tensors
        (_, run, _, signed, axis), strides = ctx.kept
        dx, dalpha = run(in_strides_of(grad, strides), mask, alpha, signed, axis)
        return dx, dalpha, None


def pact(
    x: Tensor,
    alpha: Tensor,
    *,
    bits: int,
    signed: bool = False,
    axis: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """Clip to a learned level and quantize: ``round(clip(x, 0, a) * n / a) * a / n`` [PACT].

    ``n = 2^b - 1``; signed clips to [-a, a] with ``n = 2^(b-1) - 1``. Rounds half to even. Alpha
    is used as ``max(a, 2^-30)``. dx passes where 0 < x < a; dalpha sums the gradient where x >= a
    (and takes it away where x <= -a).

    Args:
        x: any shape, float16, bfloat16, float32 or float64.
        alpha: one value, or ``[x.shape[axis]]`` with ``axis``; float32 (float64 with float64 x).
        bits: 1 to 8; 2 to 8 when signed.
        signed: use the symmetric form.
        axis: dimension that has one alpha per index; None for one alpha.
        backend: ``"reference"``, ``"triton"``, ``"native"`` or None for the automatic choice.

    Returns:
        Shape, dtype and strides of ``x``. NaN stays NaN, with dx 0 and a NaN dalpha.

    Raises:
        InputError: a wrong dtype, shape, bit width, axis or backend.

    >>> pact(torch.tensor([-1.0, 0.2, 0.5, 2.0]), torch.tensor(1.0), bits=2)
    tensor([0.0000, 0.3333, 0.6667, 1.0000])
    """
    _checks.floating("x", x)
    _checks.integer_range(bits, signed)
    _checks.parameter("alpha", alpha, x, axis)
    arguments = (*passes("pact", x, backend), bits, signed, axis)
    y: Tensor = PACTFunction.apply(x, alpha, arguments)
    return y

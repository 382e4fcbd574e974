"""EWGS: element-wise gradient scaling over a learned range (Lee et al., CVPR 2021, eq. 1 to 7)."""

from typing import Any

import torch
from torch import Tensor

from . import _checks
from ._apply import Run, first_order_of_one, passes, split_scalar

Arguments = tuple[Run, Run, int, float]  # forward, backward, bits, delta


class EWGSFunction(torch.autograd.Function):
    """Gradient scaled by the discretization error; that of the range by the affine map."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        lower: Tensor,
        upper: Tensor,
        delta_tensor: Tensor | None,
        arguments: Arguments,
    ) -> Tensor:
        """Quantize, keeping ``x`` and the range."""
        ctx.save_for_backward(x, lower, upper, delta_tensor)
        run, _, bits, _ = ctx.arguments = arguments
        y: Tensor = run(x, lower, upper, bits)
        return y

    @staticmethod
    @first_order_of_one
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return dx, dlower and dupper."""
        x, lower, upper, delta_tensor = ctx.saved_tensors
        _, run, bits, delta = ctx.arguments
        dx, dlower, dupper = run(grad, x, lower, upper, bits, delta, delta_tensor)
        return dx, dlower, dupper, None, None


def ewgs(
    x: Tensor,
    lower: Tensor,
    upper: Tensor,
    *,
    bits: int,
    delta: float | Tensor = 0.0,
    backend: str | None = None,
) -> Tensor:
    """Quantize a learned range to [0, 1]: ``round(clip((x - l)/(u - l), 0, 1) * n) / n`` [EWGS].

    ``n = 2^b - 1``. Rounds half to even. Through the rounding the gradient is
    ``g * (1 + delta * sign(g) * (xn - xq))``; ``delta = 0`` is the straight-through estimator with
    a learned range. The width ``u - l`` is used as at least 2^-30.

    Args:
        x: any shape, float16, bfloat16, float32 or float64.
        lower: one value, float32 (float64 with float64 x).
        upper: one value, like ``lower``.
        bits: 1 to 8.
        delta: float, or a 0-dim tensor that may change without a recompilation.
        backend: ``"reference"``, ``"triton"``, ``"native"`` or None for the automatic choice.

    Returns:
        Values in [0, 1] with shape, dtype and strides of ``x``. NaN stays NaN.

    Raises:
        InputError: a wrong dtype, shape, bit width or backend.

    >>> ewgs(torch.tensor([-0.3, 0.1, 0.4]), torch.tensor(-0.3), torch.tensor(0.3), bits=2)
    tensor([0.0000, 0.6667, 1.0000])
    """
    _checks.floating("x", x)
    _checks.bit_width(bits)
    _checks.parameter("lower", lower, x, None)
    _checks.parameter("upper", upper, x, None)
    number, tensor = split_scalar(delta, "delta")
    arguments = (*passes("ewgs", x, backend), bits, number)
    y: Tensor = EWGSFunction.apply(x, lower, upper, tensor, arguments)
    return y

"""LSQ+: learned step and offset (Bhalgat et al., CVPR Workshops 2020, equations 1 to 5)."""

from typing import Any

import torch
from torch import Tensor

from . import _checks
from ._apply import Run, first_order_of_one, passes

Arguments = tuple[Run, Run, int, float]  # forward, backward, bits, grad_scale


class LSQPlusFunction(torch.autograd.Function):
    """Straight-through gradient for x; step and offset by [LSQ+] equations 4 and 5."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, offset: Tensor, arguments: Arguments) -> Tensor:
        """Quantize, keeping ``x``, ``step`` and ``offset``."""
        ctx.save_for_backward(x, step, offset)
        run, _, bits, _ = ctx.arguments = arguments
        y: Tensor = run(x, step, offset, bits)
        return y

    @staticmethod
    @first_order_of_one
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return dx, dstep and doffset."""
        x, step, offset = ctx.saved_tensors
        _, run, bits, scale = ctx.arguments
        dx, dstep, doffset = run(grad, x, step, offset, bits, scale)
        return dx, dstep, doffset, None


def lsqplus(
    x: Tensor,
    step: Tensor,
    offset: Tensor,
    *,
    bits: int,
    grad_scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Fake-quantize on a grid with a learned offset: ``round(clip((x - o) / s, 0, n)) * s + o``.

    ``n = 2^b - 1``: for activations that are neither symmetric nor positive, such as those of SiLU
    and GELU, which dip below 0. Rounds half to even. The step is used as ``max(s, 2^-30)``. dx
    passes where ``0 <= (x - o) / s <= n``; beyond these ends the gradient goes to the offset.

    Args:
        x: any shape, float16, bfloat16, float32 or float64.
        step: one value; float32 (float64 with float64 x).
        offset: one value, like ``step``; the lowest level.
        bits: 1 to 8.
        grad_scale: factor on the gradients of step and offset, None for 1.0; LSQ's is
            ``1 / sqrt(N * n)``, which the modules pass.
        backend: ``"reference"``, ``"triton"``, ``"native"`` or None for the automatic choice.

    Returns:
        Shape, dtype and strides of ``x``. NaN stays NaN, with dx 0 and a NaN step gradient.

    Raises:
        InputError: a wrong dtype, shape, bit width or backend.

    >>> x = torch.tensor([-0.5, -0.2, 0.3, 2.0])
    >>> lsqplus(x, torch.tensor(0.5), torch.tensor(-0.25), bits=2)
    tensor([-0.2500, -0.2500,  0.2500,  1.2500])
    """
    _checks.floating("x", x)
    _checks.bit_width(bits)
    _checks.parameter("step", step, x, None)
    _checks.parameter("offset", offset, x, None)
    scale = 1.0 if grad_scale is None else _checks.real("grad_scale", grad_scale)
    arguments = (*passes("lsqplus", x, backend), bits, scale)
    y: Tensor = LSQPlusFunction.apply(x, step, offset, arguments)
    return y

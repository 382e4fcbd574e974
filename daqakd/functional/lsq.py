"""LSQ: learned step size quantization (Esser et al., ICLR 2020, equations 1 to 3)."""

from typing import Any

import torch
from torch import Tensor

from . import _checks
from ._apply import Run, first_order_of_one, passes

# forward, backward, qmin, qmax, axis, ste, grad_scale: one argument, since autograd looks at each
Arguments = tuple[Run, Run, int, int, int | None, int, float]


class LSQFunction(torch.autograd.Function):
    """Straight-through gradient for x, the step gradient of [LSQ] equation 3 for the step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, arguments: Arguments) -> Tensor:
        """Quantize, keeping ``x`` and ``step``."""
        ctx.save_for_backward(x, step)
        ctx.arguments = arguments
        run, _, qmin, qmax, axis, _, _ = arguments
        y: Tensor = run(x, step, qmin, qmax, axis)
        return y

    @staticmethod
    @first_order_of_one
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return dx and dstep."""
        x, step = ctx.saved_tensors
        _, run, qmin, qmax, axis, ste, scale = ctx.arguments
        dx, dstep = run(grad, x, step, qmin, qmax, axis, ste, scale)
        return dx, dstep, None


def lsq(
    x: Tensor,
    step: Tensor,
    *,
    bits: int,
    signed: bool,
    axis: int | None = None,
    ste: str = "closed",
    grad_scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Fake-quantize with a learned step: ``round(clip(x / s, qmin, qmax)) * s`` [LSQ].

    Rounds half to even; a code of zero is +0. The step is used as ``max(s, 2^-30)``.

    Args:
        x: any shape, float16, bfloat16, float32 or float64.
        step: one value, or ``[x.shape[axis]]`` with ``axis``; float32 (float64 with float64 x).
        bits: 1 to 8; 2 to 8 when signed.
        signed: codes in [-2^(b-1), 2^(b-1) - 1] instead of [0, 2^b - 1].
        axis: dimension that has one step per index; None for one step.
        ste: where dx passes: ``"closed"`` qmin <= x/s <= qmax (the paper), ``"open"`` without the
            ends, ``"rounded"`` where the rounded code is in range (PyTorch's native op, Brevitas).
        grad_scale: factor on the step's gradient, None for 1.0; the paper's is
            ``1 / sqrt(N * qmax)``, which the modules pass.
        backend: ``"reference"``, ``"triton"``, ``"native"`` or None for the automatic choice.

    Returns:
        Shape, dtype and strides of ``x``. NaN stays NaN, with dx 0 and a NaN step gradient.

    Raises:
        InputError: a wrong dtype, shape, bit width, axis, ``ste`` or backend.

    >>> lsq(torch.tensor([0.0, 0.2, 0.5, 2.0]), torch.tensor(0.5), bits=2, signed=True)
    tensor([0.0000, 0.0000, 0.5000, 0.5000])
    """
    _checks.floating("x", x)
    qmin, qmax = _checks.integer_range(bits, signed)
    _checks.parameter("step", step, x, axis)
    scale = 1.0 if grad_scale is None else _checks.real("grad_scale", grad_scale)
    runs = passes("lsq", x, backend)
    arguments = (*runs, qmin, qmax, axis, _checks.ste_code(ste), scale)
    y: Tensor = LSQFunction.apply(x, step, arguments)
    return y

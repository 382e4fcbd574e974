"""SEQ: stretched elastic quantization (Liu et al., ParetoQ, arXiv 2502.02631, 2025)."""

from typing import Any

import torch
from torch import Tensor

from . import _checks
from ._apply import Run, first_order_of_one, passes

Arguments = tuple[Run, Run, int, int | None, float]  # forward, backward, levels, axis, grad_scale


class SEQFunction(torch.autograd.Function):
    """Straight-through gradient for x, as LSQ's for the step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, arguments: Arguments) -> Tensor:
        """Quantize, keeping ``x`` and ``step``."""
        ctx.save_for_backward(x, step)
        run, _, levels, axis, _ = ctx.arguments = arguments
        y: Tensor = run(x, step, levels, axis)
        return y

    @staticmethod
    @first_order_of_one
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return dx and dstep."""
        x, step = ctx.saved_tensors
        _, run, levels, axis, scale = ctx.arguments
        dx, dstep = run(grad, x, step, levels, axis, scale)
        return dx, dstep, None


def seq(
    x: Tensor,
    step: Tensor,
    *,
    levels: int,
    axis: int | None = None,
    grad_scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Fake-quantize to levels balanced around 0 with a learned step, for 2 to 4 levels above all.

    [ParetoQ]'s SEQ, ``alpha * (round(clip(x / alpha, -1, 1) * k / 2 - 1/2) + 1/2) * 2 / k``, by its
    step ``s = 2 * alpha / k`` with ``k = levels``. Levels are ``-(k - 1) / 2`` to ``(k - 1) / 2``
    in whole steps: of an even number none is 0, and x goes to the middle of its whole step, 0 and
    -0 to ``s / 2``; of an odd number one is +0, and x goes to the nearest, half to even. The step
    is used as ``max(s, 2^-30)``. dx passes where ``|x / s| < k / 2``. The step's gradient is as
    LSQ's: there the level less the position, beyond it the end level.

    Args:
        x: any shape, float16, bfloat16, float32 or float64.
        step: one value, or ``[x.shape[axis]]`` with ``axis``; float32 (float64 with float64 x).
        levels: 2 to 256.
        axis: dimension that has one step per index; None for one step.
        grad_scale: factor on the step's gradient, None for 1.0; the modules pass
            ``1 / sqrt(N * (k - 1) / 2)``, LSQ's by the highest level.
        backend: ``"reference"``, ``"triton"``, ``"native"`` or None for the automatic choice.

    Returns:
        Shape, dtype and strides of ``x``. NaN stays NaN, with dx 0 and a NaN step gradient.

    Raises:
        InputError: a wrong dtype, shape, number of levels, axis or backend.

    >>> x, step = torch.tensor([-2.0, -0.1, 0.3, 0.6]), torch.tensor(0.5)
    >>> seq(x, step, levels=4)
    tensor([-0.7500, -0.2500,  0.2500,  0.7500])
    >>> seq(x, step, levels=3)
    tensor([-0.5000,  0.0000,  0.5000,  0.5000])
    """
    _checks.floating("x", x)
    _checks.level_count("levels", levels)
    _checks.parameter("step", step, x, axis)
    scale = 1.0 if grad_scale is None else _checks.real("grad_scale", grad_scale)
    y: Tensor = SEQFunction.apply(x, step, (*passes("seq", x, backend), levels, axis, scale))
    return y

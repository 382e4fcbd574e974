"""The ``*_many`` ops in plain PyTorch: the single op on each tensor."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ._common import implement
from .dorefa import dorefa_weight_backward, dorefa_weight_forward
from .ewgs import ewgs_backward, ewgs_forward
from .lsq import lsq_backward, lsq_forward

Tensors = Sequence[Tensor]


def row_axis(parameter: Tensor) -> int | None:
    """Return the axis a parameter runs along: None for one value, else the first."""
    return None if parameter.numel() == 1 else 0


@implement
def lsq_many_forward(
    x: Tensors, step: Tensors, qmin: Sequence[int], qmax: Sequence[int]
) -> list[Tensor]:
    rows = zip(x, step, qmin, qmax, strict=True)
    return [lsq_forward(one, s, low, high, row_axis(s)) for one, s, low, high in rows]


@implement
def lsq_many_backward(
    grad: Tensors,
    x: Tensors,
    step: Tensors,
    qmin: Sequence[int],
    qmax: Sequence[int],
    ste: int,
    grad_scale: Sequence[float],
) -> tuple[list[Tensor], list[Tensor]]:
    rows = zip(grad, x, step, qmin, qmax, grad_scale, strict=True)
    pairs = [
        lsq_backward(g, one, s, low, high, row_axis(s), ste, scale)
        for g, one, s, low, high, scale in rows
    ]
    return [dx for dx, _ in pairs], [ds for _, ds in pairs]


@implement
def dorefa_weight_many_forward(w: Tensors, bits: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    pairs = [dorefa_weight_forward(one, width) for one, width in zip(w, bits, strict=True)]
    return [y for y, _ in pairs], torch.stack([maximum for _, maximum in pairs])


@implement
def dorefa_weight_many_backward(
    grad: Tensors, w: Tensors, maximum: Tensor, bits: Sequence[int], detach_max: bool
) -> list[Tensor]:
    rows = zip(grad, w, maximum.reshape(-1).unbind(), bits, strict=True)
    return [dorefa_weight_backward(*row, detach_max) for row in rows]


@implement
def ewgs_many_forward(
    x: Tensors, lower: Tensors, upper: Tensors, bits: Sequence[int]
) -> list[Tensor]:
    return [ewgs_forward(*row) for row in zip(x, lower, upper, bits, strict=True)]


@implement
def ewgs_many_backward(
    grad: Tensors,
    x: Tensors,
    lower: Tensors,
    upper: Tensors,
    bits: Sequence[int],
    delta: float,
    delta_tensor: Tensor | None,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    rows = zip(grad, x, lower, upper, bits, strict=True)
    found = [ewgs_backward(*row, delta, delta_tensor) for row in rows]
    dx, dlower, dupper = ([row[k] for row in found] for k in range(3))
    return dx, dlower, dupper

"""SEQ, forward and backward [ParetoQ]: LSQ's kernels between other ends."""

from functools import cache

import torch
from torch import Tensor

from .lsq import backward, forward


@cache
def _interval(levels: int) -> tuple[float, float]:
    """Return the closed interval of x / s where dx passes: all below ``levels / 2`` steps."""
    edge = torch.nextafter(torch.tensor(levels / 2), torch.tensor(0.0)).item()
    return -edge, edge


def _ends(levels: int) -> tuple[float, float]:
    return -(levels - 1) / 2, (levels - 1) / 2


def seq_forward(
    x: Tensor, step: Tensor, y: Tensor, shape: tuple[int, int, int], levels: int
) -> None:
    """Quantize the dense ``x`` into ``y``, which has its strides; ``step`` is float32.

    ``shape`` is [outer, channels, inner], in memory order.
    """
    forward(x, step, y, shape, _ends(levels), half=levels % 2 == 0)


def seq_backward(
    grad: Tensor,
    x: Tensor,
    step: Tensor,
    dx: Tensor,
    ds: Tensor,
    shape: tuple[int, int, int],
    levels: int,
    grad_scale: float,
) -> None:
    """Write ``dx`` and ``ds``; ``grad``, ``x`` and ``dx`` are dense with the same strides."""
    rest = shape, _ends(levels), _interval(levels), grad_scale
    backward(grad, x, step, dx, ds, *rest, half=levels % 2 == 0)

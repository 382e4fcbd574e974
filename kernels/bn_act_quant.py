"""Batch norm, a residual, an activation and a quantizer, forward and backward."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._bn_sums import Gradients, reduce_gradients
from ._bn_tile import Elements, backward_tile, forward_tile
from ._norm import Norm, Running, make_statistics
from ._partition import Columns, column_tile, plan_of, run_tile
from ._quantizers import Quantizer, quantizer

__all__ = [
    "Elements",
    "Norm",
    "Quantizer",
    "Running",
    "bn_act_quant_backward",
    "bn_act_quant_forward",
    "can_pack",
    "quantizer",
]


@triton.jit
def bn_forward_runs_kernel(
    elements,  # [outer, channels, inner]
    norm,
    quantizer,
    outer,
    channels,
    inner,
    blocks,
    ACTIVATION: tl.constexpr,
    METHOD: tl.constexpr,
    SLOT: tl.constexpr,
    RUNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: RUNS x BLOCK elements of one channel."""
    channel, at, inside = run_tile(outer, channels, inner, blocks, RUNS, BLOCK)
    forward_tile(elements, norm, quantizer, channel, channels, at, inside, ACTIVATION, METHOD, SLOT)


@triton.jit
def bn_forward_columns_kernel(
    elements,  # [numel]
    norm,
    quantizer,
    numel,
    width,
    tiles,
    channels,
    inner,
    ACTIVATION: tl.constexpr,
    METHOD: tl.constexpr,
    SLOT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One program: a tile of ROWS x COLUMNS, a norm for each column."""
    column, channel, _, at = column_tile(width, tiles, channels, inner, ROWS, COLUMNS)
    inside = (column[None, :] < width) & (at < numel)
    channel = channel[None, :]
    forward_tile(elements, norm, quantizer, channel, channels, at, inside, ACTIVATION, METHOD, SLOT)


@triton.jit
def bn_backward_runs_kernel(
    elements,  # [outer, channels, inner]
    norm,
    quantizer,
    pulls,  # [2, channels], or None
    outer,
    channels,
    inner,
    blocks,
    ACTIVATION: tl.constexpr,
    METHOD: tl.constexpr,
    RUNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: the gradients of RUNS x BLOCK elements of one channel."""
    channel, at, inside = run_tile(outer, channels, inner, blocks, RUNS, BLOCK)
    backward_tile(
        elements, norm, quantizer, pulls, channel, channels, at, inside, ACTIVATION, METHOD
    )


@triton.jit
def bn_backward_columns_kernel(
    elements,  # [numel]
    norm,
    quantizer,
    pulls,  # [2, channels], or None
    numel,
    width,
    tiles,
    channels,
    inner,
    ACTIVATION: tl.constexpr,
    METHOD: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One program: the gradients of a tile of ROWS x COLUMNS."""
    column, channel, _, at = column_tile(width, tiles, channels, inner, ROWS, COLUMNS)
    inside = (column[None, :] < width) & (at < numel)
    channel = channel[None, :]
    backward_tile(
        elements, norm, quantizer, pulls, channel, channels, at, inside, ACTIVATION, METHOD
    )


def can_pack(shape: tuple[int, int, int], slot: int) -> bool:
    """Return whether no two programs share bytes of codes of ``slot`` bits, in memory order."""
    return isinstance(plan_of(*shape), Columns) or shape[2] * slot % 8 == 0


def bn_act_quant_forward(
    elements: Elements,
    norm: Norm,
    running: Running,
    q: Quantizer,
    shape: tuple[int, int, int],
    training: bool,
    eps: float,
    activation: int,
    method: int,
    slot: int,
) -> None:
    """Write the statistics, ``y``, and the activation and the codes where they are given.

    ``shape`` is [outer, channels, inner], in memory order; a code takes ``slot`` bits.
    """
    plan = plan_of(*shape)
    make_statistics(elements.x, plan, training, running, eps, norm.statistics)
    narrow = isinstance(plan, Columns)
    kernel = bn_forward_columns_kernel if narrow else bn_forward_runs_kernel
    codes = {"ACTIVATION": activation, "METHOD": method, "SLOT": slot}
    kernel[(plan.programs,)](elements, norm, q, *plan.sizes, **codes, **plan.options)


def bn_act_quant_backward(
    elements: Elements,
    norm: Norm,
    q: Quantizer,
    dnorm: Tensor,
    dparameter: Tensor | None,
    dupper: Tensor | None,
    shape: tuple[int, int, int],
    training: bool,
    activation: int,
    method: int,
    grad_scale: float,
) -> None:
    """Write ``dx``, ``dresidual`` and the parameters' gradients."""
    plan = plan_of(*shape)
    pulls = torch.empty_like(dnorm) if training else None
    outs = Gradients(dnorm, pulls, dparameter, dupper)
    reduce_gradients(elements, norm, q, plan, activation, method, grad_scale, outs)
    narrow = isinstance(plan, Columns)
    kernel = bn_backward_columns_kernel if narrow else bn_backward_runs_kernel
    codes = {"ACTIVATION": activation, "METHOD": method}
    kernel[(plan.programs,)](elements, norm, q, pulls, *plan.sizes, **codes, **plan.options)

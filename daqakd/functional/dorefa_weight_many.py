"""DoReFa on the weights of a whole model in one call."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..backends import choose
from . import _checks
from ._apply import first_order, implementation
from ._many import Tensors, check_alike, one_each, scatter, used

Arguments = tuple[str, list[int], bool]  # backend, bits of each, detach_max


class DoReFaWeightManyFunction(torch.autograd.Function):
    """:class:`DoReFaWeightFunction` of every tensor."""

    @staticmethod
    def forward(ctx: Any, arguments: Arguments, *w: Tensor) -> tuple[Tensor, ...]:
        """Quantize, keeping the weights and their maxima."""
        backend, bits, _ = ctx.arguments = arguments
        y, maximum = implementation("dorefa_weight_many_forward", backend)(w, bits)
        ctx.save_for_backward(maximum, *w)
        ctx.set_materialize_grads(False)
        return tuple(y)

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return dw of the tensors that were used."""
        maximum, *w = ctx.saved_tensors
        backend, bits, detach_max = ctx.arguments
        indices, (g, some, widths) = used(grads, (grads, w, bits))
        if indices is not None:
            maximum = torch.stack([maximum[i] for i in indices])
        run = implementation("dorefa_weight_many_backward", backend)
        return None, *scatter(indices, run(g, some, maximum, widths, detach_max), len(grads))


def dorefa_weight_many(
    w: Tensors,
    *,
    bits: int | Sequence[int],
    detach_max: bool = True,
    backend: str | None = None,
) -> tuple[Tensor, ...]:
    """Quantize many weights in two launches, the maxima first; see :func:`dorefa_weight`.

    Args:
        w: tensors of any shapes, one dtype, one device.
        bits: 1 to 8, for all or for each.
        detach_max: as for :func:`dorefa_weight`.
        backend: ``"reference"``, ``"triton"``, ``"native"`` or None for the automatic choice.

    Returns:
        For each tensor what :func:`dorefa_weight` gives. A tensor whose result is not used gets no
        gradient.

    Raises:
        InputError: as for :func:`lsq_many`.

    >>> dorefa_weight_many([torch.tensor([-0.5, 0.3])], bits=2)
    (tensor([-1.0000,  0.3333]),)
    """
    check_alike("w", w)
    widths = one_each("bits", bits, len(w))
    for width in widths:
        _checks.bit_width(width)
    _checks.flag("detach_max", detach_max)
    if not w:
        return ()
    arguments = (choose("dorefa_weight_many", w[0], backend), widths, detach_max)
    y: tuple[Tensor, ...] = DoReFaWeightManyFunction.apply(arguments, *w)
    return y

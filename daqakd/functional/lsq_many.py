"""LSQ on the weights of a whole model in one call."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..backends import choose
from . import _checks
from ._apply import first_order, implementation
from ._many import Tensors, check_alike, one_each, parameters, scatter, used

# backend, qmin and qmax of each, ste, grad_scale of each
Arguments = tuple[str, list[int], list[int], int, list[float]]


class LSQManyFunction(torch.autograd.Function):
    """:class:`LSQFunction` of every tensor."""

    @staticmethod
    def forward(ctx: Any, arguments: Arguments, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Quantize tensors, followed by their steps."""
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        backend, qmin, qmax, _, _ = ctx.arguments = arguments
        count = len(qmin)
        run = implementation("lsq_many_forward", backend)
        return tuple(run(tensors[:count], tensors[count:], qmin, qmax))

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return dx and dstep of the tensors that were used."""
        tensors, count = ctx.saved_tensors, len(grads)
        backend, qmin, qmax, ste, scale = ctx.arguments
        lists = grads, tensors[:count], tensors[count:], qmin, qmax, scale
        indices, (g, x, step, low, high, scales) = used(grads, lists)
        run = implementation("lsq_many_backward", backend)
        dx, dstep = run(g, x, step, low, high, ste, scales)
        return None, *scatter(indices, dx, count), *scatter(indices, dstep, count)


def lsq_many(
    x: Tensors,
    step: Tensors,
    *,
    bits: int | Sequence[int],
    signed: bool,
    ste: str = "closed",
    grad_scale: float | Sequence[float] | None = None,
    backend: str | None = None,
) -> tuple[Tensor, ...]:
    """Fake-quantize many tensors with learned steps in one launch; see :func:`lsq`.

    Args:
        x: tensors of any shapes, one dtype, one device.
        step: for each tensor one value, or ``[x.shape[0]]``: one per row (output channel).
        bits: 1 to 8 (2 to 8 when signed), for all or for each.
        signed: as for :func:`lsq`.
        ste: as for :func:`lsq`.
        grad_scale: factor on the steps' gradients, for all or for each; None for 1.0.
        backend: ``"reference"``, ``"triton"``, ``"native"`` or None for the automatic choice.

    Returns:
        For each tensor what :func:`lsq` gives. A tensor whose result is not used gets no gradient.

    Raises:
        InputError: lists of different lengths, tensors of different dtypes or devices, or what
            :func:`lsq` refuses.

    >>> lsq_many([torch.tensor([0.2, 0.5])], [torch.tensor(0.5)], bits=2, signed=True)
    (tensor([0.0000, 0.5000]),)
    """
    check_alike("x", x)
    count = len(x)
    parameters("step", step, x)
    ranges = [_checks.integer_range(width, signed) for width in one_each("bits", bits, count)]
    for i, s in enumerate(one_each("step", step, count)):
        _checks.parameter(f"step[{i}]", s, x[i], None if s.numel() == 1 else 0)
    scales = one_each("grad_scale", 1.0 if grad_scale is None else grad_scale, count)
    scale = [_checks.real("grad_scale", one) for one in scales]
    if not count:
        return ()
    chosen = choose("lsq_many", x[0], backend)
    low, high = [low for low, _ in ranges], [high for _, high in ranges]
    arguments = (chosen, low, high, _checks.ste_code(ste), scale)
    y: tuple[Tensor, ...] = LSQManyFunction.apply(arguments, *x, *step)
    return y

"""EWGS on the weights of a whole model in one call."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..backends import choose
from . import _checks
from ._apply import first_order, implementation, split_scalar
from ._many import Tensors, check_alike, one_each, parameters, scatter, used

Arguments = tuple[str, list[int], float]  # backend, bits of each, delta


class EWGSManyFunction(torch.autograd.Function):
    """:class:`EWGSFunction` of every tensor."""

    @staticmethod
    def forward(
        ctx: Any, arguments: Arguments, delta_tensor: Tensor | None, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """Quantize tensors, followed by their lower and upper bounds."""
        ctx.save_for_backward(delta_tensor, *tensors)
        ctx.set_materialize_grads(False)
        backend, bits, _ = ctx.arguments = arguments
        count = len(bits)
        x, lower, upper = tensors[:count], tensors[count : 2 * count], tensors[2 * count :]
        return tuple(implementation("ewgs_many_forward", backend)(x, lower, upper, bits))

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return dx, dlower and dupper of the tensors that were used."""
        delta_tensor, *tensors = ctx.saved_tensors
        backend, bits, delta = ctx.arguments
        count = len(grads)
        lists = grads, *(tensors[k * count : (k + 1) * count] for k in range(3)), bits
        indices, (g, x, lower, upper, widths) = used(grads, lists)
        run = implementation("ewgs_many_backward", backend)
        found = run(g, x, lower, upper, widths, delta, delta_tensor)
        return None, None, *(grad for some in found for grad in scatter(indices, some, count))


def ewgs_many(
    x: Tensors,
    lower: Tensors,
    upper: Tensors,
    *,
    bits: int | Sequence[int],
    delta: float | Tensor = 0.0,
    backend: str | None = None,
) -> tuple[Tensor, ...]:
    """Quantize many learned ranges to [0, 1] in one launch; see :func:`ewgs`.

    Args:
        x: tensors of any shapes, one dtype, one device.
        lower: one value for each tensor.
        upper: one value for each tensor.
        bits: 1 to 8, for all or for each.
        delta: as for :func:`ewgs`, for all.
        backend: ``"reference"``, ``"triton"``, ``"native"`` or None for the automatic choice.

    Returns:
        For each tensor what :func:`ewgs` gives. A tensor whose result is not used gets no gradient.

    Raises:
        InputError: as for :func:`lsq_many`.

    >>> ewgs_many([torch.tensor([0.1, 0.4])], [torch.tensor(0.0)], [torch.tensor(0.4)], bits=2)
    (tensor([0.3333, 1.0000]),)
    """
    check_alike("x", x)
    count = len(x)
    widths = one_each("bits", bits, count)
    for width in widths:
        _checks.bit_width(width)
    for name, bounds in (("lower", lower), ("upper", upper)):
        parameters(name, bounds, x)
        for i, bound in enumerate(bounds):
            _checks.parameter(f"{name}[{i}]", bound, x[i], None)
    number, tensor = split_scalar(delta, "delta")
    if not count:
        return ()
    chosen = choose("ewgs_many", x[0], backend)
    arguments = (chosen, widths, number)
    y: tuple[Tensor, ...] = EWGSManyFunction.apply(arguments, tensor, *x, *lower, *upper)
    return y

"""The weights of a whole model in one call: ``lsq_many``, ``dorefa_weight_many``, ``ewgs_many``.

Small tensors are bound by launches, not bytes: one launch forward (DoReFa: two) and at most two
backward replace several per tensor. Each result equals the single op's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from . import _checks
from ._apply import first_order, implementation, pick, split_scalar

Tensors = Sequence[Tensor]


def _present(grads: Sequence[Tensor | None]) -> list[int]:
    """Return the places of the outputs that were used."""
    return [i for i, grad in enumerate(grads) if grad is not None]


def _spread(places: list[int], found: Tensors, parameters: Tensors) -> list[Tensor | None]:
    """Put gradients in their places and dtypes, None elsewhere: unused weights get none."""
    spread: list[Tensor | None] = [None] * len(parameters)
    for i, grad in zip(places, found, strict=True):
        dtype = parameters[i].dtype
        spread[i] = grad if grad.dtype == dtype else grad.to(dtype)
    return spread


class LSQManyFunction(torch.autograd.Function):
    """:class:`LSQFunction` of every tensor."""

    @staticmethod
    def forward(
        ctx: Any,
        count: int,
        qmin: list[int],
        qmax: list[int],
        ste: int,
        grad_scale: list[float],
        backend: str,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        """Quantize ``count`` tensors, followed by their steps."""
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        ctx.arguments, ctx.backend = (qmin, qmax, ste, grad_scale), backend
        run = implementation("lsq_many_forward", backend)
        return tuple(run(tensors[:count], tensors[count:], qmin, qmax))

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return dx and dstep of the tensors that were used."""
        count, places = len(grads), _present(grads)
        x, step = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        qmin, qmax, ste, scale = ctx.arguments
        used = ([values[i] for i in places] for values in (grads, x, step, qmin, qmax, scale))
        g, some, steps, low, high, scales = used
        run = implementation("lsq_many_backward", ctx.backend)
        dx, dstep = run(g, some, steps, low, high, ste, scales)
        return *[None] * 6, *_spread(places, dx, x), *_spread(places, dstep, step)


class DoReFaWeightManyFunction(torch.autograd.Function):
    """:class:`DoReFaWeightFunction` of every tensor."""

    @staticmethod
    def forward(
        ctx: Any, bits: list[int], detach_max: bool, backend: str, *w: Tensor
    ) -> tuple[Tensor, ...]:
        """Quantize, keeping the weights and their maxima."""
        y, maximum = implementation("dorefa_weight_many_forward", backend)(w, bits)
        ctx.save_for_backward(maximum, *w)
        ctx.set_materialize_grads(False)
        ctx.arguments, ctx.backend = (bits, detach_max), backend
        return tuple(y)

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return dw of the tensors that were used."""
        maximum, *w = ctx.saved_tensors
        bits, detach_max = ctx.arguments
        places = _present(grads)
        if len(places) < len(grads):
            maximum = torch.stack([maximum[i] for i in places])
        g, some, widths = ([values[i] for i in places] for values in (grads, w, bits))
        run = implementation("dorefa_weight_many_backward", ctx.backend)
        return None, None, None, *_spread(places, run(g, some, maximum, widths, detach_max), w)


class EWGSManyFunction(torch.autograd.Function):
    """:class:`EWGSFunction` of every tensor."""

    @staticmethod
    def forward(
        ctx: Any,
        count: int,
        bits: list[int],
        delta: float,
        delta_tensor: Tensor | None,
        backend: str,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        """Quantize ``count`` tensors, followed by their lower and upper ends."""
        ctx.save_for_backward(delta_tensor, *tensors)
        ctx.set_materialize_grads(False)
        ctx.arguments, ctx.backend = (bits, delta), backend
        x, lower, upper = tensors[:count], tensors[count : 2 * count], tensors[2 * count :]
        return tuple(implementation("ewgs_many_forward", backend)(x, lower, upper, bits))

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return dx, dlower and dupper of the tensors that were used."""
        delta_tensor, *tensors = ctx.saved_tensors
        bits, delta = ctx.arguments
        count, places = len(grads), _present(grads)
        lists = [tensors[k * count : (k + 1) * count] for k in range(3)]
        g, x, lower, upper, widths = ([v[i] for i in places] for v in (grads, *lists, bits))
        run = implementation("ewgs_many_backward", ctx.backend)
        found = run(g, x, lower, upper, widths, delta, delta_tensor)
        spread = [_spread(places, some, all_) for some, all_ in zip(found, lists, strict=True)]
        return *[None] * 5, *spread[0], *spread[1], *spread[2]


def _each(name: str, values: Any, count: int) -> list[Any]:
    """Return one value per tensor: ``values`` itself, or one value for all."""
    if not isinstance(values, list | tuple):
        return [values] * count
    if len(values) != count:
        raise InputError(f"{name}: expected one per tensor, {count}, got {len(values)}")
    return list(values)


def _together(name: str, tensors: Tensors) -> None:
    """Require floating-point tensors of one dtype on one device."""
    for i, x in enumerate(tensors):
        _checks.floating(f"{name}[{i}]", x)
        if x.dtype != tensors[0].dtype or x.device != tensors[0].device:
            raise InputError(
                f"{name}[{i}]: is {x.dtype} on {x.device}, but {name}[0] is {tensors[0].dtype}"
                f" on {tensors[0].device}; call once per dtype and device"
            )


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
    _together("x", x)
    count = len(x)
    ranges = [_checks.integer_range(width, signed) for width in _each("bits", bits, count)]
    for i, s in enumerate(_each("step", step, count)):
        _checks.parameter(f"step[{i}]", s, x[i], None if s.numel() == 1 else 0)
    scale = _each("grad_scale", 1.0 if grad_scale is None else grad_scale, count)
    if not count:
        return ()
    chosen = pick("lsq_many", x[0], backend)
    low, high = [low for low, _ in ranges], [high for _, high in ranges]
    arguments = (count, low, high, _checks.ste_code(ste), scale, chosen)
    y: tuple[Tensor, ...] = LSQManyFunction.apply(*arguments, *x, *step)
    return y


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
    _together("w", w)
    widths = _each("bits", bits, len(w))
    for width in widths:
        _checks.bit_width(width)
    if not w:
        return ()
    chosen = pick("dorefa_weight_many", w[0], backend)
    y: tuple[Tensor, ...] = DoReFaWeightManyFunction.apply(widths, detach_max, chosen, *w)
    return y


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
    _together("x", x)
    count = len(x)
    widths = _each("bits", bits, count)
    for width in widths:
        _checks.bit_width(width)
    for name, ends in (("lower", lower), ("upper", upper)):
        for i, end in enumerate(_each(name, ends, count)):
            _checks.parameter(f"{name}[{i}]", end, x[i], None)
    if not count:
        return ()
    number, tensor = split_scalar(delta, "delta")
    chosen = pick("ewgs_many", x[0], backend)
    arguments = (count, widths, number, tensor, chosen)
    y: tuple[Tensor, ...] = EWGSManyFunction.apply(*arguments, *x, *lower, *upper)
    return y

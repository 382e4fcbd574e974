"""What the functions on many weights have in common: arguments per tensor, unused outputs.

Small tensors are bound by launches, not bytes: one launch forward (DoReFa: two) and at most two
backward replace several per tensor. Each result equals the single op's, bit for bit on the native
and the reference backend. On Triton the compiler decides the order of a sum: gradients of steps and
ranges agree to rounding. DoReFa's sums are taken in fp64 there, so that what follows from them is
the same unless a sum lies just between two float32 numbers.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .._errors import InputError
from . import _checks

Tensors = Sequence[Tensor]


def used_outputs(grads: Sequence[Tensor | None]) -> list[int]:
    """Return the indices of the outputs that have a gradient."""
    return [i for i, grad in enumerate(grads) if grad is not None]


def scatter(indices: list[int], found: Tensors, parameters: Tensors) -> list[Tensor | None]:
    """Return a gradient per parameter, in its dtype: ``found`` at ``indices``, else None."""
    gradients: list[Tensor | None] = [None] * len(parameters)
    for i, grad in zip(indices, found, strict=True):
        dtype = parameters[i].dtype
        gradients[i] = grad if grad.dtype == dtype else grad.to(dtype)
    return gradients


def one_each(name: str, values: Any, count: int) -> list[Any]:
    """Return one value per tensor: ``values`` itself, or one value for all."""
    if not isinstance(values, list | tuple):
        return [values] * count
    if len(values) != count:
        raise InputError(f"{name}: expected one per tensor, {count}, got {len(values)}")
    return list(values)


def _check_list(name: str, values: Any) -> None:
    if not isinstance(values, list | tuple):
        raise InputError(f"{name}: expected a list of tensors, got {type(values).__name__}")


def parameters(name: str, values: Any, x: Tensors) -> None:
    """Require one tensor for each of ``x``."""
    _check_list(name, values)
    for i, value in enumerate(one_each(name, values, len(x))):
        _checks.tensor(f"{name}[{i}]", value)


def check_alike(name: str, tensors: Tensors) -> None:
    """Require floating-point tensors of one dtype on one device."""
    _check_list(name, tensors)
    for i, x in enumerate(tensors):
        _checks.floating(f"{name}[{i}]", x)
        if x.dtype != tensors[0].dtype or x.device != tensors[0].device:
            raise InputError(
                f"{name}[{i}]: is {x.dtype} on {x.device}, but {name}[0] is {tensors[0].dtype}"
                f" on {tensors[0].device}; call once per dtype and device"
            )

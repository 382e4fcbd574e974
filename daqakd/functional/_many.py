"""What the functions on many weights have in common: arguments per tensor, unused outputs.

Small tensors are bound by launches, not bytes: one launch forward (DoReFa: two) and at most two
backward replace several per tensor. Each result equals the single op's, bit for bit on the native
and the reference backend. On Triton the compiler decides the order of a sum: gradients of steps and
ranges agree to rounding. DoReFa's sums are taken in fp64 there, so that what follows from them is
the same unless a sum lies just between two float32 numbers.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from .._errors import InputError
from ..backends import choose
from . import _checks

Tensors = Sequence[Tensor]


class Together:
    """One call of a ``*_many`` function, ready to run again while all it was made of stays."""

    __slots__ = ("arguments", "first", "function", "stem", "tensors")

    def __init__(
        self,
        stem: str,
        function: Any,
        arguments: tuple[Any, ...],
        *tensors: Tensor | None,
        first: Tensor,
    ) -> None:
        self.stem, self.function, self.arguments = stem, function, arguments
        self.tensors, self.first = tensors, first

    def __call__(self) -> tuple[Tensor, ...]:
        """Return the quantized weights."""
        arguments = (choose(self.stem, self.first), *self.arguments)
        values: tuple[Tensor, ...] = self.function.apply(arguments, *self.tensors)
        return values


def used(
    grads: Sequence[Tensor | None], lists: Iterable[Sequence[Any]]
) -> tuple[list[int] | None, Iterable[Sequence[Any]]]:
    """Return the indices of the outputs that have a gradient, None for all, and ``lists`` there."""
    if all(grad is not None for grad in grads):
        return None, lists
    indices = [i for i, grad in enumerate(grads) if grad is not None]
    return indices, [[values[i] for i in indices] for values in lists]


def scatter(indices: list[int] | None, found: Tensors, count: int) -> Sequence[Tensor | None]:
    """Return ``count`` gradients: ``found`` at ``indices``, else None."""
    if indices is None:
        return found
    gradients: list[Tensor | None] = [None] * count
    for i, grad in zip(indices, found, strict=True):
        gradients[i] = grad
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

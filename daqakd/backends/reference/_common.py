"""What the reference formulas have in common: registration, dtype, rounding, lower bounds."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..._ops import LIBRARY, SMALLEST, accumulation_dtype
from .._layout import broadcast
from ..contract import checked

F = TypeVar("F", bound=Callable[..., Any])
IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {}


def implement(function: F) -> F:
    """Make this the ``reference`` overload of the op of the same name."""
    name = function.__name__
    IMPLEMENTATIONS[name] = function
    run = checked(function, values=True)
    LIBRARY.impl(f"{name}.reference", run, "CompositeExplicitAutograd")
    return function


def to_accumulation_dtype(x: Tensor) -> Tensor:
    return x.to(accumulation_dtype(x.dtype))


def round_half_even(x: Tensor) -> Tensor:
    """Round half to even; a code of zero is +0, as the kernels' rounding by two additions gives."""
    return torch.round(x) + 0.0


def at_least_smallest(parameter: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """Return the parameter, at least 2^-30, in the dtype of ``x``'s sums, to broadcast with it."""
    wide = parameter.to(accumulation_dtype(x.dtype))
    return broadcast(torch.where(wide < SMALLEST, SMALLEST, wide), x, axis)

"""How a public function reaches an op and its gradient; autograd casts gradients to their dtype."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, is_grad_enabled

from .._errors import InputError
from .._ops import OVERLOADS
from ..backends import FORMULA, reference
from . import _checks


def implementation(name: str, backend: str) -> Callable[..., Any]:
    """Return what runs op ``name``: a backend's overload, or the formula as plain ATen."""
    return reference.IMPLEMENTATIONS[name] if backend == FORMULA else OVERLOADS[name, backend]


class _SecondDerivative(torch.autograd.Function):
    """Identity on a gradient, made to depend on ``anchor`` only to refuse a second derivative."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, anchor: Tensor) -> Tensor:
        """Pass the gradient through."""
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Refuse."""
        raise RuntimeError(
            "cannot differentiate twice through a daqakd op: its backward pass has no derivative;"
            " compute this gradient without create_graph, or use a plain PyTorch formula"
        )


def first_order(backward: Callable[..., tuple[Tensor | None, ...]]) -> Callable[..., Any]:
    """Run a backward pass without a graph; with ``create_graph`` its results refuse a second one.

    ``once_differentiable`` misses the case in which the incoming gradient is a constant.
    """

    def wrapper(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if not is_grad_enabled():
            return backward(ctx, *grads)
        with torch.no_grad():
            results = backward(ctx, *grads)
        present = next(grad for grad in grads if grad is not None)
        anchor = present.new_zeros((), requires_grad=True)
        return tuple(r if r is None else _SecondDerivative.apply(r, anchor) for r in results)

    return wrapper


def in_strides_of(grad: Tensor, shape: torch.Size, strides: tuple[int, ...]) -> Tensor:
    """Return ``grad`` laid out with ``strides``, so that it lines up with a packed mask."""
    if grad.stride() == strides:
        return grad
    return torch.empty_strided(shape, strides, dtype=grad.dtype, device=grad.device).copy_(grad)


def split_scalar(value: float | Tensor, name: str) -> tuple[float, Tensor | None]:
    """Split a float-or-tensor argument into the op's float and optional 0-dim tensor."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise InputError(f"{name}: expected a 0-dim tensor, got shape {tuple(value.shape)}")
        _checks.floating(name, value)
        return 0.0, value.detach().reshape(())
    return _checks.real(name, value), None

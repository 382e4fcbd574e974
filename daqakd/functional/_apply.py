"""How a public function reaches an op and its gradient; autograd casts gradients to their dtype."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, is_grad_enabled
from torch.compiler import is_dynamo_compiling

from .._errors import InputError
from .._ops import OVERLOADS
from ..backends import FORMULA, choose, reference
from ..backends.contract import LARGEST_NUMBER
from . import _checks

Run = Callable[..., Any]  # an op by one backend
Passes = tuple[Run, Run]  # forward and backward

PASSES: dict[tuple[str, str], Passes] = {}  # by stem and backend, filled as they are used


def implementation(name: str, backend: str) -> Run:
    """Return what runs op ``name``: a backend's overload, or the formula as plain ATen."""
    return reference.IMPLEMENTATIONS[name] if backend == FORMULA else OVERLOADS[name, backend]


def passes(stem: str, x: Tensor, backend: str | None = None) -> Passes:
    """Return what runs the two ops of ``stem`` on ``x``.

    Graphs need overloads, in compiled autograd backward too; else what one calls is faster.
    """
    chosen = choose(stem, x, backend)
    if is_dynamo_compiling():
        return _overloads(stem, chosen)
    found = PASSES.get((stem, chosen))
    if found is None:
        forward, backward = _overloads(stem, chosen)
        found = PASSES[stem, chosen] = getattr(forward, "_op", forward), backward
    return found


def _overloads(stem: str, backend: str) -> Passes:
    forward, backward = f"{stem}_forward", f"{stem}_backward"
    return implementation(forward, backend), implementation(backward, backend)


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
        if is_grad_enabled():
            return _refusing_a_second(backward, ctx, *grads)
        return backward(ctx, *grads)

    return wrapper


def first_order_of_one(backward: Callable[..., tuple[Tensor | None, ...]]) -> Callable[..., Any]:
    """Do as :func:`first_order` for one output: a list of gradients would cost time."""

    def wrapper(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if is_grad_enabled():
            return _refusing_a_second(backward, ctx, grad)
        return backward(ctx, grad)

    return wrapper


def _refusing_a_second(
    backward: Callable[..., tuple[Tensor | None, ...]], ctx: Any, *grads: Tensor
) -> tuple[Tensor | None, ...]:
    with torch.no_grad():
        results = backward(ctx, *grads)
    present = next(grad for grad in grads if grad is not None)
    anchor = present.new_zeros((), requires_grad=True)
    return tuple(r if r is None else _SecondDerivative.apply(r, anchor) for r in results)


def in_strides_of(grad: Tensor, strides: tuple[int, ...]) -> Tensor:
    """Return ``grad`` laid out with ``strides``, so that it lines up with a packed mask."""
    if grad.stride() == strides:
        return grad
    return grad.new_empty_strided(grad.shape, strides).copy_(grad)


def split_scalar(value: float | Tensor, name: str) -> tuple[float, Tensor | None]:
    """Split a float-or-tensor argument into the op's float and optional 0-dim tensor."""
    if type(value) is float and abs(value) <= LARGEST_NUMBER:
        return value, None
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise InputError(f"{name}: expected a 0-dim tensor, got shape {tuple(value.shape)}")
        _checks.floating(name, value)
        return 0.0, value.detach().reshape(())
    return _checks.real(name, value), None

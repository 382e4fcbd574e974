"""Piecewise linear functions that keep their piece: what bends at an input of before is a line."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

ELEMENTWISE: set[Any] = {
    *(torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_),
    *(functional.relu, functional.relu6, functional.hardtanh, functional.leaky_relu),
}
POOLS: set[Any] = {functional.max_pool2d, torch.max_pool2d}
IN_PLACE: set[Any] = {torch.relu_, torch.Tensor.relu_}

Piece = Callable[[Tensor], Tensor]


def line(function: Callable[[Tensor], Tensor], x: Tensor) -> Piece:
    """Return the straight line that a function of each element and its gradient are at ``x``."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = function(x)
        (slope,) = torch.autograd.grad(y, x, torch.ones_like(y))
    offset = y.detach() - slope * x.detach()
    return lambda x: torch.addcmul(offset, slope, x)


def _places(pool: Callable[..., Any], x: Tensor) -> Piece:
    """Return what takes the elements that a pool over images ``[..., H, W]`` takes of ``x``."""
    _, places = pool(x.detach())
    flat = places.flatten(-2)
    return lambda x: x.flatten(-2).gather(-1, flat).view(places.shape)


def _piece(function: Any, x: Tensor, rest: tuple[Any, ...], options: dict[str, Any]) -> Piece:
    if function in POOLS:
        given = {k: v for k, v in options.items() if k != "return_indices"}
        return _places(lambda x: functional.max_pool2d_with_indices(x, *rest[:5], **given), x)
    given = {k: v for k, v in options.items() if k != "inplace"}
    return line(lambda x: function(x.clone(), *rest, **given), x)


class Pieces(TorchFunctionMode):
    """ReLU, ReLU6, leaky ReLU and max-pooling, by the pieces of the first pass within the mode.

    They are told apart by their order. What computes without gradients is left alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Piece] = []
        self.recording, self.calls = False, 0
        self.passes = 0

    def again(self) -> None:
        """Begin another pass."""
        self.recording, self.calls, self.passes = self.passes == 0, 0, self.passes + 1

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute as the pieces say."""
        options = kwargs or {}
        known = args and (function in ELEMENTWISE or function in POOLS)
        with_places = len(args) > 6 or options.get("return_indices")
        if not known or with_places or not torch.is_grad_enabled():
            return function(*args, **options)
        x, *rest = args
        if self.recording:
            self.found.append(_piece(function, x, tuple(rest), options))
        if self.calls >= len(self.found):
            return function(*args, **options)
        y = self.found[self.calls](x)
        self.calls += 1
        in_place = function in IN_PLACE or options.get("inplace") or any(v is True for v in rest)
        return x.copy_(y) if in_place and function not in POOLS else y

"""How a public function reaches an op: choose the backend, or trace the reference for export."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._ops import overload
from ..backends import choose, reference


def implementation(name: str, backend: str) -> Callable[..., Any]:
    """Return what runs op ``name``; an exported program gets plain ATen instead of the op."""
    if torch.compiler.is_exporting():
        return reference.IMPLEMENTATIONS[name]
    return overload(name, backend)


def pick(stem: str, x: Tensor, backend: str | None) -> str:
    """Return the backend for the op ``stem`` on ``x``."""
    return "reference" if torch.compiler.is_exporting() else choose(stem, x, backend)


def in_strides_of(grad: Tensor, shape: torch.Size, strides: tuple[int, ...]) -> Tensor:
    """Return ``grad`` laid out with ``strides``, so that it lines up with a packed mask."""
    if grad.stride() == strides:
        return grad
    return torch.empty_strided(shape, strides, dtype=grad.dtype, device=grad.device).copy_(grad)


def split_scalar(value: float | Tensor, name: str) -> tuple[float, Tensor | None]:
    """Split a float-or-tensor argument into the op's float and optional 0-dim tensor."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name}: expected a 0-dim tensor, got shape {tuple(value.shape)}")
        return 0.0, value.detach().reshape(())
    return float(value), None

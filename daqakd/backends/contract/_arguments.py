"""What an argument of a raw op can be asked for; each message names it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..._errors import InputError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LARGEST_NUMBER = torch.finfo(torch.float32).max

Tensors = Sequence[Tensor]


def require(holds: bool, message: str) -> None:
    """Raise an InputError that says ``message`` unless it holds."""
    if not holds:
        raise InputError(message)


def tensor(name: str, x: Tensor) -> None:
    """Require elements that lie in memory: a storage can be freed or cut short under a tensor."""
    require(x.layout == torch.strided, f"{name}: expected a dense tensor, got {x.layout}")
    last = sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))
    needed = int(x.storage_offset() + last + 1) * x.element_size() if x.numel() else 0
    require(
        needed <= x.untyped_storage().nbytes(),
        f"{name}: its storage is smaller than the tensor; allocate it before the call",
    )


def floating(name: str, x: Tensor) -> None:
    """Require a floating-point tensor."""
    require(
        x.dtype in FLOATS,
        f"{name}: expected float16, bfloat16, float32 or float64, got {x.dtype}; cast it first",
    )


def beside(name: str, value: Tensor, x: Tensor) -> None:
    """Require a tensor on the device of the input ``x``."""
    require(
        value.device == x.device,
        f"{name}: is on {value.device}, but the input is on {x.device}; move it",
    )
    tensor(name, value)


def floating_tensor(name: str, x: Tensor) -> None:
    tensor(name, x)
    floating(name, x)


def same(name: str, value: Tensor, x: Tensor) -> None:
    beside(name, value, x)
    require(
        value.shape == x.shape and value.dtype == x.dtype,
        f"{name}: expected the shape and dtype of the input, {x.dtype} {tuple(x.shape)}, got"
        f" {value.dtype} {tuple(value.shape)}",
    )


def parameter(name: str, value: Tensor | None, x: Tensor, axis: int | None = None) -> None:
    if value is None:
        return
    require(
        axis is None or -x.dim() <= axis < x.dim(),
        f"axis: expected a dimension of the {x.dim()}-D input, got {axis}",
    )
    wanted = 1 if axis is None else x.shape[axis]
    require(value.numel() == wanted, f"{name}: expected {wanted} values, got {value.numel()}")
    floating(name, value)
    beside(name, value, x)


def one_per_row(name: str, value: Tensor | None, rows: int, x: Tensor) -> None:
    if value is None:
        return
    require(value.shape == (rows,), f"{name}: expected one value for each of the {rows} rows")
    beside(name, value, x)


def packed_mask(mask: Tensor, grad: Tensor, bits: int) -> None:
    wanted = (grad.numel() * bits + 7) // 8
    require(
        mask.dtype == torch.uint8 and mask.shape == (wanted,) and mask.is_contiguous(),
        f"mask: expected {wanted} contiguous bytes for the gradient's elements, got"
        f" {mask.dtype} {tuple(mask.shape)}",
    )
    beside("mask", mask, grad)


def bit_width(bits: int, signed: bool = False) -> None:
    low = 2 if signed else 1
    require(low <= bits <= 8, f"bits: expected {low} to 8, got {bits}")


def known_code(name: str, given: int, codes: Mapping[Any, int]) -> None:
    require(
        given in codes.values(), f"{name}: expected a code from 0 to {len(codes) - 1}, got {given}"
    )


def number(name: str, value: float) -> None:
    """Require a number that float32 holds."""
    if not abs(value) <= LARGEST_NUMBER:
        raise InputError(f"{name}: expected a finite number, got {value}")


def alike(name: str, tensors: Tensors) -> None:
    require(len(tensors) > 0, f"{name}: expected at least one tensor")
    for x in tensors:
        floating_tensor(name, x)
        require(
            x.dtype == tensors[0].dtype and x.device == tensors[0].device,
            f"{name}: expected tensors of one dtype on one device",
        )


def each(check: Callable[..., None], *lists: Sequence[Any]) -> None:
    counts = [len(one) for one in lists]
    require(len(set(counts)) == 1, f"expected one of each per tensor, got {counts}")
    for row in zip(*lists, strict=True):
        check(*row)


def within(name: str, x: Tensor | None, low: float, high: float) -> None:
    """Require values from ``low`` to ``high``, none NaN, where reading them waits for no device."""
    if x is None or x.device.type != "cpu" or x.numel() == 0:
        return
    outside = ~((x >= low) & (x <= high))
    if bool(outside.any()):
        raise InputError(
            f"{name}: expected values from {low:g} to {high:g}, got {x[outside][0].item()}"
        )

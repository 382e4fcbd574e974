"""Calls of the raw ops with arguments that do not fit: one or two of a sample's are spoilt."""

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from .samples import SAMPLES

DTYPES = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8,
    torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn,
)  # fmt: skip
INTEGERS = (-(2**63), -(2**31), -129, -2, -1, 0, 1, 2, 3, 8, 9, 77, 99, 2**31, 2**32 + 1, 2**63 - 1)
NUMBERS = (*(float(text) for text in ("nan", "inf", "-inf")), 0.0, -0.0, 1e-45, -1.0, 0.5, 1e30)
NUMBERS += (-1e30, 1e300)
Change = Callable[[Tensor, random.Random], Tensor]


def freed(x: Tensor, size: int) -> Tensor:
    x = x.detach().clone()
    x.untyped_storage().resize_(size)
    return x


def valued(x: Tensor, rng: random.Random) -> Tensor:
    """Put an extreme value somewhere."""
    x, flat = x.detach().clone(), max(x.numel(), 1)
    if x.dtype == torch.bool or x.numel() == 0:
        return x
    value: float = rng.choice(NUMBERS)
    if not x.is_floating_point():
        most = torch.iinfo(x.dtype)
        value = rng.choice((most.min, most.max, -1, 0, 1, 2, 5, 99))
        value = min(max(int(value), most.min), most.max)
    x.view(-1)[rng.randrange(flat)] = value
    return x


def cut(x: Tensor, rng: random.Random) -> Tensor:
    return x.narrow(rng.randrange(x.dim()), 0, rng.choice((0, 1))) if x.dim() else x[None]


def shifted(x: Tensor, rng: random.Random) -> Tensor:
    """Lay ``x`` out one element further, so that nothing is aligned."""
    return torch.cat([x.reshape(-1)[:1], x.reshape(-1)])[-x.numel() or 1 :].view(x.shape)


def strided(x: Tensor, rng: random.Random) -> Tensor:
    return torch.stack([x, x], -1)[..., 1]


def expanded(x: Tensor, rng: random.Random) -> Tensor:
    return x[:1].expand(x.shape) if x.dim() and len(x) else x


def bytes_as(x: Tensor, rng: random.Random) -> Tensor:
    """Any bits at all."""
    x = x.detach().clone()
    if x.numel() and x.is_contiguous():
        whole = x.view(-1).view(torch.uint8)
        whole.copy_(torch.tensor([rng.randrange(256) for _ in range(whole.numel())]))
    return x


CHANGES: tuple[Change, ...] = (
    lambda x, rng: x.to(rng.choice(DTYPES)),
    lambda x, rng: x.to(rng.choice(DTYPES)),
    lambda x, rng: x.to("meta"),
    lambda x, rng: freed(x, 0),
    lambda x, rng: freed(x, x.untyped_storage().nbytes() // 2),
    lambda x, rng: x[None],
    lambda x, rng: x.reshape(-1),
    lambda x, rng: x.new_zeros(()),
    lambda x, rng: x.new_zeros(rng.choice(((0,), (1,), (2, 3), (0, 5), (5, 0), (1, 1, 1, 1)))),
    lambda x, rng: torch.cat([x, x]) if x.dim() else x,
    lambda x, rng: x.transpose(0, -1) if x.dim() else x,
    lambda x, rng: x.to_sparse() if x.dim() else x,
    cut,
    shifted,
    strided,
    expanded,
    valued,
    valued,
    valued,
    bytes_as,
)


def spoilt(value: Any, rng: random.Random) -> Any:
    """Return something else in the place of an argument, of a type the dispatcher takes."""
    if isinstance(value, Tensor):
        with contextlib.suppress(RuntimeError, NotImplementedError):
            return rng.choice(CHANGES)(value, rng)
        return value
    if isinstance(value, list):
        if not value or rng.random() < 0.2:
            return rng.choice(([], value[1:], [*value, *value]))
        at = rng.randrange(len(value))
        return [*value[:at], spoilt(value[at], rng), *value[at + 1 :]]
    if isinstance(value, torch.dtype):
        return rng.choice(DTYPES)
    if isinstance(value, bool) or value is None:
        return value
    return rng.choice(INTEGERS) if isinstance(value, int) else rng.choice(NUMBERS)


def cases(name: str, count: int, seed: int = 0) -> Iterator[list[Any]]:
    """Return ``count`` argument lists of op ``name``, the same for a seed."""
    rng = random.Random(f"{name} {seed}")
    torch.manual_seed(seed)
    for _ in range(count):
        arguments = list(rng.choice(SAMPLES[name]()))
        for at in rng.sample(range(len(arguments)), rng.choice((1, 1, 2))):
            arguments[at] = spoilt(arguments[at], rng)
        yield arguments


def copied(arguments: list[Any]) -> list[Any]:
    """Copy the tensor that an op writes; a freed one stays what it is."""

    def copy(x: Tensor) -> Tensor:
        plain = x.dtype == torch.int64 and x.dim() == 4 and x.layout == torch.strided
        whole = plain and x.untyped_storage().nbytes() >= x.numel() * 8
        return x.clone() if whole and x.device.type == "cpu" else x

    return tree_map_only(Tensor, copy, arguments)

"""Examples of a model's inputs, by which it is traced."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError, seen

Example = Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]


def inputs_of(example: Any) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Return arguments and keyword arguments of at least two samples: torch keeps a size of 1.

    Raises:
        InputError: no tensor, tuple of tensors, or dictionary of them.
    """
    named = dict(example) if isinstance(example, Mapping) else {}
    listed = () if isinstance(example, Mapping) else example
    listed = tuple(listed) if isinstance(listed, tuple | list) else (listed,)
    for value in (*listed, *named.values()):
        if not isinstance(value, Tensor) or value.dim() == 0 or len(value) == 0:
            raise InputError(
                "example: expected a batch as a tensor, a tuple of tensors or a dictionary of them,"
                f" got {seen(value)}"
            )
    return tuple(map(_twice, listed)), {name: _twice(value) for name, value in named.items()}


def _twice(x: Tensor) -> Tensor:
    x = x.detach().cpu()
    return torch.cat([x, x]) if len(x) == 1 else x


def open_shapes(args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> Any:
    """Return the dynamic shapes that leave each first dimension open."""
    first = {0: torch.export.Dim.DYNAMIC}
    return dict.fromkeys(kwargs, first) if kwargs else tuple(first for _ in args)

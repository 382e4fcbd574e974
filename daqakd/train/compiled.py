"""``--compile``: both models' passes by ``torch.compile``."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from .. import _ranks
from .._errors import InputError
from .config import TrainConfig

COMPILERS = ("torch._dynamo", "torch._inductor")


def compiled(model: nn.Module, config: TrainConfig) -> nn.Module:
    """Return what to call for a training pass; evaluation calls the model as it is.

    Raises:
        InputError: there are several ranks, whose gradients DDP reduces as a graph would not.
    """
    if not config.compile:
        return model
    if _ranks.count() > 1:
        raise InputError(
            f"compile: expected one process, got {_ranks.count()} ranks; drop --compile, or train"
            " on one device"
        )
    graph: Any = torch.compile(model, dynamic=False)
    return cast(nn.Module, graph)


@contextmanager
def told(config: TrainConfig) -> Iterator[None]:
    """Say in one sentence what stopped the compiler, which works when a pass first runs.

    Raises:
        InputError: it failed.
    """
    try:
        yield
    except Exception as error:
        if not config.compile or not type(error).__module__.startswith(COMPILERS):
            raise
        inner = getattr(error, "inner_exception", error)  # where a backend raised it
        first = next(filter(None, map(str.strip, str(inner).splitlines())), type(inner).__name__)
        raise InputError(
            f"compile: torch.compile stopped with {first!r}; train without --compile, or see to"
            " what it names"
        ) from error

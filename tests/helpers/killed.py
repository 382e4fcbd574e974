"""Training runs in this process that end where a kill would end them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from daqakd.train.loop import Loop


class Killed(Exception):
    """What ends the run."""


@contextmanager
def killed_at(number: int, method: str = "_step") -> Iterator[None]:
    """End the block's run before a step, or before another of the loop's methods runs so often."""
    original, seen = getattr(Loop, method), []

    def counted(loop: Loop, *arguments: object) -> None:
        seen.append(1)
        if len(seen) == number:
            raise Killed
        original(loop, *arguments)

    with patch.object(Loop, method, counted), pytest.raises(Killed):
        yield


def equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Return whether two states have the same bits."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)

"""Where images come from: files that are decoded when they are asked for, or pixels in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from .dataset import Images


class Source(Protocol):
    """One split of a data set, read as a whole or from first to last."""

    @property
    def labels(self) -> Tensor:
        """Labels ``int64 [N]``."""

    def shape(self) -> tuple[int, ...]:
        """Return the shape of an image, ``(3, S, S)``."""

    def images(self, start: int = 0, workers: int | None = None) -> Iterator[np.ndarray]:
        """Yield the images from ``start`` on, ``uint8 [3, S, S]`` each.

        ``workers`` threads decode; None for one per core.
        """

    def read(self) -> Images:
        """Return all images."""

    def identity(self, times: bool = False) -> str:
        """Return a hash that changes with the images.

        Of files it takes names, lengths and labels; with ``times`` also when each was changed.
        """


@dataclass(frozen=True)
class DatasetSource:
    """A data set before its images are read.

    ``mean`` and ``std`` per channel are the usual ones for it, of inputs in [0, 1]; ``flip`` says
    whether a mirrored image keeps its meaning.
    """

    name: str
    classes: list[str]
    train: Source
    test: Source
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = True

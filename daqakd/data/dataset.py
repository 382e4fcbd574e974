"""A data set: images as one uint8 tensor, labels, and a held-out split fixed by the seed."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._arguments import check_flag
from .._errors import InputError, seen
from ..augment import InputSpec
from ..augment.draws import check_seed, generator_seed


@dataclass(frozen=True)
class Images:
    """Pixels ``uint8 [N, 3, H, W]`` and labels ``int64 [N]``; a :class:`Source` of itself.

    Pixels of a prepared data set are its file, mapped read-only: only what is read costs memory.
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        """Return a line: number and shape, no pixels."""
        _, height, width = self.shape()
        return f"Images({len(self):,} of {height} x {width})"

    def digest(self) -> str:
        """Return the SHA-256 of the pixels' bytes in index order, without a copy."""
        return hashlib.sha256(self.pixels.contiguous().numpy().data).hexdigest()

    def shape(self) -> tuple[int, ...]:
        """Return the shape of an image."""
        return tuple(self.pixels.shape[1:])

    def images(self, start: int = 0, workers: int | None = None) -> Iterator[np.ndarray]:
        """Yield the images from ``start`` on."""
        yield from self.pixels[start:].numpy()

    def read(self) -> "Images":
        """Return itself."""
        return self

    def identity(self, times: bool = False) -> str:
        """Return a hash of pixels and labels."""
        return hashlib.sha256(f"{self.digest()} {self.labels.tolist()}".encode()).hexdigest()


@dataclass(frozen=True)
class Dataset:
    """Training and test images with what is needed to feed them to a model.

    ``inputs`` is how pixels become inputs. ``fit`` and ``heldout`` index ``train``: held-out images
    never train a model. ``flip`` says whether a mirrored image keeps its meaning.
    """

    name: str
    classes: tuple[str, ...]
    train: Images
    test: Images
    inputs: InputSpec
    fit: Tensor
    heldout: Tensor
    flip: bool = True

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.train.pixels.shape[-1]

    def spread(self, count: int) -> Tensor:
        """Return indices of up to ``count`` images to fit, int64, from everywhere in the set.

        The first ones of a folder are of one class.
        """
        count = min(count, len(self.fit))
        return self.fit[torch.arange(count) * len(self.fit) // max(count, 1)]

    def __repr__(self) -> str:
        """Return a line: images, classes and size, no pixels."""
        return (
            f"Dataset({self.name!r}, {len(self.train):,} training and {len(self.test):,} test"
            f" images of {self.size} x {self.size}, {self.num_classes} classes,"
            f" {len(self.heldout):,} held out, flip={self.flip}, {self.inputs})"
        )

    def with_inputs(self, **changes: Any) -> "Dataset":
        """Return the data set with other fields of :class:`daqakd.InputSpec`.

        ``mean`` and ``std`` stay as they are where None is given.
        """
        return replace(self, inputs=self.inputs.with_changes(**changes))


def class_ranks(labels: Tensor, order: Tensor) -> Tensor:
    """Return each image's rank within its class when images are met in ``order``: int64 [N]."""
    ranks = torch.empty_like(labels)
    for y in labels.unique():
        members = order[labels[order] == y]
        ranks[members] = torch.arange(len(members))
    return ranks


def split(labels: Tensor, holdout: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split indices per class into a fit part and a held-out part, fixed by the seed.

    Every class keeps at least one image to fit, and a class of two or more holds one out when
    ``holdout > 0``.
    """
    number = isinstance(holdout, int | float) and not isinstance(holdout, bool)
    if not number or not 0 <= holdout < 1:
        raise InputError(f"holdout: expected a share 0 <= h < 1, got {seen(holdout)}")
    generator = torch.Generator().manual_seed(generator_seed(check_seed(seed)))
    ranks = class_ranks(labels, torch.randperm(len(labels), generator=generator))
    counts = torch.bincount(labels)
    held = (counts * holdout).round().long()
    if holdout > 0:
        held = torch.where(counts > 1, held.clamp(min=1), 0)
    is_held = ranks < held[labels]
    return (~is_held).nonzero()[:, 0], is_held.nonzero()[:, 0]


def check_shapes(train: tuple[int, ...], test: tuple[int, ...]) -> None:
    """Require square images ``(3, S, S)`` of one size in both splits.

    Raises:
        InputError: other shapes.
    """
    advice = "pass a size (--size, size=) to resize them"
    for split, (_, height, width) in (("train", train), ("test", test)):
        if height != width:
            raise InputError(f"{split}: images are {width} x {height} pixels, not square; {advice}")
    if train != test:
        raise InputError(
            f"test: images are {test[1]} x {test[2]} pixels, but those of train are"
            f" {train[1]} x {train[2]}; {advice}"
        )


def make(
    name: str,
    classes: Sequence[str],
    train: Images,
    test: Images,
    *,
    inputs: InputSpec,
    holdout: float,
    seed: int,
    flip: bool = True,
) -> Dataset:
    """Build a data set and its split.

    Raises:
        InputError: fewer than two classes, images of different shapes, or an argument of another
            kind.
    """
    if not isinstance(name, str):
        raise InputError(f"name: expected a string, got {seen(name)}")
    check_flag("flip", flip)
    if len(classes) < 2:
        raise InputError(f"classes: expected at least two, got {list(classes)}; add another class")
    check_shapes(train.shape(), test.shape())
    fit, heldout = split(train.labels, holdout, seed)
    return Dataset(name, tuple(classes), train, test, inputs, fit, heldout, flip)

"""``data prepare``: decode a data set once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .. import _console
from ..data import load, prepare
from ._options import Data, OptionalInt


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``data prepare``.

    ``out`` then serves as DATA of every command, and may be larger than memory. Interrupted, the
    same command continues.
    """

    action: Annotated[Literal["prepare"], tyro.conf.Positional]
    """What to do: prepare."""
    data: Data
    """cifar10, cifar100, digits, tiny-imagenet, or a folder: train/<class>/*, and test/ or val/."""
    out: Path
    """Directory to write, new or unfinished; it then serves as DATA of every command and may be
    larger than memory. Interrupted, the same command continues."""
    size: OptionalInt = None
    """Resize images to this side; folders of mixed sizes need it."""
    workers: OptionalInt = None
    """Threads that decode; default: one per core."""


def run(options: Options) -> None:
    """Prepare a data set and say what became of it."""
    out = prepare(
        options.data, options.out, size=options.size, workers=options.workers, quiet=False
    )
    dataset = load(out, holdout=0)
    held = dataset.train.pixels.nbytes + dataset.test.pixels.nbytes
    _console.say(
        f"prepared: {out}, {len(dataset.train):,} training and {len(dataset.test):,} test images"
        f" of {dataset.size} x {dataset.size}, {dataset.num_classes} classes, {held:,} bytes"
    )

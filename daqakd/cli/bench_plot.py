"""``bench plot``: pictures of a file of ``bench``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .. import _console
from ..bench.book import read_book
from ..bench.plot import plot
from ._options import OptionalPath


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``bench plot``."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="BENCH.json")]
    """A bench.json."""
    out: OptionalPath = None
    """Directory of bars.png and roofline.png; default: the file's."""


def run(options: Options) -> None:
    """Draw."""
    book = read_book(options.file)
    for path in plot(book, options.out or options.file.parent):
        _console.say(f"wrote {path}")

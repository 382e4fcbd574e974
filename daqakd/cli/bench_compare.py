"""``bench compare``: two files of ``bench`` beside each other."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .. import _console
from ..bench.book import read_book
from ..bench.compare import check_out, compare_books, terminal_table, terminal_width, write
from ._options import OptionalPath


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``bench compare``."""

    a: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="A.json")]
    """The bench.json to compare with."""
    b: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="B.json")]
    """Another one, of the same ops, sizes and dtypes."""
    out: OptionalPath = None
    """A file to write as well: FILE.md or FILE.csv."""


def run(options: Options) -> None:
    """Print the table, and write it."""
    if options.out is not None:
        check_out(options.out)
    found = compare_books(read_book(options.a), read_book(options.b))
    for line in terminal_table(found, terminal_width()):
        _console.say(line)
    if options.out is not None:
        write(found, options.out)
        _console.say(f"wrote {options.out}")

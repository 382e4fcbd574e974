"""Progress of long work: a live bar on a terminal, plain lines in a pipe, silence elsewhere."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from . import _ranks
from ._errors import STDOUT, naming

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 30.0


def _width() -> int | None:
    """Return a width where COLUMNS says none that can be: some containers set it to 0."""
    return 80 if os.environ.get("COLUMNS", "1").strip() in ("", "0") else None


console = Console(highlight=False, soft_wrap=True, width=_width())


def say(text: str) -> None:
    """Print one line; of several ranks, the first does.

    Raises:
        OSError: naming the standard output.
    """
    if not _ranks.is_writer():
        return
    with naming(STDOUT):
        console.print(text, markup=False)


def track(items: Iterable[Item], title: str, total: int, done: int = 0) -> Iterator[Item]:
    """Yield ``items`` while showing how many of ``total`` are done."""
    show = _bar if sys.stdout is not None and sys.stdout.isatty() else _lines
    show = show if _ranks.is_writer() else quiet
    yield from show(items, title, total, done)


def _bar(items: Iterable[Item], title: str, total: int, done: int) -> Iterator[Item]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=total, completed=done)
        for item in items:
            yield item
            progress.advance(task)


def _lines(items: Iterable[Item], title: str, total: int, done: int) -> Iterator[Item]:
    last = time.monotonic()
    for done, item in enumerate(items, done + 1):  # noqa: B020
        yield item
        if time.monotonic() - last > SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            say(f"{title}: {done}/{total}")


def quiet(items: Iterable[Item], title: str, total: int, done: int = 0) -> Iterator[Item]:
    """Yield ``items``: the stand-in for :func:`track` where nobody watches."""
    yield from items

"""Workers take rows from one directory: whoever holds a row's directory runs it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import _console
from .._errors import InputError
from .._lock import Busy, working_in
from .plan import Row
from .table import is_finished

RUNS = "runs"  # below the directory of a sweep


@dataclass(frozen=True)
class Failure:
    """A row that could not be run, and why."""

    row: Row
    reason: str


def work(
    rows: Sequence[Row],
    out: Path,
    run: Callable[[Row, Path], None],
    after: Callable[[], None],
    finished: Callable[[Row], bool] | None = None,
) -> tuple[list[Failure], list[Row]]:
    """Run what no worker has run or is running; return what failed and what others still run.

    Rows that others hold are looked at again as long as there is something to do, since their
    workers may have been killed.

    Args:
        rows: of the sweep.
        out: its directory.
        run: runs a row in a directory; what is there of it continues.
        after: is called after every row.
        finished: whether a row needs no run; by default its run directory tells.
    """

    def is_done(row: Row) -> bool:
        return is_finished(out / RUNS / row.name) if finished is None else finished(row)

    failures: list[Failure] = []
    left = [row for row in rows if not is_done(row)]
    while True:
        busy = []
        for row in left:
            try:
                with working_in(out / RUNS / row.name, "out"):
                    failure = None
                    if not is_done(row):  # by now
                        failure = _run(row, out / RUNS / row.name, run)
            except Busy:
                busy.append(row)
                continue
            failures += [] if failure is None else [failure]
            after()
        if not busy or len(busy) == len(left):
            return failures, busy
        left = busy


def _run(row: Row, folder: Path, run: Callable[[Row, Path], None]) -> Failure | None:
    """Run a row; bad input is its own, and other rows go on."""
    _console.say(f"row {row.name}")
    try:
        run(row, folder)
    except InputError as error:
        _console.say(f"row {row.name} failed: {error}")
        return Failure(row, str(error))
    return None

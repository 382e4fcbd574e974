"""``sweep``: many runs in one directory, by any number of workers."""

from dataclasses import dataclass, fields, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import tyro

from .. import _console
from .._errors import InputError
from ..sweep import Failure, Plan, Row, finished_rows, read_plan, work, write_page, write_table
from ..sweep.plan import name_of
from ..sweep.table import alone
from ..sweep.work import RUNS
from ..train.store import read_model_file
from . import rank as rank_command
from . import run as run_command
from . import train as train_command
from ._from_file import options_of, read_values
from ._options import Device, OptionalInt, flat
from ._rows import MANY, RANKING, failed, rank_once, train_and_evaluate
from ._student import StudentOptions

COMMANDS: dict[str, Any] = {"run": run_command, "train": train_command}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``sweep``."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.toml")]
    """What to run: [options] that all rows share, a [grid] or a [[list]] of those that differ."""
    out: Path = Path("runs/sweep")
    """Directory of all rows, sweep.csv and sweep.html; the same command continues there, and takes
    rows beside others that run at the same time."""
    rank_first: bool = False
    """Rank the rows' strategies with their teacher first, so that the page compares."""
    device: Device = "auto"
    """Where to compute."""
    workers: OptionalInt = None
    """Processes that run registered transforms, for each row."""


@dataclass(frozen=True)
class Sweep:
    """A sweep with every row's options checked."""

    command: Options
    plan: Plan
    rows: dict[str, StudentOptions]  # by name

    @property
    def runs(self) -> Path:
        """The folder of the rows."""
        return self.command.out / RUNS

    def ranking(self, row: Row) -> Path:
        """Return the directory of the ranking that a row's strategies are compared by."""
        ranked = {k: v for k, v in row.varied.items() if k in RANKED}
        return self.command.out / RANKING / name_of(ranked, "all")


def _names(options: Any) -> set[str]:
    return set(flat(vars(options)))


# what a ranking depends on; its draws need not be those of the training
RANKED = _names(rank_command.Options(data="", teacher=Path())) - {"seed", "strategies"}


def run(options: Options) -> None:
    """Run the rows that are left, then write the table and the page."""
    plan = read_plan(read_values(options.file), options.file)
    sweep = Sweep(options, plan, {row.name: _checked(options, plan, row) for row in plan.rows})
    if options.rank_first:
        _rank(sweep)
    run_rows(sweep)


def run_rows(sweep: Sweep) -> None:
    """Run the rows that no worker has run, then write the table and the page.

    Raises:
        InputError: rows failed.
    """
    one, after = partial(_run_row, sweep), partial(_write_table, sweep)
    _conclude(sweep, *work(sweep.plan.rows, sweep.command.out, one, after))


def _checked(options: Options, plan: Plan, row: Row) -> StudentOptions:
    """Return a row's options; all that is wrong with any row is said before the first runs."""
    source = f"{options.file} ({row.name})"
    command = COMMANDS[plan.command]
    made: StudentOptions = options_of(command.Options, row.options, source)
    required = {f.name: getattr(made, f.name) for f in fields(made)}
    for name, value in required.items():
        if value is tyro.MISSING:
            raise InputError(f"{source}: {name}: has no value; add it to [options]")
    for name in ("out", "dry_run"):
        if name in row.options:
            raise InputError(f"{source}: {name}: is for the command itself; leave it out")
    teacher = required["teacher"]
    if options.device != "auto":
        made = replace(made, device=options.device)
    if options.workers is not None:
        made = replace(made, workers=options.workers)
    try:
        made.check(None if teacher is None else read_model_file(teacher))
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    if teacher is None and options.rank_first:
        raise InputError(f"{source}: teacher: needed by --rank-first; add one to [options]")
    return made


def _run_row(sweep: Sweep, row: Row, folder: Path) -> None:
    """Run a row as the command alone would, and evaluate its student."""
    made = replace(sweep.rows[row.name], out=folder)
    if isinstance(made, train_command.Options):
        train_and_evaluate(made)
    else:
        COMMANDS[sweep.plan.command].run(made)


def _rank(sweep: Sweep) -> None:
    """Rank the strategies of the rows, once for every teacher and data set."""
    groups: dict[Path, list[Row]] = {}
    for row in sweep.plan.rows:
        groups.setdefault(sweep.ranking(row), []).append(row)
    for folder, rows in groups.items():
        names = [sweep.rows[row.name].strategy for row in rows]
        strategies = dict.fromkeys(name for name in names if name != "auto")
        rank_once(sweep.rows[rows[0].name], folder, [*strategies])


def _write_table(sweep: Sweep) -> None:
    with alone(sweep.command.out):
        write_table(sweep.plan, finished_rows(sweep.plan, sweep.runs), sweep.command.out)


def _conclude(sweep: Sweep, failures: list[Failure], busy: list[Row]) -> None:
    """Write the page, and say what is done and what is not."""
    out = sweep.command.out
    with alone(out):
        done = finished_rows(sweep.plan, sweep.runs)
        write_table(sweep.plan, done, out)
        if find_spec("matplotlib") is None:
            _console.say("page: skipped, it needs matplotlib (pip install 'daqakd[report]')")
        elif write_page(sweep.plan, done, out, lambda row: _ranking_file(sweep, row)):
            _console.say(f"page: {out / 'sweep.html'}")
    _console.say(f"sweep: {len(done)} of {len(sweep.plan.rows)} rows are finished")
    if busy:
        _console.say(f"other workers run: {', '.join(row.name for row in busy[:MANY])}")
    if failures:
        raise failed("sweep", "rows", failures, len(sweep.plan.rows))


def _ranking_file(sweep: Sweep, row: Row) -> Path | None:
    path = sweep.ranking(row) / "ranking.json"
    return path if path.exists() else None

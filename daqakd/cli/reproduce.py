"""``reproduce``: a table of the papers as a sweep of recipes, beside the published figures."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from .. import _console
from .._files import read_json, write_text
from .._statistics import deviation, mean
from ..recipes import BEST, Table, read, read_table
from ..sweep import Plan, Row, finished_rows
from ..train.store import ModelFile, read_model_file
from . import rank as rank_command
from . import run as run_command
from . import train as train_command
from ._dry_run import Stage, duration, student, teaching
from ._from_file import options_of
from ._job import begin
from ._options import Device, OptionalInt, OptionalName, OptionalPath
from ._recipe import check_scale, options_for
from ._student import StudentOptions, teach_into
from .sweep import Options as SweepOptions
from .sweep import Sweep, run_rows

TEACHERS, RANKINGS = "teachers", "rankings"  # below the directory


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``reproduce``; those that are given go over the recipes'."""

    table: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TABLE")]
    """kd-comparison, cifar100, tiny-resnet18 or tiny-mobilenetv2."""
    out: Path = Path("runs/reproduced")
    """Directory of teachers, rankings and rows; the same command continues there."""
    scale: float = 1.0
    """Fraction of all epochs to train, the schedules with them, one epoch at least."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the students; a teacher is shared by all."""
    data: OptionalName = None
    """Another data set than the recipes'."""
    teacher: OptionalPath = None
    """A teacher that there is; by default each recipe's is trained first."""
    model: OptionalName = None
    """The teacher's model; by default the recipes', or what its file says."""
    student_model: OptionalName = None
    """The students' model; by default the teacher's."""
    init: OptionalName = None
    """What students start from: teacher, random, or a file."""
    images: OptionalInt = None
    """Rank on this many images."""
    device: Device = "auto"
    """Where to compute."""
    dry_run: bool = False
    """Say how long it would take, and no more."""

    @property
    def changes(self) -> dict[str, Any]:
        """The options that go over those of every recipe."""
        names = ("scale", "data", "student_model", "init", "images", "device")
        given = {name: getattr(self, name) for name in names}
        model = {"model": self.model} if self.model or self.teacher else {}
        return {name: value for name, value in given.items() if value is not None} | model


@dataclass(frozen=True)
class Cell:
    """The rows of a recipe with one strategy, as the table names it, over seeds."""

    recipe: str
    strategy: str
    options: run_command.Options

    @property
    def label(self) -> str:
        """The row's heading."""
        return f"{self.recipe}, {self.strategy}"

    @property
    def is_ranked(self) -> bool:
        """Whether a ranking chooses the strategy."""
        return self.strategy == BEST


def run(options: Options) -> None:
    """Say how long it takes; then teach, rank, train what is left, and write the table."""
    check_scale(options.scale)
    table = read_table(options.table)
    cells = [*_cells(options, table)]
    for cell in cells:
        cell.options.check(_given(options))
    _foretell(options, cells)
    if options.dry_run:
        return
    sweep = _sweep(options, cells)
    try:
        run_rows(sweep)
    finally:
        _conclude(options, table, cells, sweep)


def _given(options: Options) -> ModelFile | None:
    return None if options.teacher is None else read_model_file(options.teacher)


def _cells(options: Options, table: Table) -> Iterator[Cell]:
    for name in table.recipes:
        values = options_for("run", name) | options.changes
        own = values.get("strategy", "auto")
        for strategy in table.strategies or (BEST if own == "auto" else own,):
            kept = {"strategy": "auto" if strategy == BEST else strategy}
            yield Cell(name, strategy, options_of(run_command.Options, values | kept, name))


def _teacher_of(cell: Cell) -> str:
    """Return a name that recipes with one and the same teacher share."""
    own = cell.options
    return f"{own.model or 'given'}-{own.teaching.teacher_strategy}"


def _foretell(options: Options, cells: list[Cell]) -> None:
    """Say how long all of it takes on this machine, measured on a few steps of each recipe."""
    seconds = 0.0
    known: set[str] = set()
    for cell in cells:
        stages = _stages(options, cell)
        for stage in stages:
            role = stage.text.partition(":")[0]
            key = cell.label if role == "student" else f"{role} {_teacher_of(cell)}"
            if key not in known:
                seconds += stage.seconds * (len(options.seeds) if role == "student" else 1)
            known.add(key)
        _console.say(f"{cell.label}: {stages[-1].text}, {len(options.seeds)} seeds")
    _console.say(f"{options.table}: about {duration(seconds)} on this machine, from its start")


def _stages(options: Options, cell: Cell) -> list[Stage]:
    made, given = replace(cell.options, dry_run=True), _given(options)
    with begin(made, "run", given, made.holdout) as (dataset, model):
        first = []
        if given is None:
            strategy = made.teaching.teacher_strategy
            first = [teaching(made, dataset, model, made.teacher_config, strategy)]
        return [*first, *student(made, dataset, model, given)]


def _teacher(options: Options, cell: Cell) -> Path:
    """Return the teacher of a cell, trained unless it is there."""
    if options.teacher is not None:
        return options.teacher
    made = replace(cell.options, out=options.out / TEACHERS / _teacher_of(cell))
    path = made.out / "teacher.safetensors"
    if not path.exists():
        with begin(made, "run", None, made.holdout) as (dataset, _):
            teach_into(made, dataset, made.teacher_config, made.teaching.teacher_strategy)
    return path


def _winner(options: Options, cell: Cell, teacher: Path) -> str:
    """Return the strategy that a ranking by the teacher puts first."""
    folder = options.out / RANKINGS / _teacher_of(cell)
    if not (folder / "ranking.json").exists():
        names = {f.name for f in fields(rank_command.Options)} - {"out", "teacher", "dry_run"}
        values = {n: getattr(cell.options, n) for n in names if hasattr(cell.options, n)}
        rank_command.run(rank_command.Options(**values, out=folder, teacher=teacher))
    best: str = read_json(folder / "ranking.json")["best"]
    return best


def _sweep(options: Options, cells: list[Cell]) -> Sweep:
    """Teach and rank, then return the students' runs."""
    rows: list[Row] = []
    made: dict[str, StudentOptions] = {}
    for cell in cells:
        teacher = _teacher(options, cell)
        strategy = _winner(options, cell, teacher) if cell.is_ranked else cell.strategy
        values = options_for("train", cell.recipe) | options.changes
        values |= {"teacher": str(teacher), "strategy": strategy}
        for seed in options.seeds:
            varied = {"recipe": cell.recipe, "strategy": cell.strategy, "seed": seed}
            row = Row(f"{cell.recipe},{cell.strategy},{seed}", varied, values | {"seed": seed})
            own = options_of(train_command.Options, row.options, row.name)
            own.check(read_model_file(teacher))
            rows.append(row)
            made[row.name] = own
    command = SweepOptions(file=Path(options.table), out=options.out, device=options.device)
    return Sweep(command, Plan("train", rows), made)


def _conclude(options: Options, table: Table, cells: list[Cell], sweep: Sweep) -> None:
    """Write and show the table: means and deviations over seeds beside what was published."""
    text = _table(options, table, cells, sweep)
    write_text(options.out / "table.md", text)
    _console.say(text)


def _table(options: Options, table: Table, cells: list[Cell], sweep: Sweep) -> str:
    done: dict[str, list[float]] = {}
    trained: dict[str, str] = {}
    for one in finished_rows(sweep.plan, sweep.runs):
        label = f"{one.row.varied['recipe']}, {one.row.varied['strategy']}"
        done.setdefault(label, []).append(100 * one.student_accuracy)
        trained[label] = one.strategy
    lines = [f"# {table.title}", "", _how(options, cells), ""]
    lines += ["| recipe | strategy | top-1, % | seeds | published |", "|---|---|---|---|---|"]
    for cell in cells:
        found = done.get(cell.label, [])
        strategy = trained.get(cell.label, cell.strategy)
        shown = f"{strategy} (best-ranked)" if cell.is_ranked and found else strategy
        figure = read(cell.recipe).figure if _is_published(table, cell) else "-"
        count = f"{len(found)} of {len(options.seeds)}"
        lines.append(f"| {cell.recipe} | {shown} | {_accuracy(found)} | {count} | {figure} |")
    return "\n".join(lines) + "\n"


def _is_published(table: Table, cell: Cell) -> bool:
    return not table.strategies or cell.is_ranked


def _how(options: Options, cells: list[Cell]) -> str:
    epochs = sorted({cell.options.train_config.epochs for cell in cells})
    told = f"{' or '.join(map(str, epochs))} epochs"
    data = sorted({cell.options.data for cell in cells})
    part = "" if options.scale == 1 else f", --scale {options.scale:g} of the published schedule"
    return f"{' and '.join(data)}; students trained for {told}{part}; mean ± deviation over seeds."


def _accuracy(found: list[float]) -> str:
    if not found:
        return "missing"
    spread = deviation(found)
    return f"{mean(found):.2f}" + ("" if spread is None else f" ± {spread:.2f}")

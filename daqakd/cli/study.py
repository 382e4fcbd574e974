"""``study``: does the ranking predict which augmentation wins? Rank, train every arm, compare."""

from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from .. import _console
from .._errors import InputError
from .._files import read_json
from ..augment.draws import check_seed
from ..data import Dataset
from ..ranking import RankConfig
from ..study import Outcome, Outcomes, write_results
from ..study.evidence import evidence_of
from ..study.page import PAGE, Setting
from ..sweep import Failure, Row, work
from ..sweep.plan import name_of
from ..sweep.table import alone
from ..sweep.work import RUNS
from ..train.environment import environment
from ..train.metrics import read_metrics
from ..train.store import ModelFile, read_model_file
from . import train as train_command
from ._dry_run import Stage, ranking, show, student
from ._job import load_data
from ._rows import (
    MANY,
    RANKING,
    failed,
    identity_of,
    made_here,
    origin_of,
    rank_once,
    train_and_evaluate,
)


@dataclass(frozen=True, kw_only=True)
class Options(train_command.Options):
    """Options of ``study``."""

    out: Path = Path("runs/study")
    """Directory of the study; the same command continues there, beside others that run at the same
    time. Its rows/ are all that another machine needs to continue."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the students of every strategy."""
    strategy: tyro.conf.Suppress[str] = "auto"

    @property
    def rows(self) -> list[Row]:
        """Every strategy with every seed, seed by seed."""
        pairs = [(seed, name) for seed in self.seeds for name in self.ranking.names]
        varied = [{"seed": seed, "strategy": name} for seed, name in pairs]
        return [Row(name_of(one), one, {}) for one in varied]

    def of(self, row: Row) -> train_command.Options:
        """Return the options that ``train`` gets for a row."""
        values = {f.name: getattr(self, f.name) for f in fields(train_command.Options)}
        values |= {"out": self.out / RUNS / row.name, "ranking": RankConfig(), **row.varied}
        return train_command.Options(**values)

    def check(self, file: ModelFile | None) -> None:
        """Check seeds and strategies too."""
        super().check(file)
        if len(set(self.seeds)) < len(self.seeds) or not self.seeds:
            raise InputError(f"seeds: expected different integers, got {list(self.seeds)}")
        for seed in self.seeds:
            check_seed(seed)
        if len(self.ranking.names) < 2:
            raise InputError(f"strategies: expected two or more, got {self.ranking.names}")


@dataclass(frozen=True)
class Study:
    """A study whose options were checked."""

    options: Options
    outcomes: Outcomes
    title: str

    @property
    def ranking(self) -> Path:
        """The directory of the ranking, another one for other options of it."""
        config, usual = vars(self.options.rank_config), vars(RankConfig())
        free = ("strategies", "workers", "budget")  # as many seconds may be added
        asked = {k: v for k, v in config.items() if v != usual[k] and k not in free}
        names = ",".join(self.options.ranking.names)
        return self.options.out / RANKING / name_of({"strategies": names, **asked})


def run(options: Options) -> None:
    """Rank once, train what no worker has trained, then write what the rows tell."""
    file = read_model_file(options.teacher)
    options.check(file)
    dataset = load_data(options, file, 0)
    options.check_data(dataset, file)
    teacher = options.new_model(file, dataset)
    if options.dry_run:
        return show(options, dataset, _stages(options, dataset, teacher, file))
    origin = origin_of(options.of(options.rows[0]), identity_of(dataset, teacher))
    study = Study(options, Outcomes(options.out, *origin), _title(options, dataset, file))
    del dataset, teacher  # rows load them again
    rank_once(options, study.ranking, options.ranking.names)
    rows, one, after = options.rows, partial(_run_row, study), partial(_write, study)
    _conclude(study, *work(rows, options.out, one, after, study.outcomes.has))


def _stages(options: Options, dataset: Dataset, teacher: Any, file: ModelFile) -> list[Stage]:
    first, slowest = ranking(options, dataset, teacher)
    (one,) = student(replace(options, strategy=slowest), dataset, teacher, file)
    count = len(options.rows)
    return [first, Stage(f"{count} students, each a {one.text}", count * one.seconds)]


def _title(options: Options, dataset: Dataset, file: ModelFile) -> str:
    student = options.student_model or options.model_name(file)
    schedule = f"{options.train_config.epochs} epochs"
    return (
        f"{dataset.name}: {student} {options.quantization.short}, {schedule} on"
        f" {len(dataset.train):,} images"
    )


def _run_row(study: Study, row: Row, folder: Path) -> None:
    """Train and evaluate a student, and keep its row."""
    train_and_evaluate(study.options.of(row))
    trained = tuple(float(one["accuracy"]) for one in read_metrics(folder / "metrics.csv"))
    told = read_json(folder / "eval.json")["student_accuracy"]
    outcome = Outcome(row.varied["strategy"], row.varied["seed"], told, trained)
    study.outcomes.write(outcome, row, made_here())


def _finished(study: Study) -> list[Outcome]:
    return [study.outcomes.read(row) for row in study.options.rows if study.outcomes.has(row)]


def _write(study: Study) -> None:
    """Write the results of all finished rows."""
    with alone(study.options.out):
        done, rows = _finished(study), study.options.rows
        if done:
            found = evidence_of(read_json(study.ranking / "ranking.json"), done)
            setting = Setting(study.title, environment()["command"], len(rows))
            write_results(found, done, setting, study.options.out)


def _conclude(study: Study, failures: list[Failure], busy: list[Row]) -> None:
    _write(study)
    done, rows = _finished(study), study.options.rows
    _console.say(f"study: {len(done)} of {len(rows)} students are finished")
    if done:
        _console.say(f"page: {study.options.out / PAGE}")
    if busy:
        _console.say(f"other workers run: {', '.join(row.name for row in busy[:MANY])}")
    if failures:
        raise failed("study", "students", failures, len(rows))

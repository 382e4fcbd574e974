"""``select``: race the ranking's shortlist by short trainings, within a budget."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from .. import _console
from .._config import check_above, check_least
from .._errors import InputError
from .._files import read_json
from ..data import Dataset
from ..ranking import RankConfig
from ..select import Race, heats
from ..select.record import FILE, Selection, read_selection, table
from ..study import Outcome, Outcomes
from ..sweep import Row, work
from ..sweep.plan import name_of
from ..sweep.table import alone
from ..sweep.work import RUNS
from ..train import TrainConfig
from ..train.metrics import read_metrics
from ..train.options_file import check_options
from ..train.schedule import scaled
from ..train.store import ModelFile, read_model_file
from . import train as train_command
from ._command_line import command_line
from ._dry_run import show
from ._job import load_data, options_to_keep
from ._options import OptionalInt, UntimedRankGroup, optional
from ._rows import RANKING, failed, identity_of, made_here, origin_of, rank_once, rank_options
from ._selecting import check_plan, foretold, planned

WAIT = 1.0  # seconds between two looks at what others train


@dataclass(frozen=True, kw_only=True)
class Options(train_command.Options):
    """Options of ``select``; --epochs is the final training's length, and no trial is longer."""

    out: Path = Path("runs/select")
    """Directory of ranking, trials and select.json; the same command continues there, beside others
    that run at the same time. Another budget makes another plan, and takes what trials there are.
    """
    total_epochs: OptionalInt = None
    """Epochs of all trials together, none longer than --epochs, the final training; or --budget."""
    budget: Annotated[float | None, optional("SECONDS")] = None
    """Seconds for the ranking and all trials: as many epochs as a measurement of a few steps says.
    """
    shortlist: int = 4
    """Strategies to try, the ranking's best; near ties of the last come on top, up to twice as many
    in all."""
    also: tuple[str, ...] = ("minimal", "trivialaugment")
    """Strategies to try wherever they are ranked; none: --also alone."""
    least_epochs: int = 1
    """Epochs of the shortest trial."""
    strategy: tyro.conf.Suppress[str] = "auto"
    ranking: UntimedRankGroup = UntimedRankGroup()

    def with_others(self) -> "Options":
        """Return the options with ``also`` among the strategies to rank."""
        names = tuple(dict.fromkeys([*self.ranking.names, *self.also]))
        return replace(self, ranking=replace(self.ranking, strategies=names))

    @property
    def request(self) -> dict[str, Any]:
        """What a plan follows from, beside the ranking."""
        own = ("total_epochs", "budget", "shortlist", "also", "least_epochs")
        asked = {name: getattr(self, name) for name in own}
        return {**asked, "epochs": self.train_config.epochs, "strategies": self.ranking.names}

    def of(self, strategy: str, epochs: int | None = None) -> train_command.Options:
        """Return what ``train`` gets for a trial of so many epochs; None for the final training."""
        values = {f.name: getattr(self, f.name) for f in fields(train_command.Options)}
        values |= {"strategy": strategy, "ranking": RankConfig()}
        if epochs is not None:
            values |= {"training": self._shortened(epochs), "scale": 1.0}
            values["out"] = self.out / RUNS / self.row(strategy, epochs).name
        return train_command.Options(**values)

    def _shortened(self, epochs: int) -> TrainConfig:
        whole = self.train_config
        short = scaled(whole, epochs / whole.epochs)
        if self.quantization.delta == "hessian":
            return short
        return replace(short, delta_every=whole.delta_every)  # trials fit other --epochs too

    def row(self, strategy: str, epochs: int) -> Row:
        """Return the row of a trial."""
        varied = {"epochs": epochs, "seed": self.seed, "strategy": strategy}
        return Row(name_of(varied), varied, {})

    def check(self, file: ModelFile | None) -> None:
        """Check what a selection needs too."""
        super().check(file)
        check_least(self, 1, "total_epochs", "shortlist", "least_epochs")
        check_above(self, 0, "budget")
        if (self.total_epochs is None) == (self.budget is None):
            raise InputError(
                "total_epochs: needed, or --budget SECONDS instead of it, and not both: that is"
                " what all trials may take together"
            )
        if not self.holdout > 0:
            raise InputError(
                f"holdout: expected more than 0, got {self.holdout}: trials are compared on"
                " held-out images, since the test images must not choose"
            )
        if len(self.ranking.names) < 2:
            raise InputError(f"strategies: expected two or more, got {self.ranking.names}")
        check_plan(self)

    def check_data(self, dataset: Dataset, file: ModelFile | None) -> None:
        """Check that there are images to compare on."""
        super().check_data(dataset, file)
        if not len(dataset.heldout):
            raise InputError(
                f"holdout: {self.holdout} of {len(dataset.train)} images are none; raise it"
            )


@dataclass(frozen=True)
class Trials:
    """The trials of a selection whose options were checked."""

    options: Options
    identity: Mapping[str, str]

    def outcomes(self, epochs: int) -> Outcomes:
        """Return the finished trials of so many epochs."""
        alike = self.options.of(self.options.ranking.names[0], epochs)
        return Outcomes(self.options.out, *origin_of(alike, self.identity), "selection")

    def outcome(self, name: str, epochs: int) -> Outcome:
        """Return what came of a finished trial."""
        return self.outcomes(epochs).read(self.options.row(name, epochs))

    def train_all(self, names: Sequence[str], epochs: int) -> None:
        """Train what no worker has trained, and wait for what others train."""
        rows, outcomes = [self.options.row(name, epochs) for name in names], self.outcomes(epochs)
        one = partial(self._train, outcomes)
        while True:
            failures, busy = work(rows, self.options.out, one, lambda: None, outcomes.has)
            if failures:
                raise failed("select", "trials", failures, len(rows))
            if not busy:
                return
            time.sleep(WAIT)

    def _train(self, outcomes: Outcomes, row: Row, folder: Path) -> None:
        begin, (epochs, seed, name) = time.monotonic(), row.varied.values()
        train_command.run(self.options.of(name, epochs))
        told = read_metrics(folder / "metrics.csv")
        trained = tuple(float(one["accuracy"]) for one in told)
        heldout, seconds = float(told[-1]["heldout_accuracy"]), time.monotonic() - begin
        outcomes.write(Outcome(name, seed, heldout, trained, seconds), row, made_here())
        _console.say(f"{row.name}: {heldout:.2%} of held-out images")

    def seconds(self, race: Race) -> float:
        """Return the seconds of a race's trials."""
        return sum(self.outcome(*one).seconds or 0.0 for one in race.trials)


def run(options: Options) -> None:
    """Rank once, plan once, train what is left, and say with what to train."""
    file, options = read_model_file(options.teacher), options.with_others()
    options.check(file)
    dataset = load_data(options, file, options.holdout)
    options.check_data(dataset, file)
    teacher = options.new_model(file, dataset)
    if options.dry_run:
        return show(options, dataset, foretold(options, dataset, teacher, file))
    trials = Trials(options, identity_of(dataset, teacher))
    ranking = _ranked(options)
    with alone(options.out):  # workers follow one plan
        selection = read_selection(options.out / FILE)
        if selection is None or not selection.is_of(options.request):
            selection = planned(options, ranking, dataset, teacher, file)
            selection.write(options.out / FILE, Race([*selection.shortlist], []), 0.0)
    del dataset, teacher  # trials load them again
    _console.say(selection.text)
    _conclude(options, _raced(trials, selection))


def _ranked(options: Options) -> dict[str, Any]:
    """Return the ranking of all strategies, made unless it is there."""
    names = options.ranking.names
    folder = options.out / RANKING / name_of({"strategies": ",".join(names)})
    asked = options_to_keep(rank_options(options, folder, tuple(names)))
    try:
        check_options(folder / "config.toml", "rank", *asked)
    except InputError as error:
        raise InputError(f"out: {error}") from error
    rank_once(options, folder, names)
    return read_json(folder / "ranking.json")


def _raced(trials: Trials, selection: Selection) -> Race:
    """Race the shortlist; what is known after every rung is written."""
    names = [*selection.shortlist]

    def accuracy(name: str, epochs: int) -> float:
        return trials.outcome(name, epochs).accuracy

    race = Race(names, [])
    for result in heats(names, selection.rungs, accuracy, trials.train_all):
        race = Race(names, [*race.results, result])
        with alone(trials.options.out):
            selection.write(trials.options.out / FILE, race, trials.seconds(race))
    return race


def _conclude(options: Options, race: Race) -> None:
    _console.say(table(race))
    _console.say(f"select: {race.winner} after {race.epochs} epochs; {options.out / FILE}")
    _console.say(f"train with it: {command_line('train', options.of(race.winner))}")

"""The plan of ``select``: how many epochs its trials get, from epochs or from seconds."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from .._errors import InputError
from ..data import Dataset
from ..select import Rung, fewest, plan, shortlist
from ..select.plan import describe, per_round, spent
from ..select.record import Selection
from ..train.schedule import scaled
from ..train.store import ModelFile
from ._dry_run import Stage, ranking, student

if TYPE_CHECKING:
    from .select import Options

MEASURED = 2.0  # seconds of steps at least: a budget hangs on them


def counts(options: "Options") -> tuple[int, int]:
    """Return the least and the largest number of strategies that may be tried."""
    every, others = len(options.ranking.names), len({*options.also})
    surely = options.shortlist if options.ranking.pac_limit is None else 1  # others may be beyond
    return min(max(surely, others), every), min(2 * options.shortlist + others, every)


def check_plan(options: "Options") -> None:
    """Raise InputError where no shortlist could be raced, or the shortest trial not be trained."""
    whole, least = options.train_config, options.least_epochs
    count = counts(options)[0]
    total = fewest(count, least) if options.total_epochs is None else options.total_epochs
    plan(count, total, least, whole.epochs)
    try:
        scaled(whole, least / whole.epochs).check()
    except InputError as error:
        raise InputError(
            f"least_epochs: no trial of {least} can be trained ({error}); raise it"
        ) from error


def planned(
    options: "Options",
    ranking: Mapping[str, Any],
    dataset: Dataset,
    teacher: nn.Module,
    file: ModelFile | None,
) -> Selection:
    """Return the plan for what a ``ranking.json`` puts first.

    Seconds become epochs of the strategy that took the ranking longest.

    Raises:
        InputError: the budget is too small for as many strategies.
    """
    listed = shortlist(ranking, options.shortlist, options.also)
    one = None
    if options.budget is not None:
        rows = [row for row in ranking["strategies"] if row["name"] in listed]
        slowest = max(rows, key=lambda row: row["seconds"] / row["images"])["name"]
        one = _epoch_seconds(options, slowest, dataset, teacher, file)
    total = _total(options, ranking["seconds"], one, len(listed))
    return Selection(options.request, listed, _rungs(options, len(listed), total), total, one)


def _rungs(options: "Options", count: int, total: int) -> list[Rung]:
    return plan(count, total, options.least_epochs, options.train_config.epochs)


def _epoch_seconds(
    options: "Options", strategy: str, dataset: Dataset, teacher: nn.Module, file: ModelFile | None
) -> float:
    (stage,) = student(replace(options, strategy=strategy), dataset, teacher, file, MEASURED)
    return stage.seconds / options.train_config.epochs


def _total(options: "Options", ranking: float, one: float | None, count: int) -> int:
    """Return the epochs to spend: those asked for, or what the seconds after a ranking buy."""
    if options.total_epochs is not None:
        return options.total_epochs
    assert one is not None
    assert options.budget is not None
    left, least = options.budget - ranking, fewest(count, options.least_epochs)
    if left < least * one:
        raise InputError(
            f"budget: {count} strategies race in {least} epochs at least, of {one:.3g} seconds"
            f" here, after {ranking:.3g} seconds of ranking; expected"
            f" {ranking + least * one:.3g} seconds or more, got {options.budget:g}; raise it, or"
            " lower --shortlist or --least-epochs"
        )
    # with more, no trial would be longer
    most = count * len(per_round(count)) * options.train_config.epochs
    return most if left >= most * one else int(left / one)


def foretold(
    options: "Options", dataset: Dataset, teacher: nn.Module, file: ModelFile | None
) -> list[Stage]:
    """Return what there is to do, with the rungs of the shortest list and of the longest."""
    first, slowest = ranking(options, dataset, teacher)
    one = _epoch_seconds(options, slowest, dataset, teacher, file)
    fewer, more = counts(options)
    rungs = _rungs(options, fewer, _total(options, first.seconds, one, fewer))
    text = f"trials: {describe(rungs)}"
    if more > fewer:
        text += f"; with near ties and others up to {_longest(options, first.seconds, one, more)}"
    return [first, Stage(text, spent(rungs) * one)]


def _longest(options: "Options", ranking: float, one: float, count: int) -> str:
    try:
        return describe(_rungs(options, count, _total(options, ranking, one, count)))
    except InputError:
        least = fewest(count, options.least_epochs)
        return f"{count} strategies, for which {least} epochs are needed"

"""Rounds: all strategies see the same images side by side; a round's end may drop some."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .. import _console, _ranks
from .._errors import InputError
from .accumulator import Accumulator
from .checkpoint import Checkpoint
from .job import Job
from .result import StrategyResult

SAVE_SECONDS = 30.0
Decide = Callable[[int, Sequence[StrategyResult]], list[str]]


def drop_none(number: int, results: Sequence[StrategyResult]) -> list[str]:
    """Keep every strategy in every round."""
    return []


def _result(accumulator: Accumulator) -> StrategyResult:
    """Return a strategy's result; errors say which strategy's."""
    try:
        return accumulator.result()
    except InputError as error:
        raise InputError(f"strategy {accumulator.name!r}: {error}") from error


@dataclass
class Clock:
    """Seconds spent, those before a kill included, against a budget."""

    budget: float | None = None
    begin: float = field(default_factory=time.monotonic)

    def spent(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self.begin

    def over(self) -> bool:
        """Whether the budget is spent."""
        return self.budget is not None and self.spent() >= self.budget


@dataclass(frozen=True)
class Outcome:
    """What the rounds left."""

    results: dict[str, StrategyResult]  # over all images that each strategy saw
    live: list[str]  # never dropped: all of them saw the same images
    dropped: list[list[str]]  # by round
    out_of_time: bool


@dataclass(frozen=True)
class Rounds:
    """The loop over rounds, steps and, innermost, strategies."""

    job: Job
    checkpoint: Checkpoint
    clock: Clock
    decide: Decide = drop_none
    quiet: bool = True

    def run(self, names: Sequence[str]) -> Outcome:
        """Bring the strategies through the rounds until one is left or the time is over."""
        running = {name: Accumulator(self.job, name) for name in names}
        dropped = self._restore(list(running.values()))
        results: dict[str, StrategyResult] = {}
        in_time = True
        for number, stop in enumerate(self.job.round_steps):
            in_time = self._advance(list(running.values()), stop)
            here = {name: _result(accumulator) for name, accumulator in running.items()}
            if number >= len(dropped):
                dropped.append(self.decide(number, list(here.values())))
                # a larger budget continues the round that this one cuts short
                finished = dropped if in_time else dropped[:-1]
                self.checkpoint.save_rounds(finished, self.clock.spent())
            for name in dropped[number]:
                results[name] = here[name]
                del running[name]
            if not in_time or len(running) == 1:
                break
        live = {name: here[name] for name in running}
        return Outcome({**results, **live}, list(live), dropped, not in_time)

    def _restore(self, accumulators: Sequence[Accumulator]) -> list[list[str]]:
        """Load what was saved, set the clock, and return what each finished round dropped."""
        for accumulator in accumulators:
            self.checkpoint.load(accumulator)
        dropped, spent = self.checkpoint.rounds()
        _ranks.wait()
        self.clock.begin -= max(spent, sum(accumulator.seconds for accumulator in accumulators))
        return dropped

    def _advance(self, accumulators: Sequence[Accumulator], stop: int) -> bool:
        """Advance all to step ``stop``; return False if the time was over before it."""
        behind = [accumulator for accumulator in accumulators if accumulator.done < stop]
        if not behind:
            return True
        start = min(accumulator.done for accumulator in behind)
        batches = {accumulator.name: accumulator.batches(stop) for accumulator in behind}
        saved = time.monotonic()
        title = f"rank {', '.join(batches)}" if len(batches) <= 2 else f"rank {len(batches)}"
        show = _console.quiet if self.quiet else _console.track
        for step in show(range(start, stop), title, stop, start):
            if self._out_of_time(accumulators, step):
                self._save(behind)
                return False
            for accumulator in behind:
                if accumulator.done == step:
                    begin = time.monotonic()
                    accumulator.add(next(batches[accumulator.name]))
                    accumulator.seconds += time.monotonic() - begin
            if time.monotonic() - saved > SAVE_SECONDS:
                self._save(behind)
                saved = time.monotonic()
        self._save(behind)
        return True

    def _out_of_time(self, accumulators: Sequence[Accumulator], step: int) -> bool:
        """Whether to stop before ``step``: never below the first round, nor between strategies."""
        level = all(accumulator.done == step for accumulator in accumulators)
        may_stop = level and step >= self.job.round_steps[0] and self.clock.budget is not None
        return may_stop and _ranks.any_of(self.clock.over())[0]

    def _save(self, accumulators: Sequence[Accumulator]) -> None:
        for accumulator in accumulators:
            self.checkpoint.save(accumulator)

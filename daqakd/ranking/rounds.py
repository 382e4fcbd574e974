"""Rounds: all strategies see the same images side by side; a round's end may drop some."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .. import _console
from .accumulator import Parts, Tally
from .job import Job
from .result import StrategyResult

SAVE_SECONDS = 30.0
Decide = Callable[[int, Sequence[StrategyResult]], list[str]]


def drop_none(number: int, results: Sequence[StrategyResult]) -> list[str]:
    """Keep every strategy in every round."""
    return []


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
    parts: Parts
    clock: Clock
    decide: Decide = drop_none
    quiet: bool = True

    def run(self, names: Sequence[str]) -> Outcome:
        """Bring the strategies through the rounds until one is left or the time is over."""
        tallies = {name: Tally(self.job, name) for name in names}
        for tally in tallies.values():
            self.parts.load(tally)
        dropped, spent = self.parts.rounds()
        self.clock.begin -= max(spent, sum(tally.seconds for tally in tallies.values()))
        results: dict[str, StrategyResult] = {}
        in_time = True
        for number, stop in enumerate(self.job.ends):
            in_time = self._advance(list(tallies.values()), stop)
            here = {name: tally.result() for name, tally in tallies.items()}
            if number >= len(dropped):
                dropped.append(self.decide(number, list(here.values())))
                # a larger budget continues the round that this one cuts short
                self.parts.note(dropped if in_time else dropped[:-1], self.clock.spent())
            for name in dropped[number]:
                results[name] = here[name]
                del tallies[name]
            if not in_time or len(tallies) == 1:
                break
        live = {name: here[name] for name in tallies}
        return Outcome({**results, **live}, list(live), dropped, not in_time)

    def _advance(self, tallies: Sequence[Tally], stop: int) -> bool:
        """Bring tallies to step ``stop``; False if the time was over before, at a common step."""
        behind = [tally for tally in tallies if tally.done < stop]
        if not behind:
            return True
        start = min(tally.done for tally in behind)
        batches = {tally.name: tally.batches(stop) for tally in behind}
        saved = time.monotonic()
        title = f"rank {', '.join(batches)}" if len(batches) <= 2 else f"rank {len(batches)}"
        show = _console.quiet if self.quiet else _console.track
        for step in show(range(start, stop), title, stop, start):
            if self._out_of_time(tallies, step):
                self._save(behind)
                return False
            for tally in behind:
                if tally.done == step:
                    begin = time.monotonic()
                    tally.add(next(batches[tally.name]))
                    tally.seconds += time.monotonic() - begin
            if time.monotonic() - saved > SAVE_SECONDS:
                self._save(behind)
                saved = time.monotonic()
        self._save(behind)
        return True

    def _out_of_time(self, tallies: Sequence[Tally], step: int) -> bool:
        """Whether to stop before ``step``: never below the first round, nor between strategies."""
        level = all(tally.done == step for tally in tallies)
        return level and step >= self.job.ends[0] and self.clock.over()

    def _save(self, tallies: Sequence[Tally]) -> None:
        for tally in tallies:
            self.parts.save(tally)

"""Stopping a ranking early: when the best is separated from the rest, or when the time is over.

A claim is wrong only if, at some look, the interval of some strategy's lead over a best one lies
above 0. With K strategies and L looks there are (K - 1) L such intervals, each of error
0.05 / ((K - 1) L): a union bound, which also covers the strategies dropped on the way. Both sides
of the intervals count, so that a claim among equal strategies is an error too.

The first look comes at 160 images per class. Intervals exist from 20 on, but below 160 they miss up
to twice as often as they say: a confident teacher's errors are rare, so few images are skewed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .._errors import InputError
from .confidence import FOLDS
from .result import Criterion, Stop, StrategyResult
from .rounds import Outcome

PER_FOLD = 16  # images per class and fold at the first look


@dataclass(frozen=True)
class Anytime:
    """When to stop, as :func:`daqakd.rank` documents it."""

    budget: float | None = None
    until_sure: bool = False

    @property
    def wanted(self) -> bool:
        """Whether the ranking may end before all images are seen."""
        return self.until_sure or self.budget is not None

    def check(self, strategies: int, pac_limit: float | None) -> None:
        """Raise InputError for options that cannot be meant."""
        if self.budget is not None and not self.budget > 0:
            raise InputError(f"budget: expected more than 0 seconds, got {self.budget}")
        if self.until_sure and strategies < 2:
            raise InputError("until_sure: needs two strategies or more, got 1; name another")
        if self.until_sure and pac_limit is not None:
            raise InputError(
                "until_sure: separates scores, and pac_limit does not decide by the score alone;"
                " drop one of the two"
            )

    def check_images(self, images: int, classes: int) -> None:
        """Raise InputError where the images of a pass are too few to be sure."""
        if self.until_sure and images < first_look(classes):
            raise InputError(
                f"until_sure: needs {first_look(classes)} images or more for {classes} classes,"
                f" got {images}; intervals from fewer are not reliable enough"
            )

    def ends(self, least: int, first: int, images: int) -> list[int]:
        """Return the rounds' ends in images: the least, the looks, which double, and all."""
        looks = [first] if self.until_sure else []
        while looks and 2 * looks[-1] < images:
            looks.append(2 * looks[-1])
        return sorted({least, *looks, images})

    def stop(self, rounds: int, strategies: int) -> Stop:
        """Return the planned looks: one per round but the first, and one where the budget ends."""
        if not self.until_sure:
            return Stop()
        return Stop(looks=rounds - 1 + (self.budget is not None), pairs=strategies - 1)


def first_look(classes: int) -> int:
    """Return the fewest images from which a claim may be made."""
    return PER_FOLD * FOLDS * classes


@dataclass(frozen=True)
class DropSeparated:
    """Drops what is separated from the best so far, once ``least`` images were seen."""

    criterion: Criterion
    stop: Stop
    least: int

    def __call__(self, number: int, results: Sequence[StrategyResult]) -> list[str]:
        """Return the names of the strategies whose lead over the best lies above 0."""
        if results[0].images < self.least:
            return []
        first = min(results, key=lambda r: self.criterion.value(r.measures))
        return [
            r.name
            for r in results
            if r is not first and self.criterion.lead(first, r, self.stop.pair_t)[0] > 0
        ]


def reason(asked: Anytime, outcome: Outcome, stop: Stop, images: int, least: int) -> str:
    """Say in a sentence why the ranking stopped."""
    first = next(iter(outcome.live))
    seen = outcome.results[first].images
    if asked.until_sure and len(outcome.live) == 1:
        return (
            f"stopped when sure: {first} is separated from all others (95 % over {stop.looks}"
            f" looks and {stop.pairs} comparisons)"
        )
    if not outcome.out_of_time:
        text = f"stopped after all {images} images"
    elif seen <= least:
        text = f"the budget of {asked.budget:g} s was over before the least of {least} images,"
        text += " which were finished"
    else:
        text = f"stopped after {seen} images: the budget of {asked.budget:g} s was over"
    if asked.until_sure:
        text += f"; not sure: {', '.join(outcome.live)} are not separated"
    return text

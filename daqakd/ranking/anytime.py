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
from .config import RankConfig
from .criterion import Criterion
from .result import Stop, StrategyResult
from .rounds import Outcome

PER_FOLD = 16  # images per class and fold at the first look


def check_images(config: RankConfig, num_images: int, num_classes: int) -> None:
    """Raise InputError where the images of a pass are too few to be sure."""
    least = first_look(num_classes)
    if config.until_sure and num_images < least:
        raise InputError(
            f"until_sure: needs {least} images or more for {num_classes} classes, got"
            f" {num_images}; intervals from fewer are not reliable enough"
        )


def round_images(config: RankConfig, least: int, first: int, total: int) -> list[int]:
    """Return the images at the end of each round: the least, the looks, which double, and all."""
    looks = [first] if config.until_sure else []
    while looks and 2 * looks[-1] < total:
        looks.append(2 * looks[-1])
    return sorted({least, *looks, total})


def planned_stop(config: RankConfig, rounds: int) -> Stop:
    """Return the planned looks: one per round but the first, and one where the budget ends."""
    if not config.until_sure:
        return Stop()
    looks = rounds - 1 + (config.budget is not None)
    return Stop(looks=looks, pairs=len(config.names) - 1)


def first_look(num_classes: int) -> int:
    """Return the fewest images from which a claim may be made."""
    return PER_FOLD * FOLDS * num_classes


@dataclass(frozen=True)
class DropSeparated:
    """Drops what is separated from the best so far, once ``least`` images were seen."""

    criterion: Criterion
    stop: Stop
    least: int

    def __call__(self, number: int, results: Sequence[StrategyResult]) -> list[str]:
        """Return the names of the strategies whose lead over the best lies above 0."""
        if results[0].num_images < self.least:
            return []
        first = min(results, key=lambda r: self.criterion.value(r))
        return [
            r.name
            for r in results
            if r is not first and self.criterion.lead(first, r, self.stop.pair_t)[0] > 0
        ]


def reason(config: RankConfig, outcome: Outcome, stop: Stop, total: int, least: int) -> str:
    """Say in a sentence why the ranking stopped, of ``total`` images and ``least`` at first."""
    first = next(iter(outcome.live))
    seen = outcome.results[first].num_images
    if config.until_sure and len(outcome.live) == 1:
        return (
            f"stopped when sure: {first} is separated from all others (95 % over {stop.looks}"
            f" looks and {stop.pairs} comparisons)"
        )
    if not outcome.out_of_time:
        text = f"stopped after all {total} images"
    elif seen <= least:
        text = f"the budget of {config.budget:g} s was over before the least of {least} images,"
        text += " which were finished"
    else:
        text = f"stopped after {seen} images: the budget of {config.budget:g} s was over"
    if config.until_sure:
        text += f"; not sure: {', '.join(outcome.live)} are not separated"
    return text

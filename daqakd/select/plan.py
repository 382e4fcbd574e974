"""The rungs of a race: how many strategies train for how many epochs, within a total."""

from collections.abc import Sequence
from dataclasses import dataclass

from .._errors import InputError


@dataclass(frozen=True)
class Rung:
    """A round of a race: so many strategies, each trained for so many epochs."""

    strategies: int
    epochs: int


def per_round(count: int) -> list[int]:
    """Return how many strategies train in each round: half of those before, rounded up, to two."""
    counts = []
    while count > 1:
        counts.append(count)
        count = (count + 1) // 2
    return counts


def fewest(count: int, least: int = 1) -> int:
    """Return the least total of epochs that ``count`` strategies can race in."""
    return least * sum(per_round(count))


def plan(count: int, total: int, least: int = 1, most: int | None = None) -> list[Rung]:
    """Return the rungs of successive halving (Karnin, Koren and Somekh, ICML 2013).

    Of R = ceil(log2 count) rounds each has the same share of ``total``: with n strategies left,
    ``total // (R * n)`` epochs. Where that is below ``least`` a round takes ``least``, and those
    after it share what is left. A single strategy needs no round.

    Args:
        count: of strategies, one or more.
        total: epochs to spend on all trainings, never exceeded.
        least: epochs of the shortest training.
        most: epochs of the longest one; None for no limit.

    Raises:
        InputError: ``total`` is below :func:`fewest`, or ``most`` below ``least``.
    """
    if most is not None and most < least:
        raise InputError(
            f"least_epochs: expected at most {most}, the epochs of the final training, got {least}"
        )
    if total < fewest(count, least):
        raise InputError(
            f"total_epochs: {count} strategies race in {fewest(count, least)} epochs at least, got"
            f" {total}; raise it, or lower --shortlist or --least-epochs"
        )
    rungs, left, counts = [], total, per_round(count)
    for number, alive in enumerate(counts):
        share = min(total // len(counts), left // (len(counts) - number)) // alive
        epochs = min(max(share, least), total if most is None else most)
        rungs.append(Rung(alive, epochs))
        left -= alive * epochs
    return rungs


def describe(rungs: Sequence[Rung]) -> str:
    """Return rungs as a person reads them."""
    each = ", ".join(f"{rung.strategies} x {rung.epochs}" for rung in rungs)
    return f"{each} epochs" if each else "none"


def spent(rungs: Sequence[Rung]) -> int:
    """Return the epochs of all rungs together."""
    return sum(rung.strategies * rung.epochs for rung in rungs)

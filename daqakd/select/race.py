"""The race: train all, keep the better half, train it longer, until one is left."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan

from .._errors import InputError
from .plan import Rung

Trial = Callable[[str, int], float]


@dataclass(frozen=True)
class RungResult:
    """What a rung showed: accuracies by name, in the ranking's order."""

    epochs: int
    accuracies: Mapping[str, float]

    @property
    def best_first(self) -> list[str]:
        """Names by accuracy; equal ones in the ranking's order, NaN last."""
        values = self.accuracies
        return sorted(values, key=lambda name: (isnan(values[name]), -values[name]))


@dataclass(frozen=True)
class Race:
    """A race as far as it came.

    Attributes:
        names: of all strategies, in the ranking's order.
        results: of the rungs, first to last.
    """

    names: Sequence[str]
    results: Sequence[RungResult]

    @property
    def winner(self) -> str:
        """The best of the last rung; without one the ranking's first."""
        return self.results[-1].best_first[0] if self.results else self.names[0]

    @property
    def epochs(self) -> int:
        """Epochs trained; a trial that serves two rungs of one length counts once."""
        return sum(epochs for _, epochs in self.trials)

    @property
    def trials(self) -> list[tuple[str, int]]:
        """Name and epochs of every trial."""
        pairs = [(name, one.epochs) for one in self.results for name in one.accuracies]
        return list(dict.fromkeys(pairs))


def race(names: Sequence[str], rungs: Sequence[Rung], trial: Trial) -> Race:
    """Race strategies by successive halving (Karnin et al. 2013; Jamieson and Talwalkar 2016).

    A trial is a whole training of its rung's length, on a schedule of that length (a cosine that
    ends at 0), from the same start as all others; none continues a shorter one. A schedule that is
    cut leaves every student at a high learning rate, where accuracy tells how well an augmentation
    goes with that rate, and not what comes of it at the end.

    Args:
        names: the strategies, in the ranking's order, by which ties are broken.
        rungs: of :func:`plan`, for as many strategies.
        trial: trains with a strategy for so many epochs and returns an accuracy.

    Raises:
        InputError: names are missing, there twice, or not as many as the first rung has.
    """
    return Race(names, [*heats(names, rungs, trial)])


def heats(
    names: Sequence[str],
    rungs: Sequence[Rung],
    trial: Trial,
    before: Callable[[Sequence[str], int], None] = lambda names, epochs: None,
) -> Iterator[RungResult]:
    """Yield the result of every rung of a :func:`race` when it is there.

    ``before`` is called with the names and the epochs of a rung before its first trial, and may
    train them side by side.
    """
    _check(names, rungs)
    best_first = list(names)
    for rung in rungs:
        kept = best_first[: rung.strategies]
        alive = [name for name in names if name in kept]
        before(alive, rung.epochs)
        result = RungResult(rung.epochs, {name: trial(name, rung.epochs) for name in alive})
        yield result
        best_first = result.best_first


def _check(names: Sequence[str], rungs: Sequence[Rung]) -> None:
    wanted = rungs[0].strategies if rungs else 1
    if len(names) != wanted or len(set(names)) != wanted:
        raise InputError(
            f"names: expected {wanted} different strategies, as the first rung has, got"
            f" {list(names)}"
        )

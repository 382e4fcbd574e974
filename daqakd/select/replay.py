"""What selections would have come to, replayed on the rows of a study in which all was trained."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

from .._errors import InputError
from .plan import Rung, fewest, per_round, plan
from .race import race
from .shortlist import shortlist

SIZES = (2, 3, 4, 6, 8)
DRAWS = 300
SEED = 0
Table = Mapping[str, Mapping[int, float]]  # accuracy by strategy and seed


@dataclass(frozen=True)
class Replayed:
    """What a rule came to, on average over seeds and, where it draws, over draws.

    Attributes:
        rule: how strategies are chosen for trials.
        strategies: how many are tried.
        budget: the least total of epochs that is planned so.
        epochs: that trials took; one that serves two rungs counts once.
        regret: accuracy of the best strategy less that of the winner, after the final training.
        best: the share of races that the best strategy won.
        races: how many there were.
    """

    rule: str
    strategies: int
    budget: int
    epochs: float
    regret: float
    best: float
    races: int


@dataclass(frozen=True)
class Replay:
    """A study's accuracies as a table of trials.

    A trial has the accuracy of the longest training in the study that is not longer than planned: a
    study on test images stands in for trials on held-out ones. A race sees one seed. Its winner is
    worth the mean of the other seeds at the full length, so that luck in the race is no merit; the
    best strategy is that of the highest mean of all seeds.

    Attributes:
        ranking: the content of the study's ``ranking.json``.
        tables: accuracies by epochs of the training; the most are the final training's.
    """

    ranking: Mapping[str, Any]
    tables: Mapping[int, Table]

    @cached_property
    def arms(self) -> list[str]:
        """The strategies that are in all tables, in the ranking's order."""
        names = [row["name"] for row in self.ranking["strategies"]]
        return [n for n in names if all(n in table for table in self.tables.values())]

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds that all of them have in all tables."""
        each = [set(table[name]) for table in self.tables.values() for name in self.arms]
        return sorted(set.intersection(*each)) if each else []

    @cached_property
    def best(self) -> str:
        """The strategy of the highest mean after the final training; of equal ones the first."""
        return max(self.arms, key=self._mean)

    def _mean(self, name: str, without: int | None = None) -> float:
        others = [seed for seed in self.seeds if seed != without] or self.seeds
        final = self.tables[max(self.tables)][name]
        return sum(final[seed] for seed in others) / len(others)

    def regret(self, winner: str, seed: int) -> float:
        """Return how far the winner of a race on a seed is behind the best."""
        return self._mean(self.best) - self._mean(winner, seed)

    def plans(self, count: int) -> Iterator[tuple[int, list[Rung]]]:
        """Yield every plan that trains something else, with the least total that makes it."""
        least, most, last = min(self.tables), max(self.tables), None
        for total in range(fewest(count, least), count * len(per_round(count)) * most + 1):
            rungs = [self._measured(rung) for rung in plan(count, total, least, most)]
            if rungs != last:
                yield total, rungs
            last = rungs

    def _measured(self, rung: Rung) -> Rung:
        return Rung(rung.strategies, max(n for n in self.tables if n <= rung.epochs))

    def rows(self, rule: str, lists: Sequence[Sequence[str]]) -> Iterator[Replayed]:
        """Yield a row per plan, over lists of the same length and all seeds."""
        for total, rungs in self.plans(len(lists[0])):
            found = [self._raced(names, rungs, seed) for names in lists for seed in self.seeds]
            epochs, regret, best = (sum(each) / len(found) for each in zip(*found, strict=True))
            yield Replayed(rule, len(lists[0]), total, epochs, regret, best, len(found))

    def _raced(
        self, names: Sequence[str], rungs: Sequence[Rung], seed: int
    ) -> tuple[int, float, bool]:
        done = race(names, rungs, lambda name, epochs: self.tables[epochs][name][seed])
        return done.epochs, self.regret(done.winner, seed), done.winner == self.best


def replay(
    ranking: Mapping[str, Any],
    tables: Mapping[int, Table],
    sizes: Sequence[int] = SIZES,
    also: Sequence[str] = (),
    draws: int = DRAWS,
) -> list[Replayed]:
    """Replay rules on a study: regret against epochs.

    The rules are the ranking's first without a trial, a strategy at random without one, ``select``
    with shortlists of several sizes (near ties on top, as it takes them), random strategies as many
    as these in the same race (the same draws every time), and a race of all.

    Args:
        ranking: the content of the study's ``ranking.json``.
        tables: by epochs of the training, accuracies by strategy and seed; one length or more.
        sizes: of the shortlists.
        also: what a shortlist holds in any case.
        draws: of random lists of each size.

    Raises:
        InputError: the tables share fewer than two ranked strategies, or no seed.
    """
    whole = Replay(ranking, tables)
    arms, draw = whole.arms, Random(SEED)
    if len(arms) < 2 or not whole.seeds:
        raise InputError(
            f"tables: {len(arms)} ranked strategies are in all of them, with the seeds"
            f" {whole.seeds if arms else []} in common; need two strategies and a seed"
        )
    rows = [*whole.rows("ranking alone", [arms[:1]])]
    rows += whole.rows("one at random", [[name] for name in arms])
    known = {**ranking, "strategies": [r for r in ranking["strategies"] if r["name"] in arms]}
    for size in (size for size in sizes if 1 < size < len(arms)):
        rows += whole.rows(f"select {size}", [[*shortlist(known, size, also)]])
    for size in (size for size in sizes if 1 < size < len(arms)):
        rows += whole.rows(f"random {size}", [draw.sample(arms, size) for _ in range(draws)])
    return [*rows, *whole.rows("all", [arms])]

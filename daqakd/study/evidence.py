"""What a study shows: rank correlations with intervals, and the regret of rules."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._statistics import deviation, mean, spearman
from .bootstrap import difference_interval, rho_interval
from .outcomes import Outcome

# what a ranking measures, and which end of it would be taken: -1 the lowest, 1 the highest
MEASURES = {
    "score": -1,
    "cmi": 1,
    "pac": -1,
    "cross_entropy": -1,
    "entropy": 1,
    "teacher_std": -1,
}
FEWEST, FEWEST_FOR_INTERVAL = 3, 5  # arms for rho
FIXED = ("trivialaugment", "minimal")  # what one would take without a ranking


@dataclass(frozen=True)
class Arm:
    """A strategy: what the ranking measured, and test accuracy by seed."""

    name: str
    measures: Mapping[str, float | None]
    accuracies: Mapping[int, float]

    @property
    def mean(self) -> float:
        """Mean test accuracy."""
        return mean([*self.accuracies.values()])

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds; None for one."""
        return deviation([*self.accuracies.values()])


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho of a measure and mean accuracy over arms, with its 95 % interval."""

    measure: str
    rho: float | None
    interval: tuple[float, float] | None
    arms: int


@dataclass(frozen=True)
class Regret:
    """How far the arm that a rule takes is behind the best arm, in accuracy."""

    rule: str
    arm: str
    regret: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Evidence:
    """The arms of a study that have a finished student."""

    arms: Sequence[Arm]

    @property
    def best(self) -> Arm:
        """The arm of the highest mean accuracy."""
        return max(self.arms, key=lambda arm: arm.mean)

    @property
    def informative(self) -> "Evidence":
        """The arms whose score is below 0: no others add more CMI than they cost."""
        return Evidence([arm for arm in self.arms if (arm.measures.get("score") or 0) < 0])

    @property
    def seed_deviation(self) -> float | None:
        """Standard deviation over seeds, pooled over arms (root of the mean variance)."""
        found = [arm.deviation for arm in self.arms]
        squares = [one * one for one in found if one is not None]
        return mean(squares) ** 0.5 if squares else None

    def correlation(self, measure: str) -> Correlation:
        """Return rho of a measure, with a bootstrap over arms and over the seeds of each.

        rho is None below three arms and where a side has one value only, the interval below five.
        """
        known = self._known(measure)
        values = [value for value, _ in known]
        enough = len(known) >= FEWEST
        rho = spearman(values, [arm.mean for _, arm in known]) if enough else None
        if rho is None or len(known) < FEWEST_FOR_INTERVAL:
            return Correlation(measure, rho, None, len(known))
        accuracies = [[*arm.accuracies.values()] for _, arm in known]
        return Correlation(measure, rho, rho_interval(values, accuracies), len(known))

    def _known(self, measure: str) -> list[tuple[float, Arm]]:
        """Return the arms that a measure was taken of, with its value."""
        pairs = [(arm.measures.get(measure), arm) for arm in self.arms]
        return [(value, arm) for value, arm in pairs if value is not None]

    def regrets(self) -> list[Regret]:
        """Return the regret of every measure's choice and of the fixed choices."""
        chosen = {measure: self._choice(measure, end) for measure, end in MEASURES.items()}
        chosen |= {f"always {arm.name}": arm for arm in self.arms if arm.name in FIXED}
        return [self._regret(rule, arm) for rule, arm in chosen.items() if arm is not None]

    def _choice(self, measure: str, end: int) -> Arm | None:
        known = self._known(measure)
        return max(known, key=lambda pair: end * pair[0])[1] if known else None

    def _regret(self, rule: str, arm: Arm) -> Regret:
        best = self.best
        interval = None
        if min(len(best.accuracies), len(arm.accuracies)) > 1:
            pair = [[*one.accuracies.values()] for one in (best, arm)]
            interval = (0.0, 0.0) if best is arm else difference_interval(*pair)
        return Regret(rule, arm.name, best.mean - arm.mean, interval)

    @property
    def random_regret(self) -> float:
        """The expected regret of an arm drawn at random."""
        return self.best.mean - mean([arm.mean for arm in self.arms])

    @property
    def honest_best(self) -> float | None:
        """Mean accuracy of the arm that the other seeds say is best; None for a single seed.

        The best arm's own mean profits from having been chosen by it.
        """
        seeds = sorted(set.intersection(*(set(arm.accuracies) for arm in self.arms)))
        if len(seeds) < 2:
            return None
        return mean([self._best_without(seed).accuracies[seed] for seed in seeds])

    def _best_without(self, seed: int) -> Arm:
        def others(arm: Arm) -> float:
            return mean([value for s, value in arm.accuracies.items() if s != seed])

        return max((arm for arm in self.arms if len(arm.accuracies) > 1), key=others)


def evidence_of(ranking: Mapping[str, Any], outcomes: Iterable[Outcome]) -> Evidence:
    """Join a ``ranking.json`` with finished students, arms in the ranking's order."""
    found: dict[str, dict[int, float]] = {}
    for one in outcomes:
        found.setdefault(one.strategy, {})[one.seed] = one.accuracy
    return Evidence(
        [
            Arm(row["name"], {m: row.get(m) for m in MEASURES}, found[row["name"]])
            for row in ranking["strategies"]
            if row["name"] in found
        ]
    )

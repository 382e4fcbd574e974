"""What decides a ranking: the paper's score, another measure, or a function of the user's own."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .._arguments import imported
from .._config import is_number
from .._errors import InputError, first_line, seen, unknown
from .confidence import difference, unbiased
from .state import Measures

if TYPE_CHECKING:
    from .result import StrategyResult

SCORE, STD = "score", "std"
MEASURES: dict[str, Callable[[Measures], float]] = {
    "negative_cmi": lambda m: -m.cmi,
    "pac": lambda m: m.pac,
    "cross_entropy": lambda m: m.cross_entropy,
}
STD_PASSES = 10  # as many epochs as its authors take [TSTD]


def check_criterion(name: str) -> None:
    """Raise InputError where nothing is called so, or it is no function of measures."""
    if ":" in name:
        function = imported("criterion", name)
        _called(name, function, Measures(0.1, 0.2, 0.3, 0.4, 0.5))
    elif name not in (SCORE, STD, *MEASURES):
        raise unknown("criterion", name, [SCORE, STD, *MEASURES, "package.module:function"])


def _called(name: str, function: Callable[[Measures], float], measures: Measures) -> float:
    try:
        value = function(measures)
    except Exception as error:  # whatever a user's function raises
        raise InputError(
            f"criterion {name!r}: fails on {measures} ({first_line(error)}); mend it"
        ) from error
    if not is_number(value):
        raise InputError(
            f"criterion {name!r}: returned {seen(value)} for {measures}; expected a number, lower"
            " for better strategies"
        )
    return float(value)


@dataclass(frozen=True)
class Criterion:
    """What is minimised: ``pac_weight * PAC - cmi_weight * CMI``, or -CMI within a PAC limit.

    Unless ``by`` says another: a measure's name, ``std`` for the deviation of the teacher's mean
    probabilities [TSTD], or ``package.module:function``, which takes :class:`Measures`.
    """

    cmi_weight: float
    pac_weight: float
    pac_limit: float | None
    by: str = field(default=SCORE, repr=False)  # what partial rankings are kept under has no other

    def score(self, m: Measures) -> float:
        """Return the paper's score."""
        return self.pac_weight * m.pac - self.cmi_weight * m.cmi

    def _of(self, m: Measures) -> float:
        if self.by == SCORE:
            return self.score(m) if self.pac_limit is None else -m.cmi
        if self.by in MEASURES:
            return MEASURES[self.by](m)
        return _called(self.by, imported("criterion", self.by), m)

    def whole(self, result: "StrategyResult") -> float:
        """Return what decides, by the formula and over everything."""
        if self.by != STD:
            return self._of(result.measures)
        if result.teacher_std is None:
            raise InputError(
                f"criterion: {result.name} has too few groups of images for std; raise --passes or"
                " --images"
            )
        return result.teacher_std

    def left_out(self, result: "StrategyResult") -> list[float]:
        """Return the same without each fold."""
        if self.by == STD:
            return result.std_left_out
        return [self._of(m) for m in result.left_out]

    def value(self, result: "StrategyResult") -> float:
        """Return the estimate that decides, without bias, among the strategies within the limit."""
        if self.by == SCORE:
            return self._of(result.estimates)
        return unbiased(self.whole(result), self.left_out(result))

    def allows(self, m: Measures) -> bool:
        """Whether the strategy may win."""
        return self.pac_limit is None or m.pac <= self.pac_limit

    def lead(
        self, first: "StrategyResult", other: "StrategyResult", t: float
    ) -> tuple[float, float]:
        """Return the interval of how far ``other`` is behind ``first``, both on the same images."""
        parts = self.left_out(other), self.left_out(first)
        return difference(self.whole(other), self.whole(first), *parts, t)

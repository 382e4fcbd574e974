"""Selection: a race of short trainings among the strategies that a ranking puts first."""

from .plan import Rung, fewest, plan
from .race import Race, RungResult, heats, race
from .shortlist import shortlist

__all__ = ["Race", "Rung", "RungResult", "fewest", "heats", "plan", "race", "shortlist"]

"""Ranking augmentations: CMI state, score, intervals, the ranker."""

from .ranker import rank
from .ranking import Ranking
from .state import CMIState

__all__ = ["CMIState", "Ranking", "rank"]

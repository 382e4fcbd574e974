"""Ranking augmentations: CMI state, score, intervals, the ranker, the search."""

from .halving import Search, search
from .ranker import rank
from .result import Ranking
from .state import CMIState

__all__ = ["CMIState", "Ranking", "Search", "rank", "search"]

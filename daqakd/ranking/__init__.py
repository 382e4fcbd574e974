"""Ranking augmentations: CMI state, score, intervals, the ranker, the search."""

from .ranker import rank
from .result import Ranking
from .search import Search, search
from .state import CMIState

__all__ = ["CMIState", "Ranking", "Search", "rank", "search"]

"""Ranking augmentations: CMI state, score, intervals, the ranker, the search."""

from .config import RankConfig, SearchConfig
from .halving import Search, search
from .ranker import rank
from .result import Ranking
from .state import CMIState

__all__ = ["CMIState", "RankConfig", "Ranking", "Search", "SearchConfig", "rank", "search"]

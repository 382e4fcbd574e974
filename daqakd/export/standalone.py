"""Copies of students for files: layer by layer, without what only speeds training up."""

import copy

from torch import nn

from ..quant.fusion import unfuse
from ..quant.weight_cache import WeightCache
from .batchnorm import fold_batchnorm


def standalone(student: nn.Module, fold: bool) -> nn.Module:
    """Return a copy on the CPU in eval mode, its BatchNorms folded where ``fold`` says so."""
    twin = fold_batchnorm(student) if fold else copy.deepcopy(student)
    unfuse(twin)
    WeightCache.detach(twin)
    return twin.cpu().eval()

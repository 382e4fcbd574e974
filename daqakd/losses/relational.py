"""RKD: distances and angles between images (Park et al., CVPR 2019)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from .._arguments import check_rate
from ..augment import Batch
from .base import DistillationLoss, Maps, Setup, Where, added
from .checks import check_pairs


class RKD(DistillationLoss):
    """Smooth L1 of distances and of the triplets' cosines [RKD, sections 3.2.1 and 3.2.2].

    Distances of pairs are divided by their mean over the pairs that are apart; a cosine is that at
    the middle image of a triplet, 0 where two of it coincide, which have no gradient. Means over
    all ``B^2`` pairs and ``B^3`` triplets of features ``[B, D]``, whose widths may differ. Summed
    over the taps; the pooled features by default. One image alone has a loss of 0.

    Args:
        taps: features; None for a named model's pooled ones.
        distance_weight: of the distances.
        angle_weight: of the cosines.
    """

    place: ClassVar[Where] = "last"
    settings = ("distance_weight", "angle_weight")

    def __init__(
        self,
        *,
        taps: Sequence[str] | None = None,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
    ) -> None:
        super().__init__(taps=taps)
        check_rate("distance_weight", distance_weight)
        check_rate("angle_weight", angle_weight)
        self.distance_weight, self.angle_weight = distance_weight, angle_weight

    def prepare(self, setup: Setup) -> None:
        """Require features ``[B, D]``."""
        check_pairs(self, setup, 2)

    def forward(self, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
        """Return the loss of a batch, ``[]``."""
        pairs = zip(student, teacher, strict=True)
        return added(self._of_features(s, t) for s, t in pairs)

    def _of_features(self, s: Tensor, t: Tensor) -> Tensor:
        (distances, cosines), (wanted_distances, wanted_cosines) = _relations(s), _relations(t)
        by_distance = functional.smooth_l1_loss(distances, wanted_distances)
        by_angle = functional.smooth_l1_loss(cosines, wanted_cosines)
        return self.distance_weight * by_distance + self.angle_weight * by_angle


def _relations(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return relative distances ``[B, B]``, and cosines ``[B, B, B]`` at the first image."""
    towards = x[None] - x[:, None]  # [B, B, D]
    distances = torch.linalg.vector_norm(towards, dim=2)
    apart = distances > 0
    mean = distances.sum() / apart.sum().clamp(min=1)
    directions = towards / torch.where(apart, distances, torch.inf)[:, :, None]
    return distances / torch.where(mean > 0, mean, 1.0), directions @ directions.mT

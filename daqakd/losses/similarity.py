"""SP: which images of a batch are alike (Tung and Mori, ICCV 2019)."""

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import mse_loss

from ..augment import Batch
from .base import DistillationLoss, Maps, Where, added, unit_rows


class SP(DistillationLoss):
    """``||G_t - G_s||^2 / B^2`` with the row-normalised Gram matrices of the batch [SP, eq. 4].

    ``G = F F^T`` of the flattened maps F ``[B, C H W]``, so both models' maps may have any size.
    Summed over the taps; the last map by default.
    """

    place: ClassVar[Where] = "before_last"

    def forward(self, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
        """Return the loss of a batch, ``[]``."""
        pairs = zip(student, teacher, strict=True)
        return added(mse_loss(_gram(s), _gram(t)) for s, t in pairs)


def _gram(maps: Tensor) -> Tensor:
    """Return how alike the rows are, ``[B, B]``."""
    rows = maps.flatten(1)
    return unit_rows(rows @ rows.T)

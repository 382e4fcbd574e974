"""AT: where a model looks (Zagoruyko and Komodakis, ICLR 2017)."""

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import mse_loss

from ..augment import Batch
from .base import DistillationLoss, Maps, Setup, Where, added, check_maps, pooled_alike, unit_rows


class AT(DistillationLoss):
    """Squared difference of attention maps, the mean over pixels and images [AT, eq. 2].

    An attention map is the mean of squares over channels, ``[B, H W]``, of length 1. Summed over
    the taps; the maps between the first and the last tap by default. Of two sizes the larger is
    pooled.
    """

    place: ClassVar[Where] = "middle"

    def prepare(self, setup: Setup) -> None:
        """Require maps ``[B, C, H, W]``."""
        check_maps(self, [*setup.student, *setup.teacher], 4)

    def forward(self, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
        """Return the loss of a batch, ``[]``."""
        pairs = (pooled_alike(s, t) for s, t in zip(student, teacher, strict=True))
        maps = ((_attention(s), _attention(t)) for s, t in pairs)
        return added(mse_loss(s, t) for s, t in maps)


def _attention(maps: Tensor) -> Tensor:
    return unit_rows((maps * maps).mean(1).flatten(1))

"""NST: which neurons are selective for the same pixels (Huang and Wang, arXiv 1707.01219)."""

from typing import ClassVar

from torch import Tensor

from ..augment import Batch
from .base import DistillationLoss, Maps, Setup, Where, added, pooled_alike, unit_rows
from .checks import check_pairs


class NST(DistillationLoss):
    """Squared maximum mean discrepancy of channels, with the kernel ``(u . v)^2`` [NST, section 4].

    ``k(t, t) + k(s, s) - 2 k(s, t)``, where k is the mean over pairs of channels ``[H W]`` of
    length 1, and over images. Summed over the taps; the maps between the first and the last tap by
    default. Of two sizes the larger is pooled; numbers of channels may differ.
    """

    place: ClassVar[Where] = "middle"

    def prepare(self, setup: Setup) -> None:
        """Require maps ``[B, C, H, W]``."""
        check_pairs(self, setup, 4)

    def forward(self, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
        """Return the loss of a batch, ``[]``."""
        pairs = (pooled_alike(s, t) for s, t in zip(student, teacher, strict=True))
        channels = ((unit_rows(s.flatten(2)), unit_rows(t.flatten(2))) for s, t in pairs)
        return added(_discrepancy(s, t) for s, t in channels)


def _discrepancy(s: Tensor, t: Tensor) -> Tensor:
    """Return that of channels ``[B, C, H W]``: by whichever matrices are smaller."""
    if s.shape[2] < min(s.shape[1], t.shape[1]):  # (u . v)^2 = <u u^T, v v^T>
        difference = _second_moment(t) - _second_moment(s)
        return (difference * difference).sum((1, 2)).mean()
    return _kernel(t, t) + _kernel(s, s) - 2 * _kernel(s, t)


def _kernel(u: Tensor, v: Tensor) -> Tensor:
    products = u @ v.mT  # [B, C, C]
    return (products * products).mean()


def _second_moment(u: Tensor) -> Tensor:
    """Return the mean of ``u u^T`` over channels, ``[B, H W, H W]``."""
    return u.mT @ u / u.shape[1]

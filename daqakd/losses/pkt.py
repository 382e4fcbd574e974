"""PKT: the probability that two images are neighbours (Passalis and Tefas, ECCV 2018)."""

from typing import ClassVar

import torch
from torch import Tensor

from ..augment import Batch
from .base import DistillationLoss, Maps, Setup, Where, added, unit_rows
from .checks import check_pairs


class PKT(DistillationLoss):
    """Mean over pairs of ``t ln(t / s)`` with the conditional probabilities of both models.

    The probability of image j given i is ``(1 + cos) / 2`` of their features ``[B, D]``, divided
    by the row's sum [PKT, section 3.2]. A pair that either model holds exactly opposite counts as
    0: there, the cosine has no gradient. Summed over the taps; the pooled features by default.
    """

    place: ClassVar[Where] = "last"

    def prepare(self, setup: Setup) -> None:
        """Require features ``[B, D]``."""
        check_pairs(self, setup, 2)

    def forward(self, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
        """Return the loss of a batch, ``[]``."""
        pairs = zip(student, teacher, strict=True)
        return added(_divergence(_neighbours(s), _neighbours(t)) for s, t in pairs)


def _neighbours(x: Tensor) -> Tensor:
    """Return the conditional probabilities, ``[B, B]``."""
    rows = unit_rows(x)
    similarity = 1 + rows @ rows.T  # twice the paper's, as is the sum
    return similarity / similarity.sum(1, keepdim=True)


def _divergence(s: Tensor, t: Tensor) -> Tensor:
    known = s > 0
    t, logs = torch.where(known, t, 0.0), torch.where(known, s, 1.0).log()
    return (torch.xlogy(t, t) - t * logs).mean()

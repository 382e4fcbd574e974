"""DKD: the true class and the others apart (Zhao et al., CVPR 2022)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from .._arguments import check_rate
from .._errors import InputError
from ..augment import Batch
from .base import DistillationLoss, Maps, Setup, added, refuse_mixed
from .checks import check_number, check_pairs, check_same_shape


class DKD(DistillationLoss):
    """``T^2 (alpha TCKD + beta NCKD)``, the mean over images [DKD, eq. 7].

    TCKD is the KL divergence of the true class against all others, NCKD that of the distribution
    among the others, both at temperature T, from logits ``[B, C]``. The probability of the true
    class is ``sigmoid(m)`` with the margin ``m = z_y - logsumexp(others)``: it is exact where a
    model is sure.

    Args:
        taps: the logits.
        alpha: weight of TCKD.
        beta: weight of NCKD.
        temperature: T.
    """

    takes_mixed_labels: ClassVar[bool] = False
    settings = ("alpha", "beta", "temperature")

    def __init__(
        self,
        *,
        taps: Sequence[str] | None = None,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(taps=("logits",) if taps is None else taps)
        check_number("temperature", temperature)
        check_rate("alpha", alpha)
        check_rate("beta", beta)
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    def prepare(self, setup: Setup) -> None:
        """Require logits ``[B, C]`` of the same classes, two at least."""
        check_pairs(self, setup, 2)
        check_same_shape(self, setup.student, setup.teacher)
        if setup.student[0].shape[1] < 2:
            raise InputError("DKD: one class has no others to be told from; add another")

    def forward(self, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
        """Return the loss of a batch, ``[]``."""
        refuse_mixed(self, batch)
        pairs = zip(student, teacher, strict=True)
        return added(self._of_logits(s, t, batch.labels) for s, t in pairs)

    def _of_logits(self, s: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        own = torch.arange(s.shape[1], device=s.device) == labels[:, None]
        margin, others = _decoupled(s / self.temperature, own)
        wanted_margin, wanted_others = _decoupled(t / self.temperature, own)
        target = _kl_of_margins(wanted_margin, margin)
        ratio = (wanted_others - others).masked_fill(own, 0)
        rest = (wanted_others.exp() * ratio).sum(1)
        return self.temperature**2 * (self.alpha * target + self.beta * rest).mean()


def _decoupled(logits: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Return margins ``[B]`` and log-probabilities among the others ``[B, C]``, -inf at ``own``."""
    others = logits.masked_fill(own, -torch.inf)
    total = others.logsumexp(1)
    margin = torch.where(own, logits, 0).sum(1) - total
    return margin, others - total[:, None]


def _kl_of_margins(t: Tensor, s: Tensor) -> Tensor:
    """Return the KL divergence of two classes with probabilities ``sigmoid(+-margin)``, ``[B]``."""
    log = functional.logsigmoid
    return t.sigmoid() * (log(t) - log(s)) + (-t).sigmoid() * (log(-t) - log(-s))

"""DIST: relations among classes and among images (Huang et al., NeurIPS 2022)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .._arguments import check_rate
from ..augment import Batch
from .base import DistillationLoss, Maps, Setup, added, normalised
from .checks import check_number, check_pairs, check_same_shape


class DIST(DistillationLoss):
    """``T^2 (beta (1 - inter) + gamma (1 - intra))`` [DIST, section 4].

    ``inter`` is Pearson's correlation of an image's probabilities at temperature T, the mean over
    images; ``intra`` that of a class's probabilities over the batch, the mean over classes. What is
    constant has a correlation of 0, without gradient: so has a batch of one image ``intra``, and
    one class both.

    Args:
        taps: the logits ``[B, C]``.
        beta: weight of the correlation among classes.
        gamma: weight of the correlation among images.
        temperature: T.
    """

    settings = ("beta", "gamma", "temperature")

    def __init__(
        self,
        *,
        taps: Sequence[str] | None = None,
        beta: float = 1.0,
        gamma: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(taps=("logits",) if taps is None else taps)
        check_number("temperature", temperature)
        check_rate("beta", beta)
        check_rate("gamma", gamma)
        self.beta, self.gamma, self.temperature = beta, gamma, temperature

    def prepare(self, setup: Setup) -> None:
        """Require logits ``[B, C]`` of the same classes."""
        check_pairs(self, setup, 2)
        check_same_shape(self, setup.student, setup.teacher)

    def forward(self, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
        """Return the loss of a batch, ``[]``."""
        pairs = zip(student, teacher, strict=True)
        return added(self._of_logits(s, t) for s, t in pairs)

    def _of_logits(self, s: Tensor, t: Tensor) -> Tensor:
        p, q = (s / self.temperature).softmax(1), (t / self.temperature).softmax(1)
        inter, intra = 1 - _correlation(p, q), 1 - _correlation(p.T, q.T)
        return self.temperature**2 * (self.beta * inter + self.gamma * intra)


def _correlation(s: Tensor, t: Tensor) -> Tensor:
    """Return the rows' mean correlation, ``[]``."""
    mean: Tensor = RowCorrelation.apply(s, t)
    return mean


class RowCorrelation(torch.autograd.Function):
    """The mean over rows of Pearson's r: ``ds = (w - r y) / |s - mean|`` with rows of length 1.

    The gradient is made in the forward pass, and the teacher's has none.
    """

    @staticmethod
    def forward(ctx: Any, s: Tensor, t: Tensor) -> Tensor:
        """Return the mean over the rows of both ``[N, D]``."""
        y, scale, length = normalised(_centred(s))
        w, *_ = normalised(_centred(t))
        r = torch.linalg.vecdot(y, w)
        grad = torch.addcmul(w, y, r[:, None], value=-1).div_(scale).div_(length)
        ctx.save_for_backward(grad.div_(len(r)))
        mean: Tensor = r.mean()
        return mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the student's rows."""
        (grad,) = ctx.saved_tensors
        return grad * grad_output, None


def _centred(x: Tensor) -> Tensor:
    """Return rows less their mean: exactly 0 where they are constant."""
    x = x - x[:, :1]
    return x - x.mean(1, keepdim=True)

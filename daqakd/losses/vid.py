"""VID: what the student's maps say of the teacher's (Ahn et al., CVPR 2019)."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..augment import Batch
from .base import DistillationLoss, Maps, Setup, Where, added, pooled_alike
from .checks import check_number, check_pairs

SMALLEST = 1e-5  # variance, part of the formula: the likelihood has no bound without


class VID(DistillationLoss):
    """Mean of ``((mu - t)^2 / v + ln v) / 2``: a Gaussian's -log-likelihood [VID, section 2.1].

    Three 1 x 1 convolutions with ReLUs between make the mean ``mu`` of the student's map, and the
    variance ``v = softplus(theta) + 1e-5`` is one number per channel of the teacher's. Summed over
    the taps; the maps between the first and the last tap by default. Of two sizes the larger is
    pooled.

    Args:
        taps: maps ``[B, C, H, W]``; None for a named model's own.
        variance: at the start.
    """

    place: ClassVar[Where] = "middle"
    settings = ("variance",)
    means: nn.ModuleList
    thetas: nn.ParameterList

    def __init__(self, *, taps: Sequence[str] | None = None, variance: float = 5.0) -> None:
        super().__init__(taps=taps)
        check_number("variance", variance, above=SMALLEST)
        self.variance = variance

    def prepare(self, setup: Setup) -> None:
        """Make the convolutions and the variances."""
        check_pairs(self, setup, 4)
        pairs = zip(setup.student, setup.teacher, strict=True)
        self.means = nn.ModuleList(_predictor(s, t.shape[1]) for s, t in pairs)
        start = self.variance - SMALLEST
        theta = start + math.log(-math.expm1(-start))  # softplus of it is the start
        self.thetas = nn.ParameterList(
            torch.full((t.shape[1], 1, 1), theta, dtype=t.dtype, device=t.device)
            for t in setup.teacher
        )

    def forward(self, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
        """Return the loss of a batch, ``[]``."""
        losses = []
        for mean, theta, *maps in zip(self.means, self.thetas, student, teacher, strict=True):
            s, t = pooled_alike(*maps)
            variance = functional.softplus(theta) + SMALLEST
            difference = mean(s) - t
            losses.append((difference * difference / variance + variance.log()).mean() / 2)
        return added(losses)


def _predictor(s: Tensor, width: int) -> nn.Module:
    layers = (nn.Conv2d(c, width, 1, bias=False) for c in (s.shape[1], width, width))
    first, second, third = layers
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third).to(s)

"""FitNet: a hint from a map in the middle (Romero et al., ICLR 2015)."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from .._errors import InputError
from ..augment import Batch
from .base import DistillationLoss, Maps, Setup, Where, added
from .checks import check_normalisable, check_pairs


class FitNet(DistillationLoss):
    """Mean squared difference of the teacher's map and what a regressor makes of the student's.

    [FitNet, eq. 3, as a mean.] The regressor is a convolution, BatchNorm and ReLU. Its kernel is
    ``1 + H_s - H_t`` wide; where one side is twice the other, it has 3 x 3 with a stride of 2, or
    is transposed, 4 x 4 with a stride of 2. Summed over the taps; the third of a model's maps by
    default.
    """

    place: ClassVar[Where] = "hint"
    regressors: nn.ModuleList

    def prepare(self, setup: Setup) -> None:
        """Make the regressors for maps ``[B, C, H, W]``."""
        check_pairs(self, setup, 4)
        pairs = zip(setup.student, setup.teacher, strict=True)
        self.regressors = nn.ModuleList(_regressor(s, t) for s, t in pairs)

    def forward(self, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
        """Return the loss of a batch, ``[]``."""
        losses = []
        for regressor, s, t in zip(self.regressors, student, teacher, strict=True):
            check_normalisable(self, t)
            losses.append(mse_loss(regressor(s), t))
        return added(losses)


def _regressor(s: Tensor, t: Tensor) -> nn.Module:
    channels = s.shape[1], t.shape[1]
    sizes, wanted = s.shape[2:], t.shape[2:]
    layer: nn.Module
    if all(a == 2 * b for a, b in zip(sizes, wanted, strict=True)):
        layer = nn.Conv2d(*channels, 3, stride=2, padding=1)
    elif all(2 * a == b for a, b in zip(sizes, wanted, strict=True)):
        layer = nn.ConvTranspose2d(*channels, 4, stride=2, padding=1)
    elif all(a >= b for a, b in zip(sizes, wanted, strict=True)):
        layer = nn.Conv2d(*channels, (1 + sizes[0] - wanted[0], 1 + sizes[1] - wanted[1]))
    else:
        raise InputError(
            f"FitNet: the student's map has {list(sizes)} pixels and the teacher's {list(wanted)},"
            " expected as many, more, or half as many; name taps that fit"
        )
    return nn.Sequential(layer, nn.BatchNorm2d(channels[1]), nn.ReLU()).to(s)

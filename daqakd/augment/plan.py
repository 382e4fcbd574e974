"""What the draws become: a :class:`Plan` for any images of an epoch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..functional.augment import Plan
from . import draws
from .mixing import boxes, erased, kept_share
from .policies import Policy


def normalised_values(mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return each pixel value in [0, 1], minus the mean, over the deviation: float32 [3, 256]."""
    levels = torch.arange(256) / torch.tensor(255.0)
    return (levels - torch.tensor(mean)[:, None]) / torch.tensor(std)[:, None]


@dataclass(frozen=True)
class Planner:
    """Everything fixed about a strategy's plans.

    ``pad`` pixels of zeros around the image give a random crop its room; ``box`` is ``"image"`` or
    ``"batch"``. Tensors are on the device that augments.
    """

    policy: Policy
    height: int
    width: int
    pad: int
    flip: bool
    erasing: bool
    mixing: str | None
    box: str
    values: Tensor
    seed: int

    def plan(self, epoch: int, index: Tensor, partner: Tensor | None = None) -> Plan:
        """Return the plan for the images ``index`` int64 ``[R]``, any order, any number.

        ``partner`` int64 ``[B]`` names the rows that the first B images are mixed with.
        """
        words = draws.philox(self.seed, epoch, index, draws.CROP)
        crop = draws.choose(words[:, :2], 2 * self.pad + 1) - self.pad
        setting, share = self.policy.draw(self.seed, epoch, index)
        size = self.height, self.width
        return Plan(
            self.policy.settings,
            index,
            crop.int(),
            (words[:, 2] < 2**31) & self.flip,
            setting,
            share,
            erased(self.seed, epoch, index, *size) if self.erasing else None,
            values=self.values,
            **({} if partner is None else self._mix(epoch, index[: len(partner)], partner)),
        )

    def _mix(self, epoch: int, index: Tensor, partner: Tensor) -> dict[str, Tensor]:
        """Return the plan's entries for CutMix or MixUp."""
        by = index if self.box == "image" else index[:1].expand_as(index)
        if self.mixing == "mixup":
            words = draws.philox(self.seed, epoch, by, draws.BOX)
            return {"partner": partner, "weight": draws.uniform(words[:, 0]).float()}
        box = boxes(self.seed, epoch, by, self.height, self.width)
        return {"partner": partner, "box": box, "weight": kept_share(box, self.height, self.width)}

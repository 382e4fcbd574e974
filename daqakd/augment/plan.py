"""What the draws become: a :class:`Plan` for any images of an epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
        return self.plans(epoch, [index], None if partner is None else [partner])[0]

    def plans(
        self, epoch: int, batches: Sequence[Tensor], partners: Sequence[Tensor] | None = None
    ) -> list[Plan]:
        """Return a plan per batch; drawing them together takes as many calls as drawing one.

        ``batches`` are the images and ``partners`` the partners of each, as for :meth:`plan`.
        """
        index = torch.cat([*batches])
        words = draws.philox(self.seed, epoch, index, draws.CROP)
        setting, share = self.policy.draw(self.seed, epoch, index)
        size = self.height, self.width
        drawn = {
            "index": index,
            "crop": (draws.choose(words[:, :2], 2 * self.pad + 1) - self.pad).int(),
            "flip": (words[:, 2] < 2**31) & self.flip,
            "setting": setting,
            "share": share,
            "erase": erased(self.seed, epoch, index, *size) if self.erasing else None,
        }
        rows = _split(drawn, [len(batch) for batch in batches])
        mixed = [{}] * len(rows) if partners is None else self._mix(epoch, batches, partners)
        return [
            Plan(self.policy.settings, values=self.values, **row, **mix)
            for row, mix in zip(rows, mixed, strict=True)
        ]

    def _mix(
        self, epoch: int, batches: Sequence[Tensor], partners: Sequence[Tensor]
    ) -> list[dict[str, Any]]:
        """Return the plans' entries for CutMix or MixUp."""
        counts = [len(partner) for partner in partners]
        own = [index[:count] for index, count in zip(batches, counts, strict=True)]
        if self.box == "batch":
            own = [index[:1].expand_as(index) for index in own]
        by, drawn = torch.cat(own), {"partner": torch.cat([*partners])}
        if self.mixing == "mixup":
            words = draws.philox(self.seed, epoch, by, draws.BOX)
            return _split({**drawn, "weight": draws.uniform(words[:, 0]).float()}, counts)
        box = boxes(self.seed, epoch, by, self.height, self.width)
        weight = kept_share(box, self.height, self.width)
        return _split({**drawn, "box": box, "weight": weight}, counts)


def _split(drawn: Mapping[str, Tensor | None], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Cut what was drawn for several batches into theirs."""
    parts = {name: value.split([*sizes]) for name, value in drawn.items() if value is not None}
    return [{name: part[i] for name, part in parts.items()} for i in range(len(sizes))]

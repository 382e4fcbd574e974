"""Draws written down: a :class:`Plan` for any images of an epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..functional.augment import Plan
from . import draws
from .mixing import cutmix_boxes, erasing_boxes, kept_fraction
from .policies import Policy


def normalised_values(mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return each pixel value in [0, 1], minus the mean, over the deviation: float32 [3, 256]."""
    levels = torch.arange(256) / torch.tensor(255.0)
    return (levels - torch.tensor(mean)[:, None]) / torch.tensor(std)[:, None]


@dataclass(frozen=True)
class Planner:
    """Makes the plans of one strategy; tensors are on the device that augments."""

    policy: Policy
    height: int
    width: int
    pad: int  # of a random crop: pixels of zeros on each side
    flip: bool
    erasing: bool
    mixing: str | None  # "cutmix", "mixup"
    box: str  # "image": a CutMix box or MixUp weight per image, "batch": one per batch
    values: Tensor  # float32 [3, 256], normalised pixel values
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
        drawn = self._augmented(epoch, torch.cat([*batches]))
        augmented = _split(drawn, [len(batch) for batch in batches])
        mixed = [{}] * len(batches) if partners is None else self._mixed(epoch, batches, partners)
        return [
            Plan(self.policy.settings, values=self.values, **one, **mix)
            for one, mix in zip(augmented, mixed, strict=True)
        ]

    def _augmented(self, epoch: int, index: Tensor) -> dict[str, Tensor | None]:
        """Return what a plan says of the images ``index`` int64 ``[R]``, before they are mixed."""
        words = draws.philox(self.seed, epoch, index, draws.CROP)
        setting, share = self.policy.draw(self.seed, epoch, index)
        size = self.height, self.width
        return {
            "index": index,
            "crop": (draws.choose(words[:, :2], 2 * self.pad + 1) - self.pad).int(),
            "flip": (words[:, 2] < 2**31) & self.flip,
            "setting": setting,
            "share": share,
            "erase": erasing_boxes(self.seed, epoch, index, *size) if self.erasing else None,
        }

    def _mixed(
        self, epoch: int, batches: Sequence[Tensor], partners: Sequence[Tensor]
    ) -> list[dict[str, Any]]:
        """Return what the plans say of CutMix or MixUp."""
        counts = [len(partner) for partner in partners]
        images = [index[:count] for index, count in zip(batches, counts, strict=True)]
        if self.box == "batch":
            images = [index[:1].expand_as(index) for index in images]
        index, drawn = torch.cat(images), {"partner": torch.cat([*partners])}
        if self.mixing == "mixup":
            words = draws.philox(self.seed, epoch, index, draws.BOX)
            return _split({**drawn, "weight": draws.uniform(words[:, 0]).float()}, counts)
        box = cutmix_boxes(self.seed, epoch, index, self.height, self.width)
        weight = kept_fraction(box, self.height, self.width)
        return _split({**drawn, "box": box, "weight": weight}, counts)


def _split(drawn: Mapping[str, Tensor | None], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Cut what was drawn for several batches into theirs."""
    parts = {name: value.split([*sizes]) for name, value in drawn.items() if value is not None}
    return [{name: part[i] for name, part in parts.items()} for i in range(len(sizes))]

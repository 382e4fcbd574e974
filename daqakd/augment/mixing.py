"""Boxes: CutMix (Yun et al., ICCV 2019) and RandomErasing (Zhong et al., AAAI 2020)."""

import math
from functools import cache

import torch
from torch import Tensor

from . import draws

ATTEMPTS = 10  # draws of an erased box until one fits
SCALE, RATIO = (0.02, 0.33), (0.3, 3.3)  # fraction of the area, height / width
RATIO_BINS = 4096  # log-uniform by a table: exponentials differ between devices


def cutmix_boxes(seed: int, epoch: int, index: Tensor, height: int, width: int) -> Tensor:
    """Return clipped CutMix boxes (left, top, right, bottom): int32 ``[B, 4]``.

    The fraction of the area outside is uniform (Beta(1, 1)) before the box is clipped, the centre
    is uniform over the pixels.
    """
    words = draws.philox(seed, epoch, index, draws.BOX)
    side = 0.5 * torch.sqrt(1 - draws.uniform(words[:, 0]))
    half_x, half_y = (side * width).long(), (side * height).long()
    x, y = draws.choose(words[:, 1], width), draws.choose(words[:, 2], height)
    left, right = (x - half_x).clamp(min=0), (x + half_x).clamp(max=width)
    top, bottom = (y - half_y).clamp(min=0), (y + half_y).clamp(max=height)
    return torch.stack([left, top, right, bottom], 1).int()


def kept_fraction(box: Tensor, height: int, width: int) -> Tensor:
    """Return the fraction of an image's area outside its box ``[B, 4]``: float32 ``[B]``."""
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    whole = torch.full_like(area, height * width)  # CUDA divides by a number inexactly
    return (whole - area).float() / whole.float()


@cache
def ratio_roots(device: torch.device, ratio: tuple[float, float] = RATIO) -> Tensor:
    """Return the square roots of log-uniform aspect ratios: float64 ``[RATIO_BINS]``."""
    low, high = (math.log(bound) for bound in ratio)
    step = (high - low) / RATIO_BINS
    roots = [math.exp((low + (i + 0.5) * step) / 2) for i in range(RATIO_BINS)]
    return torch.tensor(roots, dtype=torch.float64, device=device)


def erasing_boxes(seed: int, epoch: int, index: Tensor, height: int, width: int) -> Tensor:
    """Return RandomErasing's boxes (left, top, right, bottom): int32 ``[R, 4]``, half are empty.

    As torchvision draws them: area and aspect ratio again until the box is smaller than the image.
    """
    slots = draws.ERASE + torch.arange(ATTEMPTS, device=index.device)
    words = draws.philox(seed, epoch, index[:, None], slots)
    fraction = draws.uniform(words[..., 0]) * (SCALE[1] - SCALE[0]) + SCALE[0]
    side = torch.sqrt(fraction * (height * width))
    root = ratio_roots(index.device)[draws.choose(words[..., 1], RATIO_BINS)]
    tall, wide = torch.round(side * root).long(), torch.round(side / root).long()
    fits = (tall < height) & (wide < width)
    chosen = fits.int().argmax(1, keepdim=True)
    drawn = draws.philox(seed, epoch, index, draws.CROP)[:, 3] < 2**31
    erases = drawn & fits.any(1)
    tall, wide = (v.gather(1, chosen)[:, 0] * erases for v in (tall, wide))
    place = words.gather(1, chosen[..., None].expand(-1, -1, 4))[:, 0]
    top = draws.choose(place[:, 2], height - tall + 1)
    left = draws.choose(place[:, 3], width - wide + 1)
    return torch.stack([left, top, left + wide, top + tall], 1).int()

"""CutMix (Yun et al., ICCV 2019) and MixUp (Zhang et al., ICLR 2018), one draw per image."""

import torch
from torch import Tensor

from .draws import BOX, philox, uniform


def boxes(seed: int, epoch: int, index: Tensor, size: int) -> Tensor:
    """Return clipped boxes (left, top, right, bottom): int64 ``[B, 4]``.

    The uncut share is uniform (Beta(1, 1)), the centre is uniform over the pixels.
    """
    u = uniform(philox(seed, epoch, index, BOX))
    half = (0.5 * torch.sqrt(1 - u[:, 0]) * size).long()
    x, y = (u[:, 1] * size).long(), (u[:, 2] * size).long()
    return torch.stack([x - half, y - half, x + half, y + half], 1).clamp(0, size)


def cutmix(images: Tensor, partners: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """Paste each partner's box; return the images and the label weight kept by the original.

    Args:
        images: ``[B, C, H, W]``; not written.
        partners: like ``images``.
        box: from :func:`boxes`.

    Returns:
        Mixed images, and float32 ``[B]``: one minus the box's share of the area.
    """
    height, width = images.shape[-2:]
    x = torch.arange(width, device=images.device)
    y = torch.arange(height, device=images.device)
    in_x = (x >= box[:, 0:1]) & (x < box[:, 2:3])
    in_y = (y >= box[:, 1:2]) & (y < box[:, 3:4])
    inside = in_y[:, None, :, None] & in_x[:, None, None, :]
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    return torch.where(inside, partners, images), 1 - area.float() / (height * width)


def mixup(images: Tensor, partners: Tensor, weight: Tensor) -> Tensor:
    """Return ``weight * images + (1 - weight) * partners`` for float images."""
    share = weight[:, None, None, None]
    return share * images + (1 - share) * partners

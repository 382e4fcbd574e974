"""``augment`` in plain PyTorch.

Two ways with the same bits: grouped selects the images of each kind (a host sync per kind, fine on
a CPU), dense runs every kind on every image (no sync, so it can be captured in a CUDA graph).
"""

from typing import Any

import torch
from torch import Tensor

from ._common import implement
from ._pixels import OPERATIONS, ImageSettings, sample

CACHED_PIXELS = 2**16  # taken at once on a CPU: their float64 intermediates stay in its cache


def _cropped(images: Tensor, crop: Tensor, flip: Tensor) -> Tensor:
    """Mirror and shift uint8 ``[R, 3, H, W]``, zero outside."""
    height, width = images.shape[-2:]
    x = torch.arange(width, device=images.device)
    x = torch.where(flip[:, None], width - 1 - x, x) + crop[:, 1:]
    y = torch.arange(height, device=images.device) + crop[:, :1]
    shape = (len(images), height, width)
    return sample(images, y[:, :, None].expand(shape), x[:, None].expand(shape))


def _image_settings(settings: tuple[Tensor, ...], chosen: Tensor) -> ImageSettings:
    return ImageSettings(*(table.index_select(0, chosen) for table in settings))


def _grouped(images: Tensor, kind: Tensor, settings: tuple[Tensor, ...], chosen: Tensor) -> Tensor:
    """Apply one setting per image, kind by kind."""
    at_once = max(1, CACHED_PIXELS // images[:1].numel())
    result = images.clone()
    kinds = kind.index_select(0, chosen)
    for code in kinds.unique().tolist():
        if code in OPERATIONS:
            for which in (kinds == code).nonzero()[:, 0].split(at_once):
                own = _image_settings(settings, chosen.index_select(0, which))
                changed = OPERATIONS[code](images.index_select(0, which), own)
                result.index_copy_(0, which, changed)
    return result


def _dense(images: Tensor, kind: Tensor, settings: tuple[Tensor, ...], chosen: Tensor) -> Tensor:
    """Apply one setting per image, every kind to all."""
    result, own = images, _image_settings(settings, chosen)
    kinds = kind.index_select(0, chosen)[:, None, None, None]
    for code, operation in OPERATIONS.items():
        result = torch.where(kinds == code, operation(images, own), result)
    return result


def _inside(box: Tensor, images: Tensor) -> Tensor:
    """Return where ``[R, 1, H, W]`` a pixel lies in its image's (left, top, right, bottom)."""
    y = torch.arange(images.shape[-2], device=images.device)
    x = torch.arange(images.shape[-1], device=images.device)
    in_x = (x >= box[:, 0:1]) & (x < box[:, 2:3])
    in_y = (y >= box[:, 1:2]) & (y < box[:, 3:4])
    return in_y[:, None, :, None] & in_x[:, None, None, :]


def _augmented(
    images: Tensor,
    setting: Tensor,
    kind: Tensor,
    settings: tuple[Tensor, ...],
    share: Tensor | None,
    dense: bool,
) -> Tensor:
    """Run the chains; return their sum weighted by ``share``, or the only one."""
    if not images.numel():
        return images
    apply = _dense if dense else _grouped
    total = None if share is None else share[:, 0, None, None, None] * images
    for c in range(setting.shape[1]):
        result = images
        for s in range(setting.shape[2]):
            result = apply(result, kind, settings, setting[:, c, s].int())
        if total is None or share is None:
            return result
        total = total + share[:, 1 + c, None, None, None] * result
    return images if total is None else total.to(torch.uint8)


def _normalised(images: Tensor, values: Tensor) -> Tensor:
    """Map uint8 ``[B, 3, H, W]`` to float32 through ``values`` ``[3, 256]``."""
    table = values.expand(len(images), -1, -1)
    return table.gather(2, images.flatten(2).long()).view(images.shape)


def follow(
    pixels: Tensor,
    index: Tensor,
    crop: Tensor,
    flip: Tensor,
    setting: Tensor,
    kind: Tensor,
    lut: Tensor,
    integer: Tensor,
    real: Tensor,
    share: Tensor | None,
    erase: Tensor | None,
    partner: Tensor | None,
    box: Tensor | None,
    weight: Tensor | None,
    values: Tensor | None,
    dtype: torch.dtype,
    channels_last: bool,
    *,
    dense: bool,
) -> Tensor:
    images = _cropped(pixels.index_select(0, index), crop, flip)
    images = _augmented(images, setting, kind, (lut, integer, real), share, dense)
    if erase is not None:
        images = torch.where(_inside(erase, images), 0, images)
    own = images if partner is None else images[: len(partner)]
    other = None if partner is None else images.index_select(0, partner)
    if other is not None and box is not None:
        own, other = torch.where(_inside(box, own), other, own), None
    order = torch.channels_last if channels_last else torch.contiguous_format
    if values is None:
        return own.clone(memory_format=order)
    result = _normalised(own, values)
    if other is not None and weight is not None:
        w = weight[:, None, None, None]
        result = w * result + (1 - w) * _normalised(other, values)
    return result.to(dtype, memory_format=order)


@implement
def augment(pixels: Tensor, *plan: Any) -> Tensor:
    """Follow a plan the way that suits the device; arguments as the schema has them."""
    return follow(pixels, *plan, dense=pixels.device.type != "cpu")

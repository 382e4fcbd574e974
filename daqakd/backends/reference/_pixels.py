"""The operations of ``augment`` on uint8 ``[n, 3, H, W]``, with one setting per image.

The formulas are in ``functional.augment.Settings``. Every rounding is explicit, so that all
devices agree bit for bit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..._ops import AUGMENT_KINDS


@dataclass(frozen=True)
class ImageSettings:
    """The settings of n images."""

    lut: Tensor  # uint8 [n, 256]
    integer: Tensor  # int32 [n, 6]
    real: Tensor  # float32 [n, 6]


def _fma(a: Tensor, b: Tensor | float, c: Tensor | float) -> Tensor:
    """Return a * b + c rounded to float32: the product of two float32 is exact in float64."""
    wide = a.double() * (b.double() if isinstance(b, Tensor) else b)
    return (wide + (c.double() if isinstance(c, Tensor) else c)).float()


def _truncated(values: Tensor) -> Tensor:
    return values.clamp(0, 255).to(torch.uint8)


def look_up(images: Tensor, table: Tensor) -> Tensor:
    """Map pixels through ``table`` uint8 ``[n, 3, 256]``."""
    return table.gather(2, images.flatten(2).long()).view_as(images)


BORDER = 2  # zeros around an image: positions beyond are moved there, with their neighbours


def _padded(images: Tensor) -> Tensor:
    """Return the images with a border of zeros, flattened: uint8 ``[n, 3, pixels]``."""
    return torch.nn.functional.pad(images, (BORDER,) * 4).flatten(2)


def _offsets(images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Return the offsets of positions ``[n, H, W]`` in the padded images: int64 ``[n, 1, HW]``."""
    height, width = images.shape[-2:]
    row, column = y.clamp(-BORDER, height).long() + BORDER, x.clamp(-BORDER, width).long() + BORDER
    return (row * (width + 2 * BORDER) + column).flatten(1)[:, None]


def sample(images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Return the pixels at integer positions ``[n, H, W]``, 0 outside."""
    offset = _offsets(images, y, x).expand(-1, 3, -1)
    return _padded(images).gather(2, offset).view_as(images)


def _lut(images: Tensor, settings: ImageSettings) -> Tensor:
    return look_up(images, settings.lut[:, None].expand(-1, 3, -1))


def _equalize(images: Tensor, settings: ImageSettings) -> Tensor:
    flat = images.flatten(2).long()
    counts = flat.new_zeros((*flat.shape[:2], 256)).scatter_add_(2, flat, torch.ones_like(flat))
    last = counts.gather(2, flat.amax(2, keepdim=True))
    step = torch.div(flat.shape[2] - last, 255, rounding_mode="floor")
    below = counts.cumsum(2) - counts
    divisor = step.clamp(min=1)
    half = torch.div(step, 2, rounding_mode="floor")
    spread = torch.div(half + below, divisor, rounding_mode="floor").clamp(max=255)
    same = torch.arange(256, device=images.device)
    return look_up(images, torch.where(step == 0, same, spread).to(torch.uint8))


def _axes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return y ``[H, 1]`` and x ``[W]``."""
    height, width = images.shape[-2:]
    y = torch.arange(height, device=images.device)[:, None]
    return y, torch.arange(width, device=images.device)


def _fixed(images: Tensor, settings: ImageSettings) -> Tensor:
    y, x = (axis.int() for axis in _axes(images))
    i = settings.integer.t()[..., None, None]
    return sample(images, (i[3] * x + i[4] * y + i[5]) >> 16, (i[0] * x + i[1] * y + i[2]) >> 16)


def _positions(images: Tensor, settings: ImageSettings) -> tuple[Tensor, Tensor]:
    """Return where each output pixel lies in the input, float32 ``[n, H, W]`` twice: py, px."""
    height, width = images.shape[-2:]
    y, x = _axes(images)
    up, left = y - (height - 1) / 2, x - (width - 1) / 2
    r = settings.real.t()[..., None, None]
    across = _fma(up, r[1], left * r[0]) + r[2]
    down = _fma(up, r[4], left * r[3]) + r[5]
    return _fma(down + 1, height / 2, -0.5), _fma(across + 1, width / 2, -0.5)


def _nearest(images: Tensor, settings: ImageSettings) -> Tensor:
    py, px = _positions(images, settings)
    return sample(images, torch.round(py), torch.round(px))


def _bilinear(images: Tensor, settings: ImageSettings) -> Tensor:
    py, px = _positions(images, settings)
    top, left = torch.floor(py), torch.floor(px)
    s, w = py - top, px - left
    n, e = 1 - s, 1 - w
    offset, padded = _offsets(images, top, left), _padded(images)
    down = images.shape[-1] + 2 * BORDER
    total = padded.gather(2, offset.expand(-1, 3, -1)) * (n * e).flatten(1)[:, None]
    for step, weight in ((1, n * w), (down, s * e), (down + 1, s * w)):
        pixels = padded.gather(2, (offset + step).expand(-1, 3, -1))
        # fma(pixel, weight, total): the product is exact in float64, so the sum alone rounds
        exact = pixels.double().mul_(weight.double().flatten(1)[:, None])
        total = exact.add_(total.double()).float()
    return total.round_().to(torch.uint8).view_as(images)


def _extremes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return each channel's minimum and maximum, int64 ``[n, 3, 1, 1]``."""
    return images.amin((2, 3), keepdim=True).long(), images.amax((2, 3), keepdim=True).long()


def _autocontrast_pil(images: Tensor, settings: ImageSettings) -> Tensor:
    low, high = (bound.flatten(2) for bound in _extremes(images))
    spread = (high - low).clamp(min=1).double()
    scale = torch.full_like(spread, 255.0) / spread  # 255 / tensor would round twice
    levels = torch.arange(256, device=images.device)
    stretched = _truncated(levels * scale + -low * scale)
    return look_up(images, torch.where(high > low, stretched, levels.to(torch.uint8)))


def _autocontrast(images: Tensor, settings: ImageSettings) -> Tensor:
    low, high = _extremes(images)
    scale = (high - low).clamp(min=1).float().reciprocal() * 255
    return torch.where(high > low, _truncated((images - low.float()) * scale), images)


def _luma(images: Tensor) -> Tensor:
    """Return Pillow's grey: int32 ``[n, 1, H, W]``."""
    r, g, b = images.int().unbind(1)
    return ((19595 * r + 38470 * g + 7471 * b + 32768) >> 16)[:, None]


def _grey(images: Tensor) -> Tensor:
    """Return torchvision's grey: uint8 ``[n, 1, H, W]``."""
    r, g, b = images.float().unbind(1)
    return (0.2989 * r + 0.587 * g + 0.114 * b).to(torch.uint8)[:, None]


def _blend_pil(images: Tensor, other: Tensor, settings: ImageSettings) -> Tensor:
    d = other.float()
    return _truncated(d + settings.real[:, 0, None, None, None] * (images - d))


def _blend(images: Tensor, other: Tensor, settings: ImageSettings) -> Tensor:
    r = settings.real[:, :2, None, None, None]
    return _truncated(r[:, 0] * images + r[:, 1] * other)


def _contrast_pil(images: Tensor, settings: ImageSettings) -> Tensor:
    luma = _luma(images)
    count = luma[0].numel()
    twice = 2 * luma.sum((1, 2, 3), keepdim=True) + count
    return _blend_pil(images, torch.div(twice, 2 * count, rounding_mode="floor"), settings)


def _contrast(images: Tensor, settings: ImageSettings) -> Tensor:
    grey = _grey(images)
    total = grey.sum((1, 2, 3), keepdim=True).float()
    count = torch.full_like(total, grey[0].numel())  # CUDA divides by a number inexactly
    return _blend(images, total / count, settings)


def _color_pil(images: Tensor, settings: ImageSettings) -> Tensor:
    return _blend_pil(images, _luma(images), settings)


def _color(images: Tensor, settings: ImageSettings) -> Tensor:
    return _blend(images, _grey(images), settings)


def _smoothed(images: Tensor) -> Tensor:
    """Return the 3 x 3 mean, 5 in the middle, rounded (never a half); the border stays: float32."""
    v = images.float()
    lines = v[:, :, :-2] + v[:, :, 1:-1] + v[:, :, 2:]
    total = lines[..., :-2] + lines[..., 1:-1] + lines[..., 2:] + 4 * v[:, :, 1:-1, 1:-1]
    smooth = v.clone()
    smooth[:, :, 1:-1, 1:-1] = torch.round(total / 13)
    return smooth


def _sharpness_pil(images: Tensor, settings: ImageSettings) -> Tensor:
    return images if min(images.shape[-2:]) < 3 else _blend_pil(images, _smoothed(images), settings)


def _sharpness(images: Tensor, settings: ImageSettings) -> Tensor:
    return images if min(images.shape[-2:]) < 3 else _blend(images, _smoothed(images), settings)


OPERATIONS: dict[int, Callable[[Tensor, ImageSettings], Tensor]] = {
    AUGMENT_KINDS[function.__name__.removeprefix("_")]: function
    for function in (
        _lut,
        _equalize,
        _fixed,
        _nearest,
        _bilinear,
        _autocontrast_pil,
        _contrast_pil,
        _color_pil,
        _sharpness_pil,
        _autocontrast,
        _contrast,
        _color,
        _sharpness,
    )
}

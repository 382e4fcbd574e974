"""Colour jitter with factors and an order per image, as Pillow and torchvision compute it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .._ops import AUGMENT_KINDS
from ..backends.reference._pixels import OPERATIONS, ImageSettings, look_up


def _quotient(value: Tensor, number: float) -> Tensor:
    return value / torch.full_like(value, number)  # CUDA divides by a number inexactly


def _brightness(images: Tensor, factor: Tensor, pil: bool) -> Tensor:
    levels = torch.arange(256, device=images.device) * factor[:, None]
    table = levels.clamp(0, 255).to(torch.uint8)
    return look_up(images, table[:, None].expand(-1, 3, -1))


def _blended(kind: str, images: Tensor, factor: Tensor, pil: bool) -> Tensor:
    """Run an operation of ``augment``."""
    real = torch.stack([factor, 1 - factor], 1)
    settings = ImageSettings(real.new_empty(0), real.new_empty(0), real)
    return OPERATIONS[AUGMENT_KINDS[f"{kind}_pil" if pil else kind]](images, settings)


def _contrast(images: Tensor, factor: Tensor, pil: bool) -> Tensor:
    return _blended("contrast", images, factor, pil)


def _saturation(images: Tensor, factor: Tensor, pil: bool) -> Tensor:
    return _blended("color", images, factor, pil)


def _hue(images: Tensor, factor: Tensor, pil: bool) -> Tensor:
    shift = factor[:, None, None]
    return _hue_pil(images, shift) if pil else _hue_tensor(images, shift)


def _by_sector(i: Tensor, v: Tensor, p: Tensor, q: Tensor, t: Tensor) -> Tensor:
    """Return red, green and blue of the six sectors of the colour wheel: ``[n, 3, H, W]``."""
    red, green, blue = (v, q, p, p, t, v), (t, v, v, q, p, p), (p, p, t, v, v, q)
    which = (i % 6).long()[None]
    channels = [torch.stack(colour).gather(0, which)[0] for colour in (red, green, blue)]
    return torch.stack(channels, 1)


def _hue_pil(images: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue as Pillow's conversions to HSV (8 bits each) and back do."""
    h, s, v = _to_hsv(images)
    shifted = (h + (shift.double() * 255).int()) & 255
    return _from_hsv(shifted, s, v)


def _to_hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return Pillow's hue, saturation, value: int32 ``[n, H, W]`` below 256."""
    r, g, b = images.int().unbind(1)
    high, low = images.amax(1).int(), images.amin(1).int()
    spread = (high - low).clamp(min=1).float()
    rc, gc, bc = ((high - channel).float() / spread for channel in (r, g, b))
    second = (2.0 + rc.double() - bc.double()).float()
    third = (4.0 + gc.double() - rc.double()).float()
    angle = torch.where(r == high, bc - gc, torch.where(g == high, second, third))
    angle = torch.fmod(_quotient(angle.double(), 6.0) + 1.0, 1.0).float()
    ratio = spread / high.clamp(min=1).float()
    h, s = ((value.double() * 255.0).int().clamp(0, 255) for value in (angle, ratio))
    grey = high == low
    return torch.where(grey, 0, h), torch.where(grey, 0, s), high


def _from_hsv(h: Tensor, s: Tensor, v: Tensor) -> Tensor:
    """Return Pillow's RGB uint8 ``[n, 3, H, W]``."""
    sixths = _quotient(h.double() * 6.0, 255.0)
    sector = sixths.floor()
    f = (sixths - sector).float()
    saturation = _quotient(s.double(), 255.0).float()
    value = v.double()
    p = value * (1.0 - saturation.double())
    q = value * (1.0 - (saturation * f).double())
    t = value * (1.0 - saturation.double() * (1.0 - f.double()))
    p, q, t = (_half_up(x).clamp(0, 255) for x in (p, q, t))
    return _by_sector(sector, value, p, q, t).to(torch.uint8)


def _half_up(value: Tensor) -> Tensor:
    """Round halves away from zero, as C does; ``value`` is not negative."""
    whole = value.floor()
    return whole + (value - whole >= 0.5)


def _hue_tensor(images: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue as torchvision's float32 tensor kernel does."""
    unit = _quotient(images.float(), 255.0)
    r, g, b = unit.unbind(1)
    high, low = unit.amax(1), unit.amin(1)
    grey = high == low
    spread = high - low
    s = spread / torch.where(grey, 1.0, high)
    divisor = torch.where(grey, 1.0, spread)
    rc, gc, bc = ((high - channel) / divisor for channel in (r, g, b))
    second = torch.where(high == g, 2.0 + rc - bc, 4.0 + gc - rc)
    angle = torch.where(high == r, bc - gc, second)
    h = (torch.fmod(_quotient(angle, 6.0) + 1.0, 1.0) + shift) % 1.0
    sector = torch.floor(h * 6.0)
    f = h * 6.0 - sector
    reductions = (s, s * f, s * (1.0 - f))
    p, q, t = ((high * (1.0 - r)).clamp(0.0, 1.0) for r in reductions)
    return (_by_sector(sector, high, p, q, t) * 255.999).to(torch.uint8)


CACHED_PIXELS = 2**17  # of images taken at once on a CPU
JITTERS = (_brightness, _contrast, _saturation, _hue)  # in the order of the factors' columns


def color_jitter(
    images: Tensor, factor: Tensor, order: Tensor, pil: bool, codes: Sequence[int]
) -> Tensor:
    """Make adjustments ``codes`` on uint8 ``[R, 3, H, W]``, each image in its order ``[R, 4]``."""
    whole = images.device.type != "cpu" or images.numel() == 0
    at_once = max(len(images), 1) if whole else max(CACHED_PIXELS // images[0, 0].numel(), 1)
    parts = zip(images.split(at_once), factor.split(at_once), order.split(at_once), strict=True)
    return torch.cat([_jittered(*part, pil, codes) for part in parts])


def _jittered(
    images: Tensor, factor: Tensor, order: Tensor, pil: bool, codes: Sequence[int]
) -> Tensor:
    step = on_selected if images.device.type == "cpu" or not len(images) else on_all
    for position in range(len(JITTERS)):
        images = step(images, factor, order[:, position], pil, codes)
    return images


def on_selected(
    images: Tensor, factor: Tensor, which: Tensor, pil: bool, codes: Sequence[int]
) -> Tensor:
    """Apply adjustment ``which`` ``[R]`` to each image, selecting its images (a host sync each)."""
    result = images.clone()
    for code in codes:
        rows = (which == code).nonzero()[:, 0]
        if len(rows):
            result[rows] = JITTERS[code](images[rows], factor[rows, code], pil)
    return result


def on_all(
    images: Tensor, factor: Tensor, which: Tensor, pil: bool, codes: Sequence[int]
) -> Tensor:
    """Apply adjustment ``which`` ``[R]`` to each image, running all on all, without a sync."""
    result = images
    for code in codes:
        chosen = (which == code)[:, None, None, None]
        result = torch.where(chosen, JITTERS[code](images, factor[:, code], pil), result)
    return result

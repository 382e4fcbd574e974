"""Bilinear resizing with antialiasing, with a box per image, as Pillow and torchvision compute it.

Both weight the input pixels by a triangle, first across, then down. Pillow counts in 2^-22 and
rounds to 8 bits after each pass; torchvision's tensor kernel stays in float32 and rounds once. It
is PyTorch's bilinear interpolation with antialiasing, as compiled for AVX2 and AVX-512.
"""

import math

import torch
from torch import Tensor

BITS = 22  # Pillow's weights are integers of 2^-22
LANES = 4  # products that PyTorch's kernel rounds before it adds them; the rest it fuses
CACHED_IMAGES = 16  # taken at once on a CPU


def _windows(
    start: Tensor, length: Tensor, size: int, full: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Return which pixels make an output pixel, their weights [R, size, K], their number [R, size].

    ``start``, ``length`` int64 [R] are an axis of the boxes, ``full`` the axis' full length.
    """

    def rounded_to(value: Tensor) -> Tensor:
        """Round to what the kernel keeps in variables; in between, C++ promotes to double."""
        return value.to(dtype).double()

    taps = math.ceil(2 * max(1, full / size))
    extent = length.double()
    scale = rounded_to(extent / torch.full_like(extent, size))  # CUDA divides by a number inexactly
    support = scale.clamp(min=1)[:, None]
    steps = torch.arange(size, device=start.device)
    center = rounded_to(scale[:, None] * (steps + 0.5))
    low = (rounded_to(center - support) + 0.5).long().clamp(min=0)
    high = torch.minimum((rounded_to(center + support) + 0.5).long(), length[:, None])
    tap = low[..., None] + torch.arange(taps, device=start.device)
    slope = rounded_to(torch.ones_like(support) / support)[..., None]
    distance = rounded_to((rounded_to(tap - center[..., None]) + 0.5) * slope)
    weight = torch.where(tap < high[..., None], 1 - distance.abs(), 0).clamp(min=0).to(dtype)
    total = weight[..., 0]
    for k in range(1, taps):
        total = total + weight[..., k]
    inside = torch.minimum(tap, length[:, None, None] - 1)
    return start[:, None, None] + inside, weight / total[..., None], high - low


def _along(values: Tensor, dim: int) -> Tensor:
    """Shape ``[R, size]`` to stand along an axis of ``[R, 3, H, W]``."""
    return values[:, None, None, :] if dim == 3 else values[:, None, :, None]


def _gathered(images: Tensor, index: Tensor, dim: int) -> Tensor:
    shape = list(images.shape)
    shape[dim] = index.shape[1]
    return images.gather(dim, _along(index, dim).expand(shape))


def _pass_pil(images: Tensor, index: Tensor, weight: Tensor, count: Tensor, dim: int) -> Tensor:
    codes = (weight * 2**BITS + 0.5).int()
    total = torch.full((), 2 ** (BITS - 1), dtype=torch.int32, device=images.device)
    for k in range(index.shape[2]):
        total = total + _gathered(images, index[..., k], dim).int() * _along(codes[..., k], dim)
    return (total >> BITS).clamp(0, 255).to(torch.uint8)


def _pass(images: Tensor, index: Tensor, weight: Tensor, count: Tensor, dim: int) -> Tensor:
    rounded = (count - 1) // LANES * LANES
    total = _gathered(images, index[..., 0], dim) * _along(weight[..., 0], dim)
    for k in range(1, index.shape[2]):
        # exact in float64; where the kernel fuses, only the sum is rounded
        wide = _gathered(images, index[..., k], dim).double() * _along(weight[..., k], dim).double()
        if index.shape[2] > LANES:
            wide = torch.where(_along(k <= rounded, dim), wide.float().double(), wide)
        total = (wide + total.double()).float()
    return total


def _resized(images: Tensor, box: Tensor, size: int, pil: bool) -> Tensor:
    dtype = torch.float64 if pil else torch.float32
    left, top, right, bottom = box.long().unbind(1)
    across = _windows(left, right - left, size, images.shape[3], dtype)
    down = _windows(top, bottom - top, size, images.shape[2], dtype)
    if pil:
        return _pass_pil(_pass_pil(images, *across, 3), *down, 2)
    return _pass(_pass(images.float(), *across, 3), *down, 2).round().to(torch.uint8)


def resized_crop(pixels: Tensor, index: Tensor, box: Tensor, size: int, pil: bool) -> Tensor:
    """Resize boxes of ``pixels[index]``: uint8 ``[R, 3, size, size]``."""
    at_once = CACHED_IMAGES if pixels.device.type == "cpu" else max(len(index), 1)
    parts = zip(index.split(at_once), box.split(at_once), strict=True)
    return torch.cat([_resized(pixels.index_select(0, i), b, size, pil) for i, b in parts])

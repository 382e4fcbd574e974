"""Clean images as the network sees them: what teachers are checked and models are tested on.

Without a pipeline an image is seen as it is stored, and so is one that already has the pipeline's
size. Others are resized until their shorter side is 8/7 of that size, and the middle is kept: 256
and 224 pixels, as the paper's Tiny ImageNet and torchvision's ImageNet models are tested.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..functional import resized_crop
from .pipeline import ResizedCrop

MARGIN = 8, 7  # the shorter side before the middle is cut out, by the side of what is kept


def clean(pixels: Tensor, pipeline: ResizedCrop | None, semantics: str = "pil") -> Tensor:
    """Return images at the size that the network sees; no draws.

    Args:
        pixels: ``uint8 [B, 3, H, W]``; of oblong images the largest square in the middle is taken.
        pipeline: what training images go through; None leaves the images as they are.
        semantics: ``"pil"`` or ``"torchvision"``, whose resizing to equal.

    Returns:
        ``uint8 [B, 3, S, S]`` for a pipeline of size S.
    """
    height, width = pixels.shape[-2:]
    if pipeline is None or height == width == pipeline.size:
        return pixels
    size = pipeline.size
    side, large = min(height, width), size * MARGIN[0] // MARGIN[1]
    left, top = (width - side) // 2, (height - side) // 2
    square = torch.tensor([left, top, left + side, top + side], device=pixels.device)
    rows = torch.arange(len(pixels), device=pixels.device)
    whole = square.expand(len(pixels), -1)
    images = resized_crop(pixels, rows, whole, large, semantics=semantics)
    start = round((large - size) / 2)  # torchvision's rounding
    return images[..., start : start + size, start : start + size]


def clean_inputs(
    pixels: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str,
    pipeline: ResizedCrop | None = None,
    semantics: str = "pil",
) -> Tensor:
    """Return clean images, normalised: float32 ``[B, 3, S, S]`` on ``device``, channels last.

    Args:
        pixels: ``uint8 [B, 3, H, W]``.
        mean: per-channel mean of inputs in [0, 1].
        std: per-channel standard deviation.
        device: where to resize and normalise.
        pipeline: as for :func:`clean`.
        semantics: as for :func:`clean`.
    """
    centre = torch.tensor(mean, device=device).view(-1, 1, 1)
    scale = torch.tensor(std, device=device).view(-1, 1, 1)
    images = (clean(pixels.to(device), pipeline, semantics).float() / 255 - centre) / scale
    return images.contiguous(memory_format=torch.channels_last)

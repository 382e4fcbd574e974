"""Clean images as the network sees them: what teachers are checked and models are tested on.

Without a pipeline an image is seen as it is stored, and so is one that already has the pipeline's
size. Others are resized until their shorter side is 8/7 of that size, and the middle is kept: 256
and 224 pixels, as torchvision's ImageNet models are tested. ``InputSpec.clean`` may keep the whole
of every image at 8/7 of the size instead, as the paper's code tests on Tiny ImageNet.
"""

import torch
from torch import Tensor

from ..functional import resized_crop
from .inputs import InputSpec

MARGIN = 8, 7  # the shorter side before the middle is cut out, by the side of what is kept


def clean(pixels: Tensor, inputs: InputSpec) -> Tensor:
    """Return images at the size that the network sees; no draws.

    Args:
        pixels: ``uint8 [B, 3, H, W]``; of oblong images the largest square in the middle is taken.
        inputs: what training images go through; without a pipeline they stay as they are.

    Returns:
        ``uint8 [B, 3, S, S]`` for a pipeline of size S, or 8/7 S where they are kept whole.
    """
    height, width = pixels.shape[-2:]
    if inputs.pipeline is None:
        return pixels
    size = inputs.pipeline.size
    side, large = min(height, width), size * MARGIN[0] // MARGIN[1]
    size = large if inputs.clean == "whole" else size
    if height == width == size:
        return pixels
    left, top = (width - side) // 2, (height - side) // 2
    square = torch.tensor([left, top, left + side, top + side], device=pixels.device)
    rows = torch.arange(len(pixels), device=pixels.device)
    whole = square.expand(len(pixels), -1)
    images = resized_crop(pixels, rows, whole, large, semantics=inputs.semantics)
    start = round((large - size) / 2)  # torchvision's rounding
    return images[..., start : start + size, start : start + size]


def clean_inputs(pixels: Tensor, inputs: InputSpec, device: torch.device | str) -> Tensor:
    """Return clean images, normalised: float32 ``[B, 3, S, S]`` on ``device``, channels last.

    Args:
        pixels: ``uint8 [B, 3, H, W]``.
        inputs: size, resizing, mean and standard deviation.
        device: where to resize and normalise.
    """
    centre = torch.tensor(inputs.mean, device=device).view(-1, 1, 1)
    scale = torch.tensor(inputs.std, device=device).view(-1, 1, 1)
    images = (clean(pixels.to(device), inputs).float() / 255 - centre) / scale
    return images.contiguous(memory_format=torch.channels_last)

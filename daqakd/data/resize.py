"""The resizer of every data set: equal images give equal pixels, however they are stored."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def rgb_pixels(image: Image.Image, size: int | None) -> np.ndarray:
    """Return an image's RGB pixels: ``uint8 [3, H, W]``.

    ``size`` resizes to ``size x size`` by Pillow's bilinear filter, which averages where it
    shrinks; None keeps the image's own height and width.
    """
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if size is not None and rgb.size != (size, size):
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
    return np.array(rgb).transpose(2, 0, 1)


def rgb_stack(images: np.ndarray, size: int | None) -> Tensor:
    """Return decoded images as one tensor: ``uint8 [N, 3, H, W]``, contiguous.

    Args:
        images: ``uint8 [N, H, W, 3]``, or grey ones ``[N, H, W]``.
        size: as for :func:`rgb_pixels`.
    """
    height, width = images.shape[1:3]
    if images.ndim == 4 and size in (None, height) and height == width:
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    pixels = np.empty((len(images), 3, size or height, size or width), np.uint8)
    for target, image in zip(pixels, images, strict=True):
        target[:] = rgb_pixels(Image.fromarray(image), size)
    return torch.from_numpy(pixels)

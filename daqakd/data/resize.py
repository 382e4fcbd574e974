"""The converter of every data set: equal images give equal pixels, however they are stored."""

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .._errors import InputError

EIGHT_BITS = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX"}) | {
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
}
BITS_TAG, PHOTOMETRIC_TAG = 258, 262  # of TIFF: 12 bits are held in 16; 0 is white where 262 is 0


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits: v / 257, rounded; Pillow would clip it to white."""
    tags = getattr(image, "tag_v2", {})
    most = 2 ** tags.get(BITS_TAG, (16,))[0] - 1
    values = np.asarray(image).astype(np.uint32)
    if tags.get(PHOTOMETRIC_TAG) == 0:
        values = most - values
    return Image.fromarray(((values * 255 + most // 2) // most).astype(np.uint8))


def rgb_image(image: Image.Image, name: str) -> Image.Image:
    """Return an image's colours in 8 bits each; transparency is dropped.

    Raises:
        InputError: pixels without a known range; ``name`` says which image.
    """
    # Pillow reads 16-bit grey PPM as 32 bits
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return _eight_bits(image).convert("RGB")
    if image.mode not in EIGHT_BITS:
        kind = {"F": "floats", "I": "32-bit integers"}.get(image.mode, f"of mode {image.mode}")
        raise InputError(
            f"{name}: its pixels are {kind}, whose black and white are not known; save it with 8 or"
            " 16 bits per channel"
        )
    return image if image.mode == "RGB" else image.convert("RGB")


def rgb_pixels(image: Image.Image, size: int | None, name: str = "image") -> np.ndarray:
    """Return an image's RGB pixels: ``uint8 [3, H, W]``.

    ``size`` resizes to ``size x size`` by Pillow's bilinear filter, which averages where it
    shrinks; None keeps the image's own height and width. ``name`` is for errors.
    """
    rgb = rgb_image(image, name)
    if size is not None and rgb.size != (size, size):
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
    return np.array(rgb).transpose(2, 0, 1)


def new_pixels(count: int, height: int, width: int) -> np.ndarray:
    """Return memory for the pixels of a data set: ``uint8 [count, 3, height, width]``.

    Raises:
        InputError: there is not enough.
    """
    shape = (count, 3, height, width)
    try:
        return np.empty(shape, np.uint8)
    except (MemoryError, ValueError) as error:
        raise InputError(
            f"size: {count:,} images of {width} x {height} pixels need {math.prod(shape):,} bytes"
            " of memory, more than there are; choose a smaller size, or what daqakd data prepare"
            " writes, which is not read into memory"
        ) from error


def rgb_stack(images: np.ndarray, size: int | None) -> Tensor:
    """Return decoded images as one tensor: ``uint8 [N, 3, H, W]``, contiguous.

    Args:
        images: ``uint8 [N, H, W, 3]``, or grey ones ``[N, H, W]``.
        size: as for :func:`rgb_pixels`.
    """
    height, width = images.shape[1:3]
    if images.ndim == 4 and size in (None, height) and height == width:
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    pixels = new_pixels(len(images), size or height, size or width)
    for target, image in zip(pixels, images, strict=True):
        target[:] = rgb_pixels(Image.fromarray(image), size)
    return torch.from_numpy(pixels)

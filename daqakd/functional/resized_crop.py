"""Cut a box out of each image and resize it: the pixels of torchvision's ``resized_crop``."""

import torch
from torch import Tensor

from .._errors import InputError
from . import _checks
from ._resize import resized_crop as reference


def resized_crop(
    pixels: Tensor, index: Tensor, box: Tensor, size: int, *, semantics: str = "pil"
) -> Tensor:
    """Resize a box of each image to a square, bilinear with antialiasing; no gradient.

    ``"pil"`` equals Pillow's resize, across first, then down, as in every version before 13;
    Pillow 13 goes down first where that is cheaper, which matters only where the height shrinks.
    ``"torchvision"`` equals ``torchvision.transforms`` of a uint8 tensor on a CPU with AVX2, which
    sums in fused float32; elsewhere pixels near a tie may differ by 1. (Its ``transforms.v2``
    counts in fixed point.) Plain PyTorch on every device.

    Args:
        pixels: ``uint8 [N, 3, H, W]``.
        index: int64 ``[R]``, the row of ``pixels``.
        box: int32 or int64 ``[R, 4]``, (left, top, right, bottom) in pixels, ends excluded; not
            empty, within the image.
        size: side of the result in pixels.
        semantics: ``"pil"`` or ``"torchvision"``.

    Returns:
        ``uint8 [R, 3, size, size]``.

    Raises:
        InputError: a shape or dtype does not fit, or ``size`` is below 1.
    """
    _checks.images("pixels", pixels)
    _checks.tensor("index", index)
    _checks.tensor("box", box)
    if index.dtype != torch.int64 or index.dim() != 1:
        raise InputError(f"index: expected int64 [R], got {index.dtype} {tuple(index.shape)}")
    if box.dtype not in (torch.int32, torch.int64) or box.shape != (len(index), 4):
        raise InputError(
            f"box: expected int32 or int64 [{len(index)}, 4], got {box.dtype} {tuple(box.shape)}"
        )
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InputError(f"size: expected at least 1 pixel, got {size!r}")
    return reference(pixels, index, box, size, _checks.is_pil(semantics))

"""Jitter brightness, contrast, saturation and hue: the pixels of torchvision's ``ColorJitter``."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .._errors import InputError, unknown
from . import _checks
from ._jitter import color_jitter as reference

PARTS = ("brightness", "contrast", "saturation", "hue")


def color_jitter(
    images: Tensor,
    factor: Tensor,
    order: Tensor,
    *,
    parts: Sequence[str] = PARTS,
    semantics: str = "pil",
) -> Tensor:
    """Adjust brightness, contrast, saturation and hue of each image in its own order; no gradient.

    Equals ``torchvision.transforms.functional.adjust_*`` on PIL images (``"pil"``) or on uint8
    tensors on a CPU (``"torchvision"``), pixel by pixel. Plain PyTorch on every device.

    Args:
        images: ``uint8 [R, 3, H, W]``.
        factor: float32 ``[R, 4]``: brightness, contrast, saturation (from 0 on, 1 changes nothing)
            and hue (-0.5 to 0.5 turns).
        order: int64 ``[R, 4]``: each row a permutation of 0 to 3, the columns of ``factor`` in the
            order in which they are applied.
        parts: the adjustments to make; the factors of the others are not looked at. (With
            ``"pil"`` a hue turned by 0 is rounded all the same.)
        semantics: ``"pil"`` or ``"torchvision"``.

    Returns:
        ``uint8 [R, 3, H, W]``.

    Raises:
        InputError: a shape or dtype does not fit, or there is no such part.
    """
    _checks.images("images", images)
    wanted = (len(images), len(PARTS))
    for name, value, dtype in (
        ("factor", factor, torch.float32),
        ("order", order, torch.int64),
    ):
        _checks.tensor(name, value)
        if value.dtype != dtype or value.shape != wanted:
            raise InputError(
                f"{name}: expected {dtype} {wanted}, got {value.dtype} {tuple(value.shape)}"
            )
    if isinstance(parts, str) or not isinstance(parts, Sequence):
        raise InputError(f"parts: expected a list of names, got {parts!r}")
    for part in parts:
        if part not in PARTS:
            raise unknown("part", str(part), list(PARTS))
    codes = [code for code, part in enumerate(PARTS) if part in parts]
    return reference(images, factor, order, _checks.is_pil(semantics), codes)

"""Augment a batch, each image differently, by a plan that holds all random draws already.

A plan holds numbers and no randomness: every backend and device makes the same pixels from it.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from .._ops import AUGMENT_KINDS
from ..backends import choose
from . import _checks
from ._apply import implementation


@dataclass(frozen=True)
class Settings:
    """The K operations, each with its magnitude and sign, that a plan chooses from; row 0 is none.

    Made once, in float64 on the host. ``H, W`` are the image's sides, ``v`` a pixel of channel c,
    ``s(y, x)`` the image, 0 outside. ``fma(a, b, c)`` is a * b + c rounded once to float32; all
    other float arithmetic is float32 (float64 where said) with every operation rounded, ``trunc``
    rounds toward zero after clipping to [0, 255].

    * ``identity``: v
    * ``lut``: lut[v]; brightness, posterize, solarize, invert
    * ``equalize``: per channel, h = histogram, last = count of the largest value present,
      step = (HW - last) // 255; v if step = 0, else
      min((step // 2 + sum of h below v) // step, 255)
    * ``fixed``: s((i3 x + i4 y + i5) >> 16, (i0 x + i1 y + i2) >> 16); Pillow's affine map
    * ``nearest``: s(round(py), round(px)), halves to even, with X = x - (W - 1) / 2,
      Y = y - (H - 1) / 2, gx = fma(Y, r1, X * r0) + r2, gy = fma(Y, r4, X * r3) + r5,
      px = fma(gx + 1, W / 2, -0.5), py = fma(gy + 1, H / 2, -0.5); torchvision's affine grid
    * ``bilinear``: px, py as above; y = floor(py), x = floor(px), b = py - y, w = px - x,
      n = 1 - b, e = 1 - w; round(fma(s(y + 1, x + 1), b * w, fma(s(y + 1, x), b * e,
      fma(s(y, x + 1), n * w, s(y, x) * (n * e))))), halves to even
    * ``contrast_pil color_pil sharpness_pil``: trunc(d + r0 * (v - d)); Pillow's blend
    * ``contrast color sharpness``: trunc(r0 * v + r1 * d), r1 = 1 - factor; torchvision's blend
    * ``autocontrast_pil``: lo and hi are the channel's extremes; v where lo = hi, else in float64
      scale = 255 / (hi - lo), trunc(v * scale + (-lo * scale))
    * ``autocontrast``: v where lo = hi, else trunc((v - lo) * ((1 / (hi - lo)) * 255))

    The blends' d. ``contrast_pil``: (2 * sum L + HW) // (2 HW), the sum over the image's
    L = (19595 r + 38470 g + 7471 b + 32768) >> 16. ``color_pil``: L. ``contrast``: (sum G) / HW,
    G = trunc((0.2989 r + 0.587 g) + 0.114 b), float32 factors. ``color``: G. Both sharpnesses:
    (2 q + 13) // 26, q = the 3 x 3 sum with weight 5 in the middle, and v itself on the border of
    one pixel; images with a side below 3 stay as they are.
    """

    kind: Tensor  # int8 [K], codes of _ops.AUGMENT_KINDS
    lut: Tensor  # uint8 [K, 256], zero for other kinds
    integer: Tensor  # int32 [K, 6], i0 to i5 in units of 2^-16 pixels
    real: Tensor  # float32 [K, 6], r0 to r5

    def to(self, device: torch.device | str) -> "Settings":
        """Return the settings on a device."""
        return Settings(*(getattr(self, f.name).to(device) for f in fields(self)))


@dataclass(frozen=True)
class Plan:
    """What happens to each image of a batch.

    R rows are augmented, the first B of them are the output; the others are only partners.

    1. v(y, x) = pixels[index, :, y + top, x + left], 0 outside; where ``flip``, x is W - 1 - x
       before ``left`` is added.
    2. Each of the C chains applies its S settings in order to v. Without ``share`` C is 1 and the
       chain's result is v; else v = trunc(share_0 * v + share_1 * chain_1 + ... + share_C *
       chain_C), float32, every product and every sum rounded, added from the left.
    3. v = 0 in ``erase``.
    4. Output: float32 ``values[c, v]`` cast to the output dtype; v itself without ``values``. With
       ``box``, v is the partner's inside it [CutMix]. With ``partner`` but no ``box``:
       weight * values[c, v] + (1 - weight) * values[c, partner's v], every operation rounded
       [MixUp].
    """

    settings: Settings
    index: Tensor  # int64 [R], the row of the resident pixels
    crop: Tensor  # int32 [R, 2], (top, left)
    flip: Tensor  # bool [R]
    setting: Tensor  # int16 [R, C, S]
    share: Tensor | None = None  # float32 [R, 1 + C]
    erase: Tensor | None = None  # int32 [R, 4], (left, top, right, bottom), ends excluded
    partner: Tensor | None = None  # int64 [B], a row below R
    box: Tensor | None = None  # int32 [B, 4], as erase
    weight: Tensor | None = None  # float32 [B], the weight of the image's own label
    values: Tensor | None = None  # float32 [3, 256], normalised pixel values

    def to(self, device: torch.device | str) -> "Plan":
        """Return the plan on a device."""
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {k: v if v is None else v.to(device) for k, v in kept.items()}
        return replace(self, **moved)

    @property
    def rows(self) -> int:
        """Number of output images, B."""
        return len(self.index if self.partner is None else self.partner)


SHAPES: dict[str, tuple[torch.dtype, int]] = {
    "index": (torch.int64, 1),
    "crop": (torch.int32, 2),
    "flip": (torch.bool, 1),
    "setting": (torch.int16, 3),
    "share": (torch.float32, 2),
    "erase": (torch.int32, 2),
    "partner": (torch.int64, 1),
    "box": (torch.int32, 2),
    "weight": (torch.float32, 1),
    "values": (torch.float32, 2),
}


def _check_shapes(plan: Plan) -> None:
    for name, (wanted, dims) in SHAPES.items():
        value = getattr(plan, name)
        if value is not None:
            _checks.tensor(f"plan.{name}", value)
        if value is not None and (value.dtype != wanted or value.dim() != dims):
            raise InputError(
                f"plan.{name}: expected {wanted} with {dims} dimensions, got {value.dtype}"
                f" {tuple(value.shape)}"
            )


def _check_choices(plan: Plan, dtype: torch.dtype) -> None:
    if (plan.values is None) != (dtype == torch.uint8):
        raise InputError(
            f"dtype: {dtype} asked for; uint8 needs a plan without values, others one with"
        )
    if plan.values is not None:
        _checks.floating("dtype", torch.empty(0, dtype=dtype))
    if plan.share is None and plan.setting.shape[1] != 1:
        raise InputError(f"plan.share: None allows one chain, got {plan.setting.shape[1]}")
    mixup = plan.partner is not None and plan.box is None
    if mixup and (plan.weight is None or dtype == torch.uint8):
        raise InputError("plan.weight: MixUp (a partner, no box) needs it, and a plan with values")


def augment(
    pixels: Tensor,
    plan: Plan,
    *,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Follow a plan: crop, flip, the chains of operations, erasing, CutMix or MixUp, normalising.

    Pixels equal Pillow's or torchvision's (:class:`Settings` has each formula); no gradient.

    Args:
        pixels: ``uint8 [N, 3, H, W]``, all images, on the device that augments.
        plan: on the same device.
        dtype: of the output; ``torch.uint8`` for a plan without ``values``.
        channels_last: memory order of the output; the values are the same.
        backend: ``"reference"``, ``"triton"``, ``"native"`` or None for the automatic choice.

    Returns:
        ``[B, 3, H, W]``, contiguous, or contiguous in ``torch.channels_last``.

    Raises:
        InputError: a dtype or shape does not fit.
        RuntimeError, IndexError: ``index``, ``setting`` or ``partner`` names a row that is not
            there. On a GPU nothing is read back: the kernel stops before it reads, and a later CUDA
            call says so.
    """
    _checks.images("pixels", pixels)
    if not isinstance(plan, Plan):
        raise InputError(f"plan: expected a Plan, got {type(plan).__name__}")
    if not isinstance(dtype, torch.dtype):
        raise InputError(f"dtype: expected a torch.dtype, got {dtype!r}")
    _checks.flag("channels_last", channels_last)
    _check_shapes(plan)
    _check_choices(plan, dtype)
    run = implementation("augment", choose("augment", pixels, backend))
    settings = [getattr(plan.settings, f.name) for f in fields(Settings)]
    tensors = [getattr(plan, f.name) for f in fields(Plan)[1:]]  # in the order of the schema
    images: Tensor = run(pixels, *tensors[:4], *settings, *tensors[4:], dtype, channels_last)
    return images


__all__ = ["AUGMENT_KINDS", "Plan", "Settings", "augment"]

"""What happens before a strategy: random-resized-crop and colour jitter, as for Tiny ImageNet."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from .._arguments import check_side
from .._errors import InputError, seen
from ..functional import color_jitter, resized_crop
from ..functional.color_jitter import PARTS
from . import draws
from .mixing import RATIO_BINS, ratio_roots
from .strategies import Transform

ATTEMPTS = 10  # at a box that fits
UNCHANGED = (1.0, 1.0, 1.0, 0.0)  # factors of the colour jitter
MOST = (1.0, 1.0, 1.0, 0.5)  # how far they may be from it


@cache
def _orders(device: torch.device) -> Tensor:
    """Return the 24 orders of four adjustments: int64 ``[24, 4]``."""
    return torch.tensor(list(itertools.permutations(range(4))), device=device)


@cache
def _on(device: torch.device, values: tuple[float, ...]) -> Tensor:
    """Return numbers on a device, copied there once: float64."""
    return torch.tensor(values, dtype=torch.float64, device=device)


def _numbers(name: str, values: Sequence[float], count: int) -> tuple[float, ...]:
    """Return ``values`` as floats, so that equal pipelines read the same."""
    try:
        numbers = tuple(float(v) for v in values)
    except (TypeError, ValueError, OverflowError):
        numbers = ()
    if len(numbers) != count:
        raise InputError(f"{name}: expected {count} numbers, got {seen(values)}")
    return numbers


@dataclass(frozen=True)
class ResizedCrop:
    """Random-resized-crop (Szegedy et al., CVPR 2015) and colour jitter, drawn as torchvision does.

    The defaults are the paper's for Tiny ImageNet. Clean images are seen as :mod:`.clean` says.

    Attributes:
        size: side in pixels of what the network sees.
        scale: bounds of the box's share of the image.
        ratio: bounds of the box's width / height.
        jitter: torchvision's (brightness, contrast, saturation, hue); 0 leaves one out, None all.

    Raises:
        InputError: a value that cannot be meant.
    """

    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    jitter: tuple[float, float, float, float] | None = (0.2, 0.2, 0.2, 0.1)

    def __post_init__(self) -> None:
        check_side("size", self.size)
        counts = {"scale": 2, "ratio": 2} | ({} if self.jitter is None else {"jitter": 4})
        for name, count in counts.items():
            object.__setattr__(self, name, _numbers(name, getattr(self, name), count))
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise InputError(f"scale: expected shares 0 < low <= high <= 1, got {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            raise InputError(f"ratio: expected 0 < low <= high, got {self.ratio}")
        if not all(0 <= v <= most for v, most in zip(self._reach, MOST, strict=True)):
            raise InputError(
                "jitter: expected brightness, contrast, saturation from 0 to 1 and hue from 0 to"
                f" 0.5, got {self.jitter}"
            )

    @property
    def _reach(self) -> tuple[float, ...]:
        """How far each factor of the jitter may be from no change."""
        return self.jitter or (0.0,) * len(PARTS)

    def boxes(self, seed: int, epoch: int, index: Tensor, height: int, width: int) -> Tensor:
        """Return the boxes (left, top, right, bottom): int64 ``[R, 4]``.

        Area and ratio are drawn again until the box fits; after ten times it is the largest in the
        middle whose ratio is allowed.
        """
        slots = draws.RESIZE + torch.arange(ATTEMPTS, device=index.device)
        words = draws.philox(seed, epoch, index[:, None], slots)
        low, high = self.scale
        share = draws.uniform(words[..., 0]) * (high - low) + low
        side = torch.sqrt(share * (height * width))
        roots = ratio_roots(index.device, self.ratio)
        root = roots[draws.choose(words[..., 1], RATIO_BINS)]
        wide, tall = torch.round(side * root).long(), torch.round(side / root).long()
        fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
        chosen = fits.int().argmax(1, keepdim=True)
        some, rest = fits.any(1), self._middle(height, width)
        wide = torch.where(some, wide.gather(1, chosen)[:, 0], rest[0])
        tall = torch.where(some, tall.gather(1, chosen)[:, 0], rest[1])
        place = words.gather(1, chosen[..., None].expand(-1, -1, 4))[:, 0]
        left = torch.where(some, draws.choose(place[:, 3], width - wide + 1), (width - wide) // 2)
        top = torch.where(some, draws.choose(place[:, 2], height - tall + 1), (height - tall) // 2)
        return torch.stack([left, top, left + wide, top + tall], 1)

    def _middle(self, height: int, width: int) -> tuple[int, int]:
        """Return width and height of the box where none fits."""
        low, high = self.ratio
        if width / height < low:
            return width, round(width / low)
        if width / height > high:
            return round(height * high), height
        return width, height

    def factors(self, seed: int, epoch: int, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the jitter's factors float32 ``[R, 4]`` and orders int64 ``[R, 4]``."""
        device, reach = index.device, self._reach
        words = draws.philox(seed, epoch, index, draws.FACTORS)
        distance = (2 * draws.uniform(words) - 1) * _on(device, reach)
        words = draws.philox(seed, epoch, index, draws.SEQUENCE)
        orders = _orders(device)[draws.choose(words[:, 0], math.factorial(4))]
        return (_on(device, UNCHANGED) + distance).float(), orders

    def apply(
        self, pixels: Tensor, rows: Tensor, seed: int, epoch: int, index: Tensor, semantics: str
    ) -> Tensor:
        """Return the images ``index`` int64 ``[R]``, which are the ``rows`` of ``pixels``.

        Returns:
            ``uint8 [R, 3, size, size]``, the same for any batch, order and device.
        """
        box = self.boxes(seed, epoch, index, *pixels.shape[-2:])
        images = resized_crop(pixels, rows, box, self.size, semantics=semantics)
        # as in torchvision: Pillow's hue changes pixels even where it turns nothing
        parts = [name for name, reach in zip(PARTS, self._reach, strict=True) if reach > 0]
        if not parts:
            return images
        factor, order = self.factors(seed, epoch, index)
        return color_jitter(images, factor, order, parts=parts, semantics=semantics)

    def transforms(self) -> list[Transform]:
        """Return the same as torchvision's transforms of PIL images, for registered strategies."""
        from torchvision.transforms import ColorJitter, RandomResizedCrop

        crop: Transform = RandomResizedCrop(self.size, self.scale, self.ratio)
        return [crop] if self.jitter is None else [crop, ColorJitter(*self.jitter)]

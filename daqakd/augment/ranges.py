"""Magnitudes of the operations, per policy, as torchvision's tables give them."""

from dataclasses import dataclass

import numpy as np
import torch

from .settings import ImageContext, Setting, make_setting

SIGNED = frozenset(
    {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}
    | {"Brightness", "Color", "Contrast", "Sharpness"}
)
GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
ENHANCE = ("Brightness", "Color", "Contrast", "Sharpness")  # of PIL.ImageEnhance
IMAGE_OPS = ("Posterize", "Solarize", "AutoContrast", "Equalize")  # of PIL.ImageOps


def equal_steps(first: float, last: float, count: int) -> list[float]:
    """Return ``count`` equally spaced float32 numbers.

    They are ``torch.linspace``'s where it fuses additions into products, as with AVX2; without, the
    machine's own differ by an ulp. Here they are the same everywhere: float64 holds the products.
    """
    start, end = np.float32(first), np.float32(last)
    step = float((end - start) / np.float32(count - 1))
    rising = [float(start) + step * i for i in range(count // 2)]
    falling = [float(end) - step * (count - 1 - i) for i in range(count // 2, count)]
    return [float(np.float32(value)) for value in rising + falling]


@dataclass(frozen=True)
class MagnitudeRanges:
    """The largest magnitudes of a policy: the last of ``num_bins`` equally spaced ones.

    Attributes:
        num_bins: number of magnitudes per operation; the first does nothing.
        shear: factor of ShearX and ShearY.
        rotate: degrees.
        enhance: distance of the factor from 1.
        posterize: (b, d): bin i keeps b - round(i / (num_bins - 1) * d) bits.
        translate_pixels: of TranslateX and TranslateY, in pixels, plus
        translate_fraction: of the image's side.
    """

    num_bins: int
    shear: float
    rotate: float
    enhance: float
    posterize: tuple[int, int]
    translate_pixels: float = 0.0
    translate_fraction: float = 0.0

    def magnitudes(self, name: str, context: ImageContext) -> list[float]:
        """Return an operation's magnitudes, unsigned; [0] where it has none."""
        if name == "Posterize":
            bits, dropped = self.posterize
            steps = torch.arange(self.num_bins) / ((self.num_bins - 1) / dropped)
            return (bits - steps.round()).tolist()
        if name == "Solarize":
            return equal_steps(255.0, 0.0, self.num_bins)
        largest = dict.fromkeys(ENHANCE, self.enhance) | {"Rotate": self.rotate}
        largest |= {"ShearX": self.shear, "ShearY": self.shear}
        largest["TranslateX"] = self._translation(context.width)
        largest["TranslateY"] = self._translation(context.height)
        if name not in largest:
            return [0.0]
        return equal_steps(0.0, largest[name], self.num_bins)

    def _translation(self, side: int) -> float:
        return self.translate_pixels + self.translate_fraction * side

    @staticmethod
    def num_signs(name: str) -> int:
        """Return 2 for an operation whose magnitude may be negative, else 1."""
        return 2 if name in SIGNED else 1

    def settings(self, name: str, bins: slice, context: ImageContext) -> list[Setting]:
        """Return an operation's settings: for each magnitude the positive, then the negative one.

        ``bins`` selects magnitudes of operations that have any.
        """
        magnitudes = self.magnitudes(name, context)
        selected = magnitudes[bins] if len(magnitudes) > 1 else magnitudes
        signs = (1.0, -1.0)[: self.num_signs(name)]
        return [make_setting(name, sign * m, context) for m in selected for sign in signs]


AUTOAUGMENT = MagnitudeRanges(10, 0.3, 30.0, 0.9, (8, 4), translate_fraction=150.0 / 331.0)
RANDAUGMENT = MagnitudeRanges(31, 0.3, 30.0, 0.9, (8, 4), translate_fraction=150.0 / 331.0)
TRIVIALAUGMENT = MagnitudeRanges(31, 0.99, 135.0, 0.99, (8, 6), translate_pixels=32.0)
AUGMIX = MagnitudeRanges(10, 0.3, 30.0, 0.9, (4, 4), translate_fraction=1.0 / 3.0)

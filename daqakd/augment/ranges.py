"""Magnitudes of the operations, per policy, as torchvision's tables give them."""

from dataclasses import dataclass

import torch

from .settings import Canvas, Row, row

SIGNED = frozenset(
    {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}
    | {"Brightness", "Color", "Contrast", "Sharpness"}
)
BASIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
ENHANCE = ("Brightness", "Color", "Contrast", "Sharpness")
OTHER = ("Posterize", "Solarize", "AutoContrast", "Equalize")


@dataclass(frozen=True)
class Ranges:
    """The upper ends, reached at the last of ``bins`` equally spaced magnitudes."""

    bins: int
    shear: float
    rotate: float  # degrees
    enhance: float  # the factor's distance from 1
    bits: tuple[int, int]  # Posterize keeps first - round(i / (bins - 1) * second)
    pixels: float = 0.0  # TranslateX/Y, plus
    share: float = 0.0  # of the side

    def magnitudes(self, name: str, on: Canvas) -> list[float]:
        """Return an operation's magnitudes, unsigned; [0] where it has none."""
        if name == "Posterize":
            steps = torch.arange(self.bins) / ((self.bins - 1) / self.bits[1])
            return (self.bits[0] - steps.round()).tolist()
        if name == "Solarize":
            return torch.linspace(255.0, 0.0, self.bins).tolist()
        ends = dict.fromkeys(ENHANCE, self.enhance) | {"Rotate": self.rotate}
        ends |= {"ShearX": self.shear, "ShearY": self.shear}
        ends |= {"TranslateX": self._shift(on.width), "TranslateY": self._shift(on.height)}
        return torch.linspace(0.0, ends[name], self.bins).tolist() if name in ends else [0.0]

    def _shift(self, side: int) -> float:
        return self.pixels + self.share * side

    @staticmethod
    def signs(name: str) -> int:
        """Return how many signs an operation has."""
        return 2 if name in SIGNED else 1

    def rows(self, name: str, bins: slice, on: Canvas) -> list[Row]:
        """Return an operation's rows: for each magnitude the positive, then the negative one."""
        found = self.magnitudes(name, on)
        signs = (1.0, -1.0)[: self.signs(name)]
        kept = found[bins] if len(found) > 1 else found
        return [row(name, sign * magnitude, on) for magnitude in kept for sign in signs]


AUTOAUGMENT = Ranges(10, 0.3, 30.0, 0.9, (8, 4), share=150.0 / 331.0)
RANDAUGMENT = Ranges(31, 0.3, 30.0, 0.9, (8, 4), share=150.0 / 331.0)
TRIVIALAUGMENT = Ranges(31, 0.99, 135.0, 0.99, (8, 6), pixels=32.0)
AUGMIX = Ranges(10, 0.3, 30.0, 0.9, (4, 4), share=1.0 / 3.0)

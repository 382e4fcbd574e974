"""Operations by name and magnitude, as rows of :class:`Settings`: all float64 work is done here.

``"pil"`` computes what Pillow does to a PIL image (the published tables), ``"torchvision"`` what
``torchvision.transforms.functional`` does to a uint8 tensor.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._errors import InputError, unknown
from ..functional.augment import AUGMENT_KINDS, Settings

FIXED_POINT = 65536  # Pillow's affine maps count in 2^-16 pixels
Matrix = tuple[float, float, float, float, float, float]  # x' = a x + b y + c, y' = d x + e y + f


@dataclass(frozen=True)
class Row:
    """One operation with its magnitude."""

    kind: str = "identity"
    lut: Tensor | None = None  # uint8 [256]
    integer: tuple[int, ...] = (0,) * 6
    real: tuple[float, ...] = (0.0,) * 6  # rounded to float32 by `table`


@dataclass(frozen=True)
class Canvas:
    """What a magnitude means: the image's sides, the semantics, and how tensors are resampled."""

    height: int
    width: int
    semantics: str = "pil"
    bilinear: bool = False  # of "torchvision"; Pillow's is nearest

    @property
    def pil(self) -> bool:
        """Whether Pillow's arithmetic is wanted."""
        return self.semantics == "pil"


def table(rows: Sequence[Row]) -> Settings:
    """Stack rows, the identity first."""
    rows = [Row(), *rows]
    if len(rows) > torch.iinfo(torch.int16).max:
        raise InputError(f"settings: at most 32766 fit into a plan's int16, got {len(rows) - 1}")
    none = torch.zeros(256, dtype=torch.uint8)
    return Settings(
        torch.tensor([AUGMENT_KINDS[row.kind] for row in rows], dtype=torch.int8),
        torch.stack([none if row.lut is None else row.lut for row in rows]),
        torch.tensor([row.integer for row in rows], dtype=torch.int32),
        torch.tensor([row.real for row in rows], dtype=torch.float32),
    )


def _inverse_shear(across: float, down: float, x: float, y: float) -> Matrix:
    """Return the output-to-input map of a shear about (x, y) by torchvision's order of operations.

    Its angles are degrees of arctan(magnitude); the shear's determinant is 1.
    """
    sx = math.radians(math.degrees(math.atan(across)))
    sy = math.radians(math.degrees(math.atan(down)))
    a = math.cos(-sy) / math.cos(sy)
    b = -math.cos(-sy) * math.tan(sx) / math.cos(sy)
    c = math.sin(-sy) / math.cos(sy)
    d = -math.sin(-sy) * math.tan(sx) / math.cos(sy) + 1.0
    return d, -b, d * -x + -b * -y + x, -c, a, -c * -x + a * -y + y


def _inverse_rotation(degrees: float) -> Matrix:
    """Return torchvision's output-to-input map of a counterclockwise turn about the origin."""
    angle = math.radians(-degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    return cos, sin, 0.0, -sin, cos, 0.0


def _fixed(matrix: Matrix) -> Row:
    """Return Pillow's fixed-point form of a map on pixel corners."""
    a, b, c, d, e, f = matrix
    shifted = (a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5)
    return Row("fixed", integer=tuple(math.floor(v * FIXED_POINT + 0.5) for v in shifted))


def _grid(matrix: Matrix, on: Canvas) -> Row:
    """Return torchvision's float32 form of a map about the centre, in units of half the sides."""
    half = torch.tensor([[on.width * 0.5], [on.height * 0.5]])
    theta = torch.tensor(matrix).view(2, 3) / half
    return Row("bilinear" if on.bilinear else "nearest", real=tuple(theta.flatten().tolist()))


def _affine(matrix: Matrix, on: Canvas) -> Row:
    return _fixed(matrix) if on.pil else _grid(matrix, on)


def _shear(across: float, down: float, on: Canvas) -> Row:
    """Shear about the top-left corner."""
    corner = (0.0, 0.0) if on.pil else (-on.width * 0.5, -on.height * 0.5)
    return _affine(_inverse_shear(across, down, *corner), on)


def _translate(right: int, down: int, on: Canvas) -> Row:
    return _affine((1.0, 0.0, -float(right), 0.0, 1.0, -float(down)), on)


def _rotate(degrees: float, on: Canvas) -> Row:
    """Turn counterclockwise about the centre.

    Pillow rounds sines to 15 digits, which makes turns by right angles exact.
    """
    if not on.pil:
        return _grid(_inverse_rotation(degrees), on)
    angle = -math.radians(degrees % 360.0)
    a, b, d = round(math.cos(angle), 15), round(math.sin(angle), 15), round(-math.sin(angle), 15)
    x, y = on.width / 2, on.height / 2
    return _fixed((a, b, a * -x + b * -y + x, d, a, d * -x + a * -y + y))


def _blend(name: str, factor: float, on: Canvas) -> Row:
    if on.pil:
        return Row(f"{name}_pil", real=(factor, *(0.0,) * 5))
    return Row(name, real=(factor, 1.0 - factor, *(0.0,) * 4))


def _brightness(factor: float, on: Canvas) -> Row:
    """Blend with black: the same for both semantics, and a table."""
    levels = torch.arange(256) * torch.tensor(factor, dtype=torch.float32)
    return Row("lut", lut=levels.clamp(0, 255).to(torch.uint8))


def _posterize(bits: int, on: Canvas) -> Row:
    return Row("lut", lut=(torch.arange(256) & -(2 ** (8 - bits))).to(torch.uint8))


def _solarize(threshold: float, on: Canvas) -> Row:
    """Invert from the threshold on: Pillow compares in float64, torchvision in float32."""
    levels = torch.arange(256, dtype=torch.float64 if on.pil else torch.float32)
    return Row("lut", lut=torch.where(levels < threshold, levels, 255 - levels).to(torch.uint8))


def _invert() -> Row:
    return Row("lut", lut=torch.arange(255, -1, -1, dtype=torch.uint8))


def row(name: str, magnitude: float, on: Canvas) -> Row:
    """Return torchvision's operation ``name`` at a signed ``magnitude``."""
    make = {
        "Identity": lambda: Row(),
        "ShearX": lambda: _shear(magnitude, 0.0, on),
        "ShearY": lambda: _shear(0.0, magnitude, on),
        "TranslateX": lambda: _translate(int(magnitude), 0, on),
        "TranslateY": lambda: _translate(0, int(magnitude), on),
        "Rotate": lambda: _rotate(magnitude, on),
        "Brightness": lambda: _brightness(1.0 + magnitude, on),
        "Color": lambda: _blend("color", 1.0 + magnitude, on),
        "Contrast": lambda: _blend("contrast", 1.0 + magnitude, on),
        "Sharpness": lambda: _blend("sharpness", 1.0 + magnitude, on),
        "Posterize": lambda: _posterize(int(magnitude), on),
        "Solarize": lambda: _solarize(magnitude, on),
        "AutoContrast": lambda: Row("autocontrast_pil" if on.pil else "autocontrast"),
        "Equalize": lambda: Row("equalize"),
        "Invert": lambda: _invert(),
    }
    if name not in make:
        raise unknown("operation", name, list(make))
    return make[name]()
